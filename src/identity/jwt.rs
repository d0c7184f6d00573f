//! Mode `jwt`: a token is hashed, looked up, and only when it is new verified with its issuer's key.

use std::borrow::Cow;
use std::sync::Arc;

use super::claims::{Fault, Rules, TokenHeader, Verified};
use super::jwks::{Fetch, Lookup, Source};
use super::known::{CAPACITY, KnownTokens, TokenHash};
use super::{Caller, IdentityError, Rejection};
use crate::clock::Timestamp;
use crate::config::IdentityConfig;

pub struct JwtIdentity {
    rules: Rules,
    source: Source,
    known: KnownTokens<Verified>,
}

impl JwtIdentity {
    pub fn new(config: &IdentityConfig, upstream: &str, fetch: Fetch) -> Result<Self, IdentityError> {
        let needed = |value: &Option<String>, key| match value.as_deref() {
            Some(value) if !value.is_empty() => Ok(value.to_owned()),
            _ => Err(IdentityError::Missing { upstream: upstream.to_owned(), key }),
        };
        let issuer = needed(&config.issuer, "issuer")?;
        let audience = needed(&config.audience, "audience")?;
        let claim = needed(&Some(config.claim.clone()), "claim")?;
        let source = match (&config.jwks_url, &config.jwks_file) {
            (Some(url), None) => Source::url(url, upstream, fetch)?,
            (None, Some(path)) => Source::file(path, upstream)?,
            _ => return Err(IdentityError::JwksSource { upstream: upstream.to_owned() }),
        };
        Ok(Self { rules: Rules::new(&issuer, &audience, &claim), source, known: KnownTokens::new(CAPACITY) })
    }

    /// For a token seen before: one hash, one look into a map, no wait and no allocation.
    pub async fn identify(&self, token: &[u8], wall: Timestamp) -> Result<Caller, Rejection> {
        let hash = TokenHash::of(token);
        if let Some(generation) = self.source.trusted_generation(wall)
            && let Some(verified) = self.known.get(&hash, generation, wall)
        {
            return Ok(verified.into());
        }
        let header = TokenHeader::read(token)?;
        let (key, generation) = match self.source.find(header.wanted(), wall).await {
            Lookup::Found { key, generation } => (key, generation),
            Lookup::Faulty(fault) => return Err(fault.into()),
            Lookup::Unavailable => return Err(Rejection::Unavailable),
        };
        let verified = self.rules.judge(token, &header, &key, wall)?;
        // A clock set back makes no token good for longer: its end is a date.
        self.known.insert(hash, generation, verified.clone(), Timestamp(i64::MIN)..verified.expires_at);
        Ok(verified.into())
    }
}

impl From<Verified> for Caller {
    fn from(verified: Verified) -> Self {
        Self { credentials_id: Arc::clone(&verified.credentials_id), expires_at: Some(verified.expires_at) }
    }
}

impl From<Fault> for Rejection {
    fn from(fault: Fault) -> Self {
        Self::InvalidToken(Cow::Borrowed(fault.sentence()))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::identity::jwks::FetchError;
    use crate::identity::keys::KeySet;

    const NOW: Timestamp = Timestamp(1_000);

    fn with_source(source: Source) -> JwtIdentity {
        JwtIdentity { rules: Rules::new("i", "a", "sub"), source, known: KnownTokens::new(CAPACITY) }
    }

    fn known_until(expires_at: Timestamp) -> Verified {
        Verified { credentials_id: "john".into(), expires_at }
    }

    #[tokio::test]
    async fn a_token_seen_before_is_looked_up_and_not_verified_again() {
        let identity = with_source(Source::Fixed(KeySet::read(br#"{"keys": []}"#).unwrap()));
        assert!(identity.identify(b"x", NOW).await.is_err());
        let end = NOW.after(std::time::Duration::from_secs(1));
        identity.known.insert(TokenHash::of(b"x"), 0, known_until(end), NOW..end);
        assert_eq!(&*identity.identify(b"x", NOW).await.unwrap().credentials_id, "john");
        assert!(identity.identify(b"y", NOW).await.is_err());
    }

    #[tokio::test]
    async fn a_token_is_not_believed_before_there_are_keys_to_believe() {
        let down: Fetch = Arc::new(|_, _| async { Err(FetchError::Unreachable) }.boxed());
        let identity = with_source(Source::url("http://127.0.0.1/jwks", "bank", down).unwrap());
        identity.known.insert(TokenHash::of(b"x"), 0, known_until(Timestamp::MAX), NOW..Timestamp::MAX);
        assert!(identity.identify(b"x", NOW).await.is_err());
    }
}
