//! Our own error answers: one enum, one shape, one exhaustive mapping to HTTP.
//!
//! The shape is `{"error", "error_description", "error_details"}`, or a problem (RFC 9457) with the same
//! code for clients that ask for one; the header `Ringback-Error` names the code, so that nobody
//! mistakes an upstream's error for ours.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Map, Value, json};

use super::accept;
use super::answer::vary_by;

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The sentence names the parameter or header and what it must be.
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    InvalidToken(String),
    #[error("The identity service cannot be reached; try again shortly.")]
    IdentityUnavailable,
    #[error("No upstream is configured for this path; check the path's first segments.")]
    NoUpstream,
    #[error("The method {0} is not supported; use another method.")]
    MethodNotAllowed(String),
    #[error("The body is larger than the {0} bytes accepted here; send less.")]
    BodyTooLarge(u64),
    #[error("The request target is longer than the {0} bytes accepted here; shorten the query.")]
    UriTooLong(u64),
    #[error("The header section is larger than the {0} bytes accepted here; send fewer or shorter headers.")]
    HeadersTooLarge(u64),
    #[error("The call has more than the {0} header lines accepted here; send fewer.")]
    TooManyHeaders(usize),
    #[error("The body did not arrive in time; send it without pauses.")]
    BodyTimeout,
    #[error("The body broke off before its end; send the call again.")]
    BodyBroken,
    #[error("Too many tasks are waiting; try again later.")]
    BacklogFull,
    #[error("Too many tasks of these credentials are waiting; wait for some of them to finish.")]
    CredentialsBacklogFull,
    #[error("Too many calls with these credentials are in progress; send fewer at once.")]
    TooManyCalls,
    #[error("This node has as many calls in progress as it can serve; try again shortly.")]
    Overloaded,
    #[error("The store cannot take the task now; try again shortly.")]
    StoreUnavailable,
    #[error("The store holds as much as it may; try again later.")]
    StoreFull,
    #[error("This Idempotency-Key was used for another call; send a new key with a new call.")]
    KeyReused,
    #[error("There is no such task for these credentials; check the task id and the token.")]
    TaskNotFound,
    #[error("The results of this task are no longer kept; make the call again.")]
    ResultsExpired,
    #[error("This task has no answer of the API to show; read its results instead.")]
    NoResponse,
    #[error("The result is not the one the condition names; read it without the condition.")]
    PreconditionFailed,
    #[error("The result has {0} bytes and none in the range asked for; ask for another range.")]
    RangeNotSatisfiable(u64),
    #[error("Too many clients wait for their tasks; ask without waiting, or try again shortly.")]
    TooManyWaiters,
    #[error("The API's answer is larger than the results kept here; ask for less.")]
    ResultTooLarge,
    #[error("The API behind this gateway cannot be reached; try again later, or call with async=true.")]
    UpstreamUnreachable,
    #[error(
        "The API behind this gateway broke off before it answered; the call may have taken effect, so ask it \
         before calling again."
    )]
    UpstreamBroken,
    #[error("The API behind this gateway did not answer in time; try again later, or call with async=true.")]
    UpstreamTimeout,
    #[error("Ringback failed to answer this call; try again.")]
    Internal,
}

impl Refusal {
    /// Stable; documented in `docs/API.md`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.parts().0
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.parts().1
    }

    fn parts(&self) -> (&'static str, StatusCode) {
        match self {
            Self::Invalid(_) => ("validation_error", StatusCode::BAD_REQUEST),
            Self::InvalidToken(_) => ("invalid_token", StatusCode::UNAUTHORIZED),
            Self::IdentityUnavailable => ("identity_unavailable", StatusCode::SERVICE_UNAVAILABLE),
            Self::NoUpstream => ("no_upstream", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed(_) => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
            Self::BodyTooLarge(_) => ("body_too_large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::UriTooLong(_) => ("uri_too_long", StatusCode::URI_TOO_LONG),
            Self::HeadersTooLarge(_) | Self::TooManyHeaders(_) => {
                ("headers_too_large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
            }
            Self::BodyTimeout => ("body_timeout", StatusCode::REQUEST_TIMEOUT),
            Self::BodyBroken => ("body_broken", StatusCode::BAD_REQUEST),
            Self::BacklogFull => ("backlog_full", StatusCode::SERVICE_UNAVAILABLE),
            Self::CredentialsBacklogFull => ("credentials_backlog_full", StatusCode::TOO_MANY_REQUESTS),
            Self::TooManyCalls => ("too_many_calls", StatusCode::TOO_MANY_REQUESTS),
            Self::Overloaded => ("overloaded", StatusCode::SERVICE_UNAVAILABLE),
            Self::StoreUnavailable => ("store_unavailable", StatusCode::SERVICE_UNAVAILABLE),
            Self::StoreFull => ("store_full", StatusCode::SERVICE_UNAVAILABLE),
            Self::KeyReused => ("idempotency_key_reused", StatusCode::UNPROCESSABLE_ENTITY),
            Self::TaskNotFound => ("task_not_found", StatusCode::NOT_FOUND),
            Self::ResultsExpired => ("results_expired", StatusCode::GONE),
            Self::NoResponse => ("no_response", StatusCode::NOT_FOUND),
            Self::PreconditionFailed => ("precondition_failed", StatusCode::PRECONDITION_FAILED),
            Self::RangeNotSatisfiable(_) => ("range_not_satisfiable", StatusCode::RANGE_NOT_SATISFIABLE),
            Self::TooManyWaiters => ("too_many_waiters", StatusCode::SERVICE_UNAVAILABLE),
            Self::ResultTooLarge => ("result_too_large", StatusCode::BAD_GATEWAY),
            Self::UpstreamUnreachable => ("upstream_unreachable", StatusCode::BAD_GATEWAY),
            Self::UpstreamBroken => ("upstream_broken", StatusCode::BAD_GATEWAY),
            Self::UpstreamTimeout => ("upstream_timeout", StatusCode::GATEWAY_TIMEOUT),
            Self::Internal => ("internal_error", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// The whole answer in the form the client takes.
    #[must_use]
    pub fn told_as(self, form: Form) -> Response<Full<Bytes>> {
        let mut response = match form {
            Form::Json => self.into_json(),
            Form::Problem => self.into_problem(),
        };
        vary_by(response.headers_mut(), "Accept");
        response
    }

    fn into_json(self) -> Response<Full<Bytes>> {
        let body = json!({
            "error": self.code(),
            "error_description": self.to_string(),
            "error_details": Value::Object(Map::new()),
        });
        self.with_body("application/json", &body)
    }

    /// RFC 9457, 3: the members in its order, then ours.
    fn into_problem(self) -> Response<Full<Bytes>> {
        let (code, status) = self.parts();
        let body = json!({
            "type": format!("urn:ringback:error:{code}"),
            "title": title(code),
            "status": status.as_u16(),
            "detail": self.to_string(),
            "error": code,
            "error_details": Value::Object(Map::new()),
        });
        self.with_body(accept::PROBLEM, &body)
    }

    /// A 429 or 503 asks for a pause of a second, a 401 names the scheme, a 416 the length.
    fn with_body(self, kind: &'static str, body: &Value) -> Response<Full<Bytes>> {
        let (code, status) = self.parts();
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("ringback-error", HeaderValue::from_static(code));
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"ringback\", error=\"invalid_token\""),
            );
        }
        if let Self::RangeNotSatisfiable(length) = self
            && let Ok(value) = HeaderValue::from_str(&format!("bytes */{length}"))
        {
            headers.insert(header::CONTENT_RANGE, value);
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(
                header::ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            );
        }
        response
    }
}

/// How a client wants to be told what went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    /// `application/problem+json` (RFC 9457).
    Problem,
}

impl Form {
    /// The form for a client with these headers.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        if accept::wants_problem(headers) { Self::Problem } else { Self::Json }
    }
}

/// A title is the same for every occurrence of a problem: the code in words.
fn title(code: &str) -> String {
    let mut words = code.replace('_', " ");
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::collections::BTreeSet;

    async fn told(refusal: Refusal, form: Form) -> (http::response::Parts, Value) {
        let (parts, body) = refusal.told_as(form).into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts, serde_json::from_slice(&bytes).unwrap())
    }

    /// A refusal of every kind. One that is missing here does not compile.
    macro_rules! every_refusal {
        ($($kind:ident $(($example:expr))?),* $(,)?) => {{
            let _is_one_of_them = |refusal: &Refusal| match refusal {
                $(Refusal::$kind { .. } => {})*
            };
            [$(Refusal::$kind $(($example))?),*]
        }};
    }

    fn every_refusal() -> impl IntoIterator<Item = Refusal> {
        every_refusal![
            Invalid(String::from("Send it once.")),
            InvalidToken(String::from("The token has expired; get a new one.")),
            IdentityUnavailable,
            NoUpstream,
            MethodNotAllowed(String::from("LOCK")),
            BodyTooLarge(7),
            UriTooLong(7),
            HeadersTooLarge(7),
            TooManyHeaders(7),
            BodyTimeout,
            BodyBroken,
            BacklogFull,
            CredentialsBacklogFull,
            TooManyCalls,
            Overloaded,
            StoreUnavailable,
            StoreFull,
            KeyReused,
            TaskNotFound,
            ResultsExpired,
            NoResponse,
            PreconditionFailed,
            RangeNotSatisfiable(7),
            TooManyWaiters,
            ResultTooLarge,
            UpstreamUnreachable,
            UpstreamBroken,
            UpstreamTimeout,
            Internal,
        ]
    }

    /// The table that `tests/it/problem.rs` provokes every line of.
    #[test]
    fn the_documented_codes_are_the_codes_there_are() {
        let table = include_str!("../../docs/API.md").split("\n### Errors of a call\n").nth(1).unwrap();
        let lines = table.split("\n###").next().unwrap().lines().filter(|line| line.contains("[`"));
        let documented: BTreeSet<(&str, &str)> = lines
            .map(|line| {
                let (status, rest) = line.trim_start_matches("| ").split_once(" | [`").unwrap();
                (status, rest.split('`').next().unwrap())
            })
            .collect();
        let known: Vec<(StatusCode, &str)> =
            every_refusal().into_iter().map(|refusal| (refusal.status(), refusal.code())).collect();
        assert_eq!(documented, known.iter().map(|(status, code)| (status.as_str(), *code)).collect());
    }

    #[tokio::test]
    async fn both_forms_tell_the_same() {
        for refusal in every_refusal() {
            let (code, status) = refusal.parts();
            let (json, plain) = told(refusal.clone(), Form::Json).await;
            let (problem, wrapped) = told(refusal, Form::Problem).await;
            assert_eq!((json.status, problem.status), (status, status));
            assert_eq!((&plain["error"], &wrapped["error"]), (&code.into(), &code.into()));
            assert_eq!(plain["error_description"], wrapped["detail"]);
            assert_eq!(plain["error_details"], wrapped["error_details"]);
            assert_eq!(
                (&json.headers["ringback-error"], &json.headers["vary"]),
                (&code.parse().unwrap(), &"Accept".parse().unwrap())
            );
            assert_eq!(wrapped["status"], status.as_u16());
            assert_eq!(wrapped["type"], format!("urn:ringback:error:{code}"));
            assert_eq!(problem.headers[header::CONTENT_TYPE], "application/problem+json");
            assert_eq!(json.headers[header::CONTENT_TYPE], "application/json");
            let rest = |mut headers: HeaderMap| {
                headers.remove(header::CONTENT_TYPE);
                headers
            };
            assert_eq!(rest(json.headers), rest(problem.headers));
        }
    }

    #[test]
    fn a_title_is_the_code_in_words() {
        assert_eq!(title("task_not_found"), "Task not found");
    }
}
