//! Where an issuer's keys come from, and when they are got again.
//!
//! Two halves: [`policy`] decides purely what one look-up may do, [`remote`] does it. What holds
//! between them: a key that is known never waits on the network; at most one fetch runs at a time and
//! all who need it wait for the same one; an issuer that fails is left alone for a second; keys older
//! than a day are not trusted. Times are the wall clock's, which may jump: a jump back makes keys due
//! for a refresh, never young for ever.

mod policy;
mod remote;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Uri;

use super::IdentityError;
use super::claims::Fault;
use super::keys::{Choice, KeySet, VerifyingKey, Wanted};
use crate::clock::Timestamp;
use policy::Limits;
use remote::Remote;

/// Largest JWK set read, in bytes.
pub const MAX_JWKS_BYTES: usize = 256 * 1024;

/// Gets a URL: follows no redirect, stops reading after the given number of bytes and says
/// [`FetchError::TooLarge`], and returns the body of a 200. Its time limit is kept by the caller.
pub type Fetch = Arc<dyn Fn(Uri, usize) -> BoxFuture<'static, Result<Bytes, FetchError>> + Send + Sync>;

/// Why a JWK set could not be got or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("no connection, or it broke")]
    Unreachable,
    #[error("it did not answer in time")]
    TimedOut,
    #[error("it answered {0} instead of 200")]
    Status(u16),
    #[error("it is larger than 256 KB")]
    TooLarge,
    #[error("it is not a JWK set")]
    NotAKeySet,
    #[error("it holds more than 100 keys")]
    TooManyKeys,
    #[error("it holds no key that verifies RS256, ES256 or EdDSA")]
    NoUsableKey,
}

/// The keys of one issuer.
pub enum Source {
    /// Read once from a file.
    Fixed(KeySet),
    Remote(Arc<Remote>),
}

/// What came of looking for a token's key.
pub enum Lookup {
    Found { key: Arc<VerifyingKey>, generation: u64 },
    Faulty(Fault),
    Unavailable,
}

impl Source {
    pub fn file(path: &Path, upstream: &str) -> Result<Self, IdentityError> {
        let unusable = |reason| IdentityError::JwksUnusable {
            upstream: upstream.to_owned(),
            path: path.to_owned(),
            reason,
        };
        let mut json = Vec::new();
        let limit = u64::try_from(MAX_JWKS_BYTES).unwrap_or(u64::MAX);
        File::open(path)
            // One byte more than allowed, so that a larger file is seen to be one.
            .and_then(|file| file.take(limit + 1).read_to_end(&mut json))
            .map_err(|source| IdentityError::JwksUnreadable {
                upstream: upstream.to_owned(),
                path: path.to_owned(),
                source,
            })?;
        let keys = KeySet::read(&json).map_err(unusable)?;
        if keys.is_empty() {
            return Err(unusable(FetchError::NoUsableKey));
        }
        Ok(Self::Fixed(keys))
    }

    /// Nothing is fetched yet.
    pub fn url(url: &str, upstream: &str, fetch: Fetch) -> Result<Self, IdentityError> {
        let uri = url.parse::<Uri>().ok().filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        let uri = uri.ok_or_else(|| IdentityError::JwksUrl { upstream: upstream.to_owned() })?;
        Ok(Self::Remote(Arc::new(Remote::new(upstream, uri, fetch, Limits::default()))))
    }

    /// The generation of the keys in use; tokens verified with it may be believed. Changes with the
    /// keys, so that a withdrawn key takes its tokens with it. `None`: there are none to trust.
    pub fn trusted_generation(&self, wall: Timestamp) -> Option<u64> {
        match self {
            Self::Fixed(_) => Some(0),
            Self::Remote(remote) => remote.trusted_generation(wall),
        }
    }

    /// The key for a token; waits for at most one fetch, and only for a key that is not known.
    pub async fn find(&self, wanted: Wanted<'_>, wall: Timestamp) -> Lookup {
        match self {
            Self::Fixed(keys) => answer(keys.choose(wanted), 0),
            Self::Remote(remote) => remote.find(wanted, wall).await,
        }
    }
}

fn answer(choice: Choice<'_>, generation: u64) -> Lookup {
    match choice {
        Choice::Key(key) => Lookup::Found { key: Arc::clone(key), generation },
        Choice::Absent => Lookup::Faulty(Fault::UnknownKey),
        Choice::Unfit => Lookup::Faulty(Fault::UnfitKey),
        Choice::Ambiguous => Lookup::Faulty(Fault::AmbiguousKey),
    }
}
