//! Our own error answers: one enum, one shape, one exhaustive mapping to HTTP.
//!
//! The shape is `{"error", "error_description", "error_details"}`; the header `Ringback-Error` names
//! the code, so that nobody mistakes an upstream's error for ours.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Map, Value, json};

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
    #[error("This node is stopping; try again.")]
    Stopping,
    #[error("This Idempotency-Key was used for another call; send a new key with a new call.")]
    KeyReused,
    #[error("There is no such task for these credentials; check the task id and the token.")]
    TaskNotFound,
    #[error("The results of this task are no longer kept; make the call again.")]
    ResultsExpired,
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
            Self::Stopping => ("stopping", StatusCode::SERVICE_UNAVAILABLE),
            Self::KeyReused => ("idempotency_key_reused", StatusCode::UNPROCESSABLE_ENTITY),
            Self::TaskNotFound => ("task_not_found", StatusCode::NOT_FOUND),
            Self::ResultsExpired => ("results_expired", StatusCode::GONE),
            Self::UpstreamUnreachable => ("upstream_unreachable", StatusCode::BAD_GATEWAY),
            Self::UpstreamBroken => ("upstream_broken", StatusCode::BAD_GATEWAY),
            Self::UpstreamTimeout => ("upstream_timeout", StatusCode::GATEWAY_TIMEOUT),
            Self::Internal => ("internal_error", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// The whole answer. A 503 or 429 asks for a pause of a second, a 401 names the scheme.
    #[must_use]
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let (code, status) = self.parts();
        let body = json!({
            "error": code,
            "error_description": self.to_string(),
            "error_details": Value::Object(Map::new()),
        });
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
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
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(
                header::ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            );
        }
        response
    }
}
