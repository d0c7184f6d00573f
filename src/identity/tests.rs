//! Identity as the gateway sees it: headers in, a caller or a rejection out.

mod asked;
mod bounds;
mod issuer;
mod outages;
mod rotation;
mod settings;
mod tokens;

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::{Caller, Identity, Rejection};
use crate::clock::Timestamp;
use crate::config::{ClientAuth, IdentityConfig, IdentityMode};

/// The moment of every test, unless it says otherwise.
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "data_api";

fn config(mode: IdentityMode) -> IdentityConfig {
    IdentityConfig {
        mode,
        header: "Authorization".to_owned(),
        jwks_url: None,
        jwks_file: None,
        issuer: Some(ISSUER.to_owned()),
        audience: Some(AUDIENCE.to_owned()),
        claim: "sub".to_owned(),
        introspection_url: None,
        client_id: None,
        client_secret: None,
        client_secret_file: None,
        client_auth: ClientAuth::Basic,
        path: None,
        pointer: None,
        revalidate: false,
        timeout: Duration::from_secs(5),
        max_cache: Duration::from_mins(1),
    }
}

fn with_header(name: &'static str, value: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::from_bytes(value).unwrap());
    headers
}

async fn identify(identity: &Identity, token: &str, wall: Timestamp) -> Result<Caller, Rejection> {
    let value = format!("Bearer {token}");
    identity.identify(&with_header("authorization", value.as_bytes()), wall).await
}

/// The credentials id, or a word for the rejection that says no more than what a test compares.
async fn outcome(identity: &Identity, token: &str, wall: Timestamp) -> String {
    match identify(identity, token, wall).await {
        Ok(caller) => caller.credentials_id.to_string(),
        Err(Rejection::InvalidToken(_)) => "401".to_owned(),
        Err(Rejection::Unavailable) => "503".to_owned(),
    }
}
