//! Tokens: how they are had, what they say, who refuses them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use sandbox::{AUDIENCE, Bank, ISSUER, JWKS_PATH, TOKEN_PATH};
use serde_json::{Value, json};

use crate::support::Server;

/// The token's header and claims, verified by a library that knows nothing of this bank.
async fn verified(bank: &Server, token: &str) -> (Value, Value) {
    let jwks: JwkSet = serde_json::from_value(bank.get(JWKS_PATH, "").await.json()).unwrap();
    let header = decode_header(token).unwrap();
    let key = jwks.find(header.kid.as_ref().unwrap()).expect("the kid is published");
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
    validation.validate_nbf = true;
    let claims = decode::<Value>(token, &DecodingKey::from_jwk(key).unwrap(), &validation).unwrap().claims;
    (serde_json::to_value(header).unwrap(), claims)
}

#[tokio::test]
async fn a_token_verifies_with_the_published_keys_and_has_the_claims_of_the_contract() {
    let bank = Server::bank().await;
    let reply = bank.form("grant_type=authorization_code&code=john&client_id=my-app&client_secret=x").await;
    assert_eq!(reply.header("cache-control"), "no-store");
    let answer = reply.json();
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["expires_in"], 3600);
    let scopes = "info accounts balance cards transactions direct_debits standing_orders offline_access";
    assert_eq!(answer["scope"], scopes);
    let (header, claims) = verified(&bank, answer["access_token"].as_str().unwrap()).await;
    assert_eq!((&header["typ"], &header["alg"]), (&json!("at+jwt"), &json!("RS256")));
    let sub = claims["sub"].as_str().unwrap();
    assert_eq!((sub.len(), BASE64_STANDARD.decode(sub).unwrap().len()), (44, 32));
    assert_eq!(claims["client_id"], "my-app");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    assert_eq!(claims["scope"], json!(scopes.split(' ').collect::<Vec<_>>()));
    for name in [
        "nbf",
        "auth_time",
        "idp",
        "jti",
        "sid",
        "connector_id",
        "credentials_key",
        "privacy_policy",
        "consent_id",
        "amr",
    ] {
        assert!(!claims[name].is_null(), "{name}");
    }
}

#[tokio::test]
async fn a_code_is_never_used_up_and_forms_and_json_are_alike() {
    let bank = Server::bank().await;
    let (_, first) = verified(&bank, &bank.token("john").await).await;
    let body = json!({"grant_type": "authorization_code", "code": "john", "expires_in": 60}).to_string();
    let reply = bank.post(TOKEN_PATH, "application/json; charset=utf-8", &body).await.json();
    assert_eq!(reply["expires_in"], 60);
    let (_, second) = verified(&bank, reply["access_token"].as_str().unwrap()).await;
    assert_eq!(first["sub"], second["sub"]);
    assert_ne!(first["jti"], second["jti"]);
    assert_eq!(second["exp"].as_i64().unwrap() - second["iat"].as_i64().unwrap(), 60);
}

#[tokio::test]
async fn a_refresh_gives_a_new_pair_for_the_same_credentials() {
    let bank = Server::bank().await;
    let first = bank.form("grant_type=authorization_code&code=jane&client_id=app").await.json();
    let refresh =
        |token: &Value| format!("grant_type=refresh_token&refresh_token={}", token.as_str().unwrap());
    let second = bank.form(&refresh(&first["refresh_token"])).await.json();
    for name in ["access_token", "refresh_token"] {
        assert_ne!(first[name], second[name], "{name}");
    }
    let old = bank.get("/data/v1/me", first["access_token"].as_str().unwrap()).await;
    let new = bank.get("/data/v1/me", second["access_token"].as_str().unwrap()).await;
    assert_eq!((old.status, &old.body), (200, &new.body));
    assert_eq!(bank.form(&refresh(&second["refresh_token"])).await.status, 200);
    // An access token is no refresh token.
    let wrong = bank.form(&refresh(&first["access_token"])).await;
    assert_eq!((wrong.status, wrong.json()), (400, json!({"error": "invalid_grant"})));
}

#[tokio::test]
async fn tokens_outlive_a_restart_but_not_the_loss_of_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("made/when/missing");
    let bank = Server::bank_in(&data_dir).await;
    let tokens = bank.form("grant_type=authorization_code&code=john").await.json();
    let (access, refresh) =
        (tokens["access_token"].as_str().unwrap(), tokens["refresh_token"].as_str().unwrap());
    bank.stop().await;

    let bank = Server::bank_in(&data_dir).await;
    assert_eq!(bank.get("/data/v1/me", access).await.status, 200);
    assert_eq!(bank.form(&format!("grant_type=refresh_token&refresh_token={refresh}")).await.status, 200);
    verified(&bank, access).await;
    bank.stop().await;

    std::fs::remove_dir_all(&data_dir).unwrap();
    let bank = Server::bank_in(&data_dir).await;
    assert_eq!(bank.get("/data/v1/me", access).await.json()["error"], "invalid_token");
}

#[test]
fn the_key_file_is_for_its_owner_only_and_a_bad_one_is_named() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    Bank::open(dir.path()).unwrap_or_else(|error| panic!("{error}"));
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "nothing unfinished is left");
    assert_eq!(std::fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&files[0], b"not a key").unwrap();
    let error = Bank::open(dir.path()).err().expect("this is not a key").to_string();
    assert!(error.contains(files[0].to_str().unwrap()), "{error}");
    let error = Bank::open(&files[0].join("below a file")).err().expect("not a directory").to_string();
    assert!(error.contains("data directory"), "{error}");
}

#[tokio::test]
async fn a_slip_at_the_token_endpoint_is_answered_like_an_auth_server_does() {
    let bank = Server::bank().await;
    for (body, error) in [
        ("", "invalid_request"),
        ("grant_type=authorization_code", "invalid_request"),
        ("grant_type=client_credentials", "unsupported_grant_type"),
        ("grant_type=refresh_token&refresh_token=stale", "invalid_grant"),
        ("grant_type=authorization_code&code=john&scope=everything", "invalid_scope"),
    ] {
        let reply = bank.form(body).await;
        assert_eq!((reply.status, &reply.json()["error"]), (400, &json!(error)), "{body}");
    }
    let broken = bank.post(TOKEN_PATH, "application/json", "{").await;
    assert_eq!((broken.status, &broken.json()["error"]), (400, &json!("invalid_request")));
    let get = bank.get(TOKEN_PATH, "").await;
    assert_eq!((get.status, get.header("allow")), (405, "POST"));
    let big = bank.form(&format!("code={}", "x".repeat(100_000))).await;
    assert_eq!(big.status, 400);
}

#[tokio::test]
async fn the_discovery_document_leads_to_the_keys() {
    let bank = Server::bank().await;
    let document = bank.get("/.well-known/openid-configuration", "").await.json();
    assert_eq!(document["issuer"], ISSUER);
    let base = format!("http://{}", bank.address);
    assert_eq!(document["jwks_uri"], format!("{base}{JWKS_PATH}"));
    assert_eq!(document["token_endpoint"], format!("{base}{TOKEN_PATH}"));
    let keys = bank.get(JWKS_PATH, "").await;
    assert_eq!(keys.body, bank.get("/.well-known/jwks.json", "").await.body);
    assert_eq!(keys.json()["keys"].as_array().unwrap().len(), 1);
    assert!(keys.json()["keys"][0].get("d").is_none(), "the private key stays here");
}

#[tokio::test]
async fn what_is_no_valid_token_is_refused_with_401() {
    let bank = Server::bank().await;
    let good = bank.token("john").await;
    let missing = bank.send(Method::GET, "/data/v1/me", &[], b"").await;
    assert_eq!((missing.status, &missing.json()["error"]), (401, &json!("unauthorized")));
    assert_eq!(missing.header("www-authenticate"), "Bearer");
    let basic = bank.send(Method::GET, "/data/v1/me", &[("authorization", "Basic am9objpq")], b"").await;
    assert_eq!(basic.json()["error"], "unauthorized");
    let stranger = Server::bank().await.token("john").await;
    let (head, tail) = good.split_at(good.len() - 8);
    let tampered = format!("{head}AAAA{}", &tail[4..]);
    for token in ["nonsense", "a.b.c", &stranger, &tampered] {
        let reply = bank.get("/data/v1/me", token).await;
        assert_eq!((reply.status, &reply.json()["error"]), (401, &json!("invalid_token")), "{token}");
        assert_eq!(reply.json()["error_details"], json!({}));
        assert_eq!(reply.header("x-credentials-id"), "");
    }
    let expired = bank.get("/data/v1/me", &bank.token_with("john", "&expires_in=0").await).await;
    let description = expired.json()["error_description"].as_str().unwrap().to_owned();
    assert_eq!((expired.status, &expired.json()["error"]), (401, &json!("invalid_token")));
    assert!(
        description.starts_with("The token expired at '20") && description.ends_with("Z'"),
        "{description}"
    );
    let lower =
        bank.send(Method::GET, "/data/v1/me", &[("authorization", &format!("bearer {good}"))], b"").await;
    assert_eq!(lower.status, 200);
}

#[tokio::test]
async fn each_endpoint_asks_for_its_scopes() {
    let bank = Server::bank().await;
    let all = bank.token("john").await;
    let account =
        bank.get("/data/v1/accounts", &all).await.results()[0]["account_id"].as_str().unwrap().to_owned();
    let card = bank.get("/data/v1/cards", &all).await.results()[0]["account_id"].as_str().unwrap().to_owned();
    let (account, card) = (format!("accounts/{account}"), format!("cards/{card}"));
    for (path, scopes) in [
        ("info".to_owned(), "info"),
        ("accounts".to_owned(), "accounts"),
        (account.clone(), "accounts"),
        (format!("{account}/balance"), "accounts balance"),
        (format!("{account}/transactions"), "accounts transactions"),
        (format!("{account}/transactions/pending"), "accounts transactions"),
        (format!("{account}/standing_orders"), "accounts standing_orders"),
        (format!("{account}/direct_debits"), "accounts direct_debits"),
        ("cards".to_owned(), "cards"),
        (card.clone(), "cards"),
        (format!("{card}/balance"), "cards balance"),
        (format!("{card}/transactions"), "cards transactions"),
        (format!("{card}/transactions/pending"), "cards transactions"),
    ] {
        let enough = bank.token_with("john", &format!("&scope={}", scopes.replace(' ', "%20"))).await;
        assert_eq!(bank.get(&format!("/data/v1/{path}"), &enough).await.status, 200, "{path}");
        for scope in scopes.split(' ') {
            let others: Vec<&str> = [
                "info",
                "accounts",
                "balance",
                "cards",
                "transactions",
                "direct_debits",
                "standing_orders",
                "offline_access",
            ]
            .into_iter()
            .filter(|other| *other != scope)
            .collect();
            let token = bank.token_with("john", &format!("&scope={}", others.join("+"))).await;
            let refused = bank.get(&format!("/data/v1/{path}"), &token).await;
            assert_eq!((refused.status, &refused.json()["error"]), (403, &json!("access_denied")), "{path}");
        }
    }
    let least = bank.token_with("john", "&scope=offline_access").await;
    assert_eq!(bank.get("/data/v1/me", &least).await.results()[0]["scopes"], json!(["offline_access"]));
}

#[tokio::test]
async fn without_offline_access_there_is_no_refresh_token() {
    let bank = Server::bank().await;
    let reply = bank.form("grant_type=authorization_code&code=john&scope=accounts").await.json();
    assert!(reply.get("refresh_token").is_none());
    assert_eq!(reply["scope"], "accounts");
}
