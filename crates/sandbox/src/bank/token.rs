//! Access and refresh tokens: contract.md section 5. Pure: the time and the random ids are given.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::{INVALID_TOKEN, Refusal};
use super::keys::Keys;
use super::scope::Scope;
use super::user::MockUser;

/// The `iss` of every token. A name, not an address: the bank may listen anywhere.
pub const ISSUER: &str = "https://auth.ringback-sandbox.example";
/// The `aud` of every access token.
pub const AUDIENCE: &str = "data_api";

pub(crate) const LIFETIME_MAX: Duration = Duration::from_hours(1);
/// Users consent for about 90 days; a refresh token lasts as long.
pub(crate) const CONSENT: Duration = Duration::from_hours(90 * 24);

/// RFC 9068 section 2.1.
const ACCESS: &str = "at+jwt";
/// Ours: keeps either kind of token from being taken for the other.
const REFRESH: &str = "rt+jwt";

/// Who may do what, on whose behalf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) user: MockUser,
    pub(crate) client_id: String,
    pub(crate) scopes: Vec<Scope>,
}

#[derive(Serialize, Deserialize)]
struct AccessClaims {
    nbf: i64,
    exp: i64,
    iat: i64,
    iss: String,
    aud: String,
    client_id: String,
    sub: String,
    auth_time: i64,
    idp: String,
    jti: String,
    sid: String,
    connector_id: String,
    credentials_key: String,
    privacy_policy: String,
    consent_id: String,
    scope: Vec<Scope>,
    amr: Vec<String>,
    /// Not in the contract: `sub` cannot be turned back into a name.
    mock_user: String,
}

#[derive(Serialize, Deserialize)]
struct RefreshClaims {
    exp: i64,
    iss: String,
    aud: String,
    client_id: String,
    sub: String,
    jti: String,
    scope: Vec<Scope>,
    mock_user: String,
}

impl Grant {
    /// A token that is valid from `now` on; `id` makes it unlike any other.
    pub(crate) fn access_token(&self, keys: &Keys, now: Timestamp, lifetime: Duration, id: String) -> String {
        let seed = self.user.seed();
        let now = now.as_second();
        keys.sign(
            ACCESS,
            &AccessClaims {
                nbf: now,
                exp: later(now, lifetime.min(LIFETIME_MAX)),
                iat: now,
                iss: ISSUER.into(),
                aud: AUDIENCE.into(),
                client_id: self.client_id.clone(),
                sub: self.user.credentials_id(),
                auth_time: now,
                idp: "local".into(),
                sid: seed.child(&id).hex(32),
                jti: id,
                connector_id: "mock".into(),
                credentials_key: seed.child("credentials key").hex(64),
                privacy_policy: "Feb2019".into(),
                consent_id: seed.child("consent").hex(32),
                scope: self.scopes.clone(),
                amr: vec!["pwd".into()],
                mock_user: self.user.name().into(),
            },
        )
    }

    pub(crate) fn refresh_token(&self, keys: &Keys, now: Timestamp, id: String) -> String {
        keys.sign(
            REFRESH,
            &RefreshClaims {
                exp: later(now.as_second(), CONSENT),
                iss: ISSUER.into(),
                aud: ISSUER.into(),
                client_id: self.client_id.clone(),
                sub: self.user.credentials_id(),
                jti: id,
                scope: self.scopes.clone(),
                mock_user: self.user.name().into(),
            },
        )
    }

    /// What an access token allows at `now`.
    ///
    /// # Errors
    /// `invalid_token` when it has expired, is not valid yet, or is not this bank's.
    pub(crate) fn of_access_token(keys: &Keys, token: &str, now: Timestamp) -> Result<Self, Refusal> {
        let claims: AccessClaims = keys.verify(ACCESS, token).ok_or(INVALID_TOKEN)?;
        if claims.iss != ISSUER || claims.aud != AUDIENCE || claims.nbf > now.as_second() {
            return Err(INVALID_TOKEN.into());
        }
        if claims.exp <= now.as_second() {
            let expired = Timestamp::from_second(claims.exp).unwrap_or(Timestamp::MIN);
            let sentence = format!("The token expired at '{}'", expired.strftime("%Y-%m-%d %H:%M:%SZ"));
            return Err(Refusal::because(INVALID_TOKEN, sentence));
        }
        let user = MockUser::named(&claims.mock_user).ok_or(INVALID_TOKEN)?;
        Ok(Self { user, client_id: claims.client_id, scopes: claims.scope })
    }

    /// What a refresh token allows at `now`; `None` when it is none of ours or has expired.
    pub(crate) fn of_refresh_token(keys: &Keys, token: &str, now: Timestamp) -> Option<Self> {
        let claims: RefreshClaims = keys.verify(REFRESH, token)?;
        let valid = claims.iss == ISSUER && claims.aud == ISSUER && claims.exp > now.as_second();
        let user = MockUser::named(&claims.mock_user).filter(|_| valid)?;
        Some(Self { user, client_id: claims.client_id, scopes: claims.scope })
    }

    pub(crate) fn allows(&self, scopes: &[Scope]) -> bool {
        scopes.iter().all(|scope| self.scopes.contains(scope))
    }
}

fn later(now: i64, by: Duration) -> i64 {
    now.saturating_add(i64::try_from(by.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::scope;

    fn grant() -> Grant {
        let user = MockUser::named("john").unwrap();
        Grant { user, client_id: "client".into(), scopes: scope::parse("accounts offline_access").unwrap() }
    }

    #[test]
    fn a_token_ends_to_the_second_and_says_when() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        let now: Timestamp = "2020-12-07T11:34:56Z".parse().unwrap();
        let token = grant().access_token(&keys, now, LIFETIME_MAX, "id".into());
        let at = |text: &str| Grant::of_access_token(&keys, &token, text.parse().unwrap());
        assert_eq!(at("2020-12-07T12:34:55.999Z"), Ok(grant()));
        assert_eq!(
            at("2020-12-07T12:34:56Z"),
            Err(Refusal::because(INVALID_TOKEN, "The token expired at '2020-12-07 12:34:56Z'"))
        );
        assert_eq!(at("2020-12-07T11:34:55Z"), Err(INVALID_TOKEN.into()), "not valid yet");
    }

    #[test]
    fn no_token_lasts_longer_than_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        let now: Timestamp = "2020-12-07T11:34:56Z".parse().unwrap();
        let token = grant().access_token(&keys, now, LIFETIME_MAX * 2, "id".into());
        assert!(Grant::of_access_token(&keys, &token, "2020-12-07T12:34:56Z".parse().unwrap()).is_err());
    }

    #[test]
    fn neither_kind_of_token_passes_for_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        let now: Timestamp = "2020-12-07T11:34:56Z".parse().unwrap();
        let access = grant().access_token(&keys, now, LIFETIME_MAX, "id".into());
        let refresh = grant().refresh_token(&keys, now, "id".into());
        assert_eq!(Grant::of_refresh_token(&keys, &refresh, now), Some(grant()));
        assert_eq!(Grant::of_refresh_token(&keys, &access, now), None);
        assert!(Grant::of_access_token(&keys, &refresh, now).is_err());
    }

    #[test]
    fn a_token_changed_in_any_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        let now: Timestamp = "2020-12-07T11:34:56Z".parse().unwrap();
        let token = grant().access_token(&keys, now, LIFETIME_MAX, "id".into());
        for index in (0..token.len()).step_by(7) {
            let mut changed = token.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(Grant::of_access_token(&keys, &changed, now).is_err(), "changed at {index}");
        }
    }
}
