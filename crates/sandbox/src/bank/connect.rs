//! The bank's auth server: `POST /connect/token`, and what others need to verify its tokens.
//!
//! Contract.md section 5. Any client id and secret will do; a code is a mock user's name and never used up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{FormRejection, JsonRejection};
use axum::extract::{Form, FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::scope::{self, Scope};
use super::token::{Grant, LIFETIME_MAX};
use super::user::MockUser;
use super::{Desk, ISSUER, JWKS_PATH, TOKEN_PATH};
use crate::server::random_id;

type Parameters = HashMap<String, String>;

/// An error of the auth server (RFC 6749 section 5.2).
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    error: &'static str,
    description: Option<String>,
}

impl Fault {
    fn invalid_request(description: impl Into<String>) -> Self {
        Self { error: "invalid_request", description: Some(description.into()) }
    }

    fn invalid_grant() -> Self {
        // The contract shows this one bare.
        Self { error: "invalid_grant", description: None }
    }
}

/// What a good request asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    grant: Grant,
    lifetime: Duration,
}

pub(super) async fn token(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let wish = match parameters(request).await {
        Ok(parameters) => wish(&parameters, |refresh_token| {
            Grant::of_refresh_token(&desk.keys, refresh_token, Timestamp::now())
        }),
        Err(fault) => Err(fault),
    };
    match wish {
        Ok(wish) => no_store(Json(issue(&desk, &wish)).into_response()),
        Err(Fault { error, description }) => {
            let mut body = Map::from_iter([("error".to_owned(), Value::from(error))]);
            body.extend(description.map(|text| ("error_description".to_owned(), Value::from(text))));
            no_store((StatusCode::BAD_REQUEST, Json(body)).into_response())
        }
    }
}

fn issue(desk: &Desk, wish: &Wish) -> Value {
    let now = Timestamp::now();
    let mut body = json!({
        "access_token": wish.grant.access_token(&desk.keys, now, wish.lifetime, random_id()),
        "expires_in": wish.lifetime.as_secs(),
        "token_type": "Bearer",
    });
    if wish.grant.allows(&[Scope::OfflineAccess]) {
        body["refresh_token"] = wish.grant.refresh_token(&desk.keys, now, random_id()).into();
    }
    body["scope"] = scope::to_text(&wish.grant.scopes).into();
    body
}

/// The parameters of a form or of a JSON object; a number counts as its digits.
async fn parameters(request: Request) -> Result<Parameters, Fault> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let unreadable =
        |sentence: String| Fault::invalid_request(format!("The body cannot be read: {sentence}."));
    if content_type.is_some_and(|value| value.to_ascii_lowercase().contains("json")) {
        let Json(object): Json<Map<String, Value>> = Json::from_request(request, &())
            .await
            .map_err(|rejection: JsonRejection| unreadable(rejection.body_text()))?;
        let text = |(name, value)| match value {
            Value::String(text) => Some((name, text)),
            Value::Number(number) => Some((name, number.to_string())),
            _ => None,
        };
        return Ok(object.into_iter().filter_map(text).collect());
    }
    let Form(parameters) = Form::from_request(request, &())
        .await
        .map_err(|rejection: FormRejection| unreadable(rejection.body_text()))?;
    Ok(parameters)
}

/// Pure; `refreshed` says what a refresh token allows.
fn wish(parameters: &Parameters, refreshed: impl Fn(&str) -> Option<Grant>) -> Result<Wish, Fault> {
    let needed = |name: &str| {
        let value = parameters.get(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| Fault::invalid_request(format!("The parameter '{name}' is missing; send it.")))
    };
    let grant = match needed("grant_type")?.as_str() {
        "authorization_code" => Grant {
            user: MockUser::named(needed("code")?).ok_or_else(Fault::invalid_grant)?,
            client_id: parameters.get("client_id").map_or("sandbox", String::as_str).to_owned(),
            scopes: scope::all(),
        },
        "refresh_token" => refreshed(needed("refresh_token")?).ok_or_else(Fault::invalid_grant)?,
        _ => {
            let sentence = "The sandbox knows the grant types authorization_code and refresh_token.";
            return Err(Fault { error: "unsupported_grant_type", description: Some(sentence.into()) });
        }
    };
    Ok(Wish {
        grant: narrowed(grant, parameters.get("scope"))?,
        lifetime: lifetime(parameters.get("expires_in"))?,
    })
}

/// Only the scopes asked for; a refresh token cannot widen what it was given for.
fn narrowed(grant: Grant, wanted: Option<&String>) -> Result<Grant, Fault> {
    let Some(wanted) = wanted else { return Ok(grant) };
    let scopes = scope::parse(wanted).filter(|scopes| grant.allows(scopes));
    let scopes = scopes.ok_or_else(|| Fault {
        error: "invalid_scope",
        description: Some(format!("Ask for one or more of these scopes: {}.", scope::to_text(&grant.scopes))),
    })?;
    Ok(Grant { scopes, ..grant })
}

/// An hour, or less where `expires_in` asks for it; 0 gives a token that has expired already.
fn lifetime(wanted: Option<&String>) -> Result<Duration, Fault> {
    let Some(wanted) = wanted else { return Ok(LIFETIME_MAX) };
    let seconds =
        wanted.parse().map_err(|_| Fault::invalid_request("'expires_in' must be whole seconds."))?;
    Ok(LIFETIME_MAX.min(Duration::from_secs(seconds)))
}

pub(super) async fn jwks(State(desk): State<Arc<Desk>>) -> Response {
    let mut response = Json(desk.keys.jwks()).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}

/// Discovery (RFC 8414 section 2), as far as it applies.
pub(super) async fn configuration(State(desk): State<Arc<Desk>>) -> Json<Value> {
    Json(json!({
        "issuer": ISSUER,
        "jwks_uri": format!("{}{JWKS_PATH}", desk.base_url),
        "token_endpoint": format!("{}{TOKEN_PATH}", desk.base_url),
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "response_types_supported": ["code"],
        "scopes_supported": scope::all(),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic", "none"],
    }))
}

/// RFC 6749 section 5.1.
fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Result<Wish, Fault> {
        let parameters =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let jane = MockUser::named("jane").unwrap();
        let scopes = scope::parse("accounts offline_access").unwrap();
        wish(&parameters, |token| {
            (token == "good").then(|| Grant {
                user: jane.clone(),
                client_id: "app".into(),
                scopes: scopes.clone(),
            })
        })
    }

    #[test]
    fn a_code_is_a_user_with_every_scope_for_an_hour() {
        let wish =
            asked(&[("grant_type", "authorization_code"), ("code", "john"), ("client_id", "app")]).unwrap();
        assert_eq!(wish.grant.user.name(), "john");
        assert_eq!((wish.grant.client_id.as_str(), wish.grant.scopes), ("app", scope::all()));
        assert_eq!(wish.lifetime.as_secs(), 3600);
    }

    #[test]
    fn scope_narrows_and_expires_in_shortens() {
        let code = [("grant_type", "authorization_code"), ("code", "john")];
        let wish = asked(&[&code[..], &[("scope", "info accounts"), ("expires_in", "1")]].concat()).unwrap();
        assert_eq!(scope::to_text(&wish.grant.scopes), "info accounts");
        assert_eq!(wish.lifetime.as_secs(), 1);
        assert_eq!(asked(&[&code[..], &[("expires_in", "99999")]].concat()).unwrap().lifetime, LIFETIME_MAX);
    }

    #[test]
    fn a_refresh_keeps_or_narrows_its_scopes_but_never_widens_them() {
        let refresh = [("grant_type", "refresh_token"), ("refresh_token", "good")];
        assert_eq!(scope::to_text(&asked(&refresh).unwrap().grant.scopes), "accounts offline_access");
        let narrow = asked(&[&refresh[..], &[("scope", "accounts")]].concat()).unwrap();
        assert_eq!(scope::to_text(&narrow.grant.scopes), "accounts");
        assert_eq!(
            asked(&[&refresh[..], &[("scope", "cards")]].concat()).unwrap_err().error,
            "invalid_scope"
        );
    }

    #[test]
    fn each_slip_has_the_error_of_an_auth_server() {
        let code = ("grant_type", "authorization_code");
        for (pairs, error) in [
            (&[][..], "invalid_request"),
            (&[code], "invalid_request"),
            (&[code, ("code", "")], "invalid_request"),
            (&[code, ("code", "john"), ("expires_in", "soon")], "invalid_request"),
            (&[code, ("code", "john"), ("expires_in", "-1")], "invalid_request"),
            (&[code, ("code", "john"), ("scope", "everything")], "invalid_scope"),
            (&[code, ("code", "john\n")], "invalid_grant"),
            (&[("grant_type", "refresh_token")], "invalid_request"),
            (&[("grant_type", "refresh_token"), ("refresh_token", "bad")], "invalid_grant"),
            (&[("grant_type", "client_credentials")], "unsupported_grant_type"),
        ] {
            assert_eq!(asked(pairs).unwrap_err().error, error, "{pairs:?}");
        }
    }
}
