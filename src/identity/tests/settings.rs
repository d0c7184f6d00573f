//! The modes without tokens, and configurations that cannot work.

use std::io::Write as _;
use std::sync::Arc;

use futures_util::FutureExt as _;
use http::HeaderMap;

use super::super::{ANONYMOUS, Exchange, Fetch, FetchError, Identity, Reach, Rejection};
use super::{NOW, config, with_header};
use crate::config::{IdentityConfig, IdentityMode};
use crate::secret::FingerprintKey;

pub fn no_network() -> Fetch {
    Arc::new(|_, _| async { Err(FetchError::Unreachable) }.boxed())
}

pub fn reach(fetch: Fetch) -> Reach {
    let nobody: Exchange = Arc::new(|_, _| async { Err(FetchError::Unreachable) }.boxed());
    Reach { fetch, service: Arc::clone(&nobody), upstream: nobody }
}

pub fn build(config: &IdentityConfig) -> Result<Identity, super::super::IdentityError> {
    Identity::new(config, "bank", &FingerprintKey::new([1; 32]), reach(no_network()))
}

fn refused(config: &IdentityConfig) -> &'static str {
    build(config).err().expect("refused").code()
}

fn jwks_file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn mode_none_gives_everybody_one_id_without_looking() {
    let identity = build(&config(IdentityMode::None)).unwrap();
    let caller = identity.identify(&HeaderMap::new(), NOW).await.unwrap();
    assert_eq!((&*caller.credentials_id, caller.expires_at), (ANONYMOUS, None));
    let headers = with_header("authorization", b"Bearer x");
    assert_eq!(identity.identify(&headers, NOW).await.unwrap(), caller);
}

#[tokio::test]
async fn mode_opaque_knows_a_credential_again_however_its_scheme_is_written() {
    let identity = build(&config(IdentityMode::Opaque)).unwrap();
    let id = async |value: &str| {
        let headers = with_header("authorization", value.as_bytes());
        identity.identify(&headers, NOW).await.map(|caller| caller.credentials_id)
    };
    let one = id("Bearer X").await.unwrap();
    assert_eq!(one.len(), 44);
    assert_eq!(id(" bearer  X ").await.unwrap(), one);
    assert_ne!(id("Bearer x").await.unwrap(), one);
    assert_ne!(id("Token X").await.unwrap(), one);
    assert!(matches!(id("Bearer ").await, Err(Rejection::InvalidToken(_))));
}

#[tokio::test]
async fn mode_opaque_reads_the_configured_header_and_no_other() {
    let config = IdentityConfig { header: "X-Api-Key".to_owned(), ..config(IdentityMode::Opaque) };
    let identity = build(&config).unwrap();
    assert!(identity.identify(&with_header("x-api-key", b"k"), NOW).await.is_ok());
    let rejection = identity.identify(&with_header("authorization", b"Bearer k"), NOW).await.unwrap_err();
    assert!(rejection.to_string().contains("`x-api-key`"));
}

#[tokio::test]
async fn mode_opaque_does_not_believe_the_expiry_of_what_looks_like_a_jwt() {
    let identity = build(&config(IdentityMode::Opaque)).unwrap();
    let headers = with_header("authorization", b"Bearer eyJhbGciOiJub25lIn0.eyJleHAiOjF9.");
    assert_eq!(identity.identify(&headers, NOW).await.unwrap().expires_at, None);
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_its_reason() {
    let file = jwks_file(r#"{"keys": []}"#);
    let url = || Some("http://127.0.0.1/jwks".to_owned());
    let path = || Some(file.path().to_owned());
    let good = IdentityConfig { jwks_url: url(), ..config(IdentityMode::Jwt) };
    assert!(build(&good).is_ok());
    let missing = "identity_setting_missing";
    assert_eq!(refused(&IdentityConfig { issuer: None, ..good.clone() }), missing);
    assert_eq!(refused(&IdentityConfig { audience: Some(String::new()), ..good.clone() }), missing);
    assert_eq!(refused(&IdentityConfig { claim: String::new(), ..good.clone() }), missing);
    assert_eq!(refused(&IdentityConfig { jwks_url: None, ..good.clone() }), "identity_jwks_source");
    assert_eq!(refused(&IdentityConfig { jwks_file: path(), ..good.clone() }), "identity_jwks_source");
    assert_eq!(
        refused(&IdentityConfig { header: "not a name".to_owned(), ..good.clone() }),
        "identity_header_invalid"
    );
    for url in ["", "/jwks", "issuer.example/jwks", "ftp://issuer.example/jwks", "http:///jwks"] {
        let config = IdentityConfig { jwks_url: Some(url.to_owned()), ..good.clone() };
        assert_eq!(refused(&config), "identity_jwks_url_invalid", "{url}");
    }
}

#[test]
fn a_file_without_a_usable_key_is_refused_at_start() {
    let large = format!("{{\"keys\": []}}{}", " ".repeat(300_000));
    for text in ["", "not json", r#"{"keys": []}"#, r#"{"keys": [{"kty": "oct", "k": "AA"}]}"#, &large] {
        let file = jwks_file(text);
        let config = IdentityConfig { jwks_file: Some(file.path().to_owned()), ..config(IdentityMode::Jwt) };
        assert_eq!(refused(&config), "identity_jwks_unusable");
    }
    let config = IdentityConfig { jwks_file: Some("/no/such/file".into()), ..config(IdentityMode::Jwt) };
    assert_eq!(refused(&config), "identity_jwks_unreadable");
}
