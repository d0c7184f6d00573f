//! What is asked about a token, and what an answer means. Pure.
//!
//! Only an answer that says so makes a token good, and only one that says so makes it bad: 401 or 403
//! of an upstream, `"active": false` of an issuer. Everything else is no answer.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::config::ClientAuth;
use crate::identity::claims::{Fault, NOT_BEFORE_LEEWAY, fit_id, numeric_date};
use crate::identity::{ANONYMOUS, Caller};
use crate::secret::Secret;

/// What `application/x-www-form-urlencoded` leaves as it is.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*');

/// A question about one token.
pub enum Question {
    /// To the token's issuer: RFC 7662 section 2.
    Introspection {
        uri: Uri,
        client_id: Secret,
        client_secret: Secret,
        client_auth: ClientAuth,
        issuer: Option<String>,
        audience: Option<String>,
        claim: String,
    },
    /// To the upstream: what does `path` hold for this credential? Without a pointer it only matters
    /// that it holds something, and the caller has no name.
    Document { path: Uri, header: HeaderName, pointer: Option<String> },
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub enum Judged {
    Good(Caller),
    Bad(Fault),
    /// It does not say: for the log, and nothing of the answer in it.
    Useless(String),
}

impl Question {
    /// The request; `token` is the bare token for an issuer and the whole header value for an upstream.
    pub fn ask(&self, token: &[u8]) -> Request<Bytes> {
        let mut request = match self {
            Self::Introspection { uri, client_id, client_secret, client_auth, .. } => {
                introspection(uri, client_id, client_secret, *client_auth, token)
            }
            Self::Document { path, header, .. } => {
                let mut request = Request::new(Bytes::new());
                *request.uri_mut() = path.clone();
                // It came in a header, so it fits into one.
                if let Ok(value) = HeaderValue::from_bytes(token) {
                    request.headers_mut().insert(header, sensitive(value));
                }
                request
            }
        };
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        request
    }

    /// What an answer says about the token that was asked about at `wall`.
    pub fn judge(&self, status: StatusCode, body: &[u8], wall: Timestamp) -> Judged {
        match (self, status) {
            (Self::Document { .. }, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Judged::Bad(Fault::NotVouchedFor)
            }
            (Self::Document { pointer: None, .. }, status) if status.is_success() => {
                Judged::Good(Caller { credentials_id: Arc::from(ANONYMOUS), expires_at: None })
            }
            (_, StatusCode::OK) => self.judge_body(body, wall),
            (_, status) => Judged::Useless(format!("it answered {} instead of 200", status.as_u16())),
        }
    }

    fn judge_body(&self, body: &[u8], wall: Timestamp) -> Judged {
        let Ok(Value::Object(said)) = serde_json::from_slice::<Value>(body) else {
            return Judged::Useless(String::from("it did not answer with a JSON object"));
        };
        match self {
            Self::Introspection { issuer, audience, claim, .. } => {
                judge_introspection(&said, issuer.as_deref(), audience.as_deref(), claim, wall)
            }
            Self::Document { pointer, .. } => {
                let said = Value::Object(said);
                let id = pointer.as_ref().and_then(|pointer| said.pointer(pointer)).and_then(id);
                // The API knows the token, so it is not the token's fault that this is not there.
                id.map_or_else(
                    || Judged::Useless(String::from("no text or number stands at `identity.pointer`")),
                    |credentials_id| Judged::Good(Caller { credentials_id, expires_at: None }),
                )
            }
        }
    }
}

fn introspection(
    uri: &Uri,
    client_id: &Secret,
    client_secret: &Secret,
    client_auth: ClientAuth,
    token: &[u8],
) -> Request<Bytes> {
    let form = |text: &Secret| percent_encode(text.expose().as_bytes(), FORM).to_string();
    let mut body = format!("token={}&token_type_hint=access_token", percent_encode(token, FORM));
    let mut request = Request::new(Bytes::new());
    let headers = request.headers_mut();
    match client_auth {
        ClientAuth::Basic => {
            // RFC 6749 section 2.3.1: both are form-encoded before they are joined.
            let both = STANDARD.encode(format!("{}:{}", form(client_id), form(client_secret)));
            let value = HeaderValue::try_from(format!("Basic {both}")).expect("base64 is ASCII");
            headers.insert(AUTHORIZATION, sensitive(value));
        }
        ClientAuth::Post => {
            for (name, secret) in [("&client_id=", client_id), ("&client_secret=", client_secret)] {
                body.push_str(name);
                body.push_str(&form(secret));
            }
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    *request.body_mut() = Bytes::from(body);
    request
}

/// RFC 7662 section 2.2.
fn judge_introspection(
    said: &Map<String, Value>,
    issuer: Option<&str>,
    audience: Option<&str>,
    claim: &str,
    wall: Timestamp,
) -> Judged {
    match said.get("active") {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => return Judged::Bad(Fault::NotVouchedFor),
        _ => return Judged::Useless(String::from("its answer has no `active`")),
    }
    let date = |name: &str| match said.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(date) => numeric_date(date).map(Some).ok_or(()),
    };
    let (Ok(expires_at), Ok(not_before)) = (date("exp"), date("nbf")) else {
        return Judged::Useless(String::from("`exp` or `nbf` in its answer is no date"));
    };
    if expires_at.is_some_and(|ends| wall >= ends) {
        return Judged::Bad(Fault::Expired);
    }
    if not_before.is_some_and(|begins| wall.after(NOT_BEFORE_LEEWAY) < begins) {
        return Judged::Bad(Fault::NotYetValid);
    }
    if issuer.is_some_and(|wanted| said.get("iss").and_then(Value::as_str) != Some(wanted)) {
        return Judged::Bad(Fault::Issuer);
    }
    let names = |wanted: &str| match said.get("aud") {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(several)) => several.iter().any(|one| one == wanted),
        _ => false,
    };
    if audience.is_some_and(|wanted| !names(wanted)) {
        return Judged::Bad(Fault::Audience);
    }
    match said.get(claim).and_then(id) {
        Some(credentials_id) => Judged::Good(Caller { credentials_id, expires_at }),
        None => Judged::Bad(Fault::Claim),
    }
}

/// A text, or a whole number as people number customers.
fn id(value: &Value) -> Option<Arc<str>> {
    match value {
        Value::String(text) => fit_id(text).map(Arc::from),
        Value::Number(number) if !number.is_f64() => Some(Arc::from(number.to_string())),
        _ => None,
    }
}

fn sensitive(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const WALL: Timestamp = Timestamp(100_000);

    fn introspection(client_auth: ClientAuth, issuer: Option<&str>, audience: Option<&str>) -> Question {
        Question::Introspection {
            uri: Uri::from_static("http://127.0.0.1/introspect"),
            client_id: Secret::new("ring back"),
            client_secret: Secret::new("s3c:r&t"),
            client_auth,
            issuer: issuer.map(str::to_owned),
            audience: audience.map(str::to_owned),
            claim: "sub".to_owned(),
        }
    }

    fn document(pointer: Option<&str>) -> Question {
        let header = HeaderName::from_static("authorization");
        Question::Document { path: Uri::from_static("/me"), header, pointer: pointer.map(str::to_owned) }
    }

    fn said(question: &Question, body: &Value) -> Judged {
        question.judge(StatusCode::OK, body.to_string().as_bytes(), WALL)
    }

    fn good(id: &str, expires_at: Option<i64>) -> Judged {
        Judged::Good(Caller { credentials_id: id.into(), expires_at: expires_at.map(Timestamp) })
    }

    #[test]
    fn the_issuer_is_asked_as_rfc_7662_says() {
        let request = introspection(ClientAuth::Basic, None, None).ask(b"a+b/c=");
        assert_eq!(request.method(), Method::POST);
        let basic = format!("Basic {}", STANDARD.encode("ring%20back:s3c%3Ar%26t"));
        assert_eq!(request.headers()[AUTHORIZATION], basic.as_str());
        assert_eq!(request.headers()[CONTENT_TYPE], "application/x-www-form-urlencoded");
        assert_eq!(&request.body()[..], b"token=a%2Bb%2Fc%3D&token_type_hint=access_token");
        let request = introspection(ClientAuth::Post, None, None).ask(b"t");
        assert!(!request.headers().contains_key(AUTHORIZATION));
        assert!(request.body().ends_with(b"&client_id=ring%20back&client_secret=s3c%3Ar%26t"));
    }

    #[test]
    fn the_upstream_is_asked_with_the_credential_as_it_came() {
        let request = document(None).ask(b"Bearer x");
        assert_eq!((request.method(), request.uri().path()), (&Method::GET, "/me"));
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer x");
        assert!(request.headers()[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn an_active_token_has_the_claim_and_the_end_its_issuer_says() {
        let question = introspection(ClientAuth::Basic, None, None);
        assert_eq!(
            said(&question, &json!({"active": true, "sub": "john", "exp": 101})),
            good("john", Some(101_000))
        );
        assert_eq!(said(&question, &json!({"active": true, "sub": 7})), good("7", None));
        for (body, fault) in [
            (json!({"active": false}), Fault::NotVouchedFor),
            (json!({"active": false, "sub": "john"}), Fault::NotVouchedFor),
            (json!({"active": true}), Fault::Claim),
            (json!({"active": true, "sub": ""}), Fault::Claim),
            (json!({"active": true, "sub": 1.5}), Fault::Claim),
            (json!({"active": true, "sub": "john", "exp": 100}), Fault::Expired),
            (json!({"active": true, "sub": "john", "nbf": 106}), Fault::NotYetValid),
        ] {
            assert_eq!(said(&question, &body), Judged::Bad(fault), "{body}");
        }
    }

    #[test]
    fn issuer_and_audience_are_checked_where_configured() {
        let question = introspection(ClientAuth::Basic, Some("i"), Some("a"));
        let body = |iss: &str, aud: Value| json!({"active": true, "sub": "john", "iss": iss, "aud": aud});
        assert_eq!(said(&question, &body("i", json!("a"))), good("john", None));
        assert_eq!(said(&question, &body("i", json!(["b", "a"]))), good("john", None));
        assert_eq!(said(&question, &body("j", json!("a"))), Judged::Bad(Fault::Issuer));
        assert_eq!(said(&question, &body("i", json!(["b"]))), Judged::Bad(Fault::Audience));
        assert_eq!(said(&question, &json!({"active": true, "sub": "john"})), Judged::Bad(Fault::Issuer));
    }

    #[test]
    fn what_does_not_say_makes_no_token_good_and_none_bad() {
        let question = introspection(ClientAuth::Basic, None, None);
        for body in [json!({}), json!([]), json!({"active": "true"}), json!({"active": true, "exp": "soon"})]
        {
            assert!(matches!(said(&question, &body), Judged::Useless(_)), "{body}");
        }
        for status in [201, 204, 302, 400, 401, 403, 404, 429, 500, 503] {
            let status = StatusCode::from_u16(status).unwrap();
            let judged = question.judge(status, br#"{"active": true, "sub": "john"}"#, WALL);
            assert!(matches!(judged, Judged::Useless(_)), "{status}");
        }
        for status in [204, 302, 400, 404, 429, 500] {
            let status = StatusCode::from_u16(status).unwrap();
            let judged = document(Some("/id")).judge(status, br#"{"id": "john"}"#, WALL);
            assert!(matches!(judged, Judged::Useless(_)), "{status}");
        }
    }

    #[test]
    fn the_upstreams_document_names_the_credentials() {
        let question = document(Some("/results/0/credentials_id"));
        assert_eq!(said(&question, &json!({"results": [{"credentials_id": "c-1"}]})), good("c-1", None));
        for body in [json!({"results": []}), json!({"results": [{"credentials_id": null}]})] {
            assert!(matches!(said(&question, &body), Judged::Useless(_)), "{body}");
        }
        for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
            assert_eq!(question.judge(status, b"", WALL), Judged::Bad(Fault::NotVouchedFor));
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_judging_panic_and_only_a_good_one_lets_in(
            status in 100u16..1000, body in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let status = StatusCode::from_u16(status).unwrap();
            let questions = [introspection(ClientAuth::Post, None, None), document(Some("/a"))];
            for question in questions {
                prop_assert!(!matches!(question.judge(status, &body, WALL), Judged::Good(_)));
            }
        }
    }
}
