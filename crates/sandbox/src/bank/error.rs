//! What the bank answers when it does not answer the question: contract.md section 3.
//!
//! One table holds every code with its status and a sentence; the codes of old mock users are in it too.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

/// The content type of every body of the Data API.
pub(crate) const JSON: &str = "application/json; charset=utf-8";

/// A code of the Data API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code {
    name: &'static str,
    status: u16,
    description: &'static str,
}

const fn code(name: &'static str, status: u16, description: &'static str) -> Code {
    Code { name, status, description }
}

pub(crate) const VALIDATION_ERROR: Code =
    code("validation_error", 400, "A parameter is not valid; check its format.");
pub(crate) const INVALID_DATE_RANGE: Code =
    code("invalid_date_range", 400, "The date 'from' is later than the date 'to'; swap them.");
pub(crate) const UNAUTHORIZED: Code =
    code("unauthorized", 401, "The access token is missing; send it as 'Authorization: Bearer <token>'.");
pub(crate) const INVALID_TOKEN: Code =
    code("invalid_token", 401, "The access token is not one of this bank; get a new one.");
pub(crate) const ACCESS_DENIED: Code = code(
    "access_denied",
    403,
    "The access token lacks a scope this endpoint needs; get one with that scope.",
);
pub(crate) const ACCOUNT_NOT_FOUND: Code = code("account_not_found", 404, "account not found");
pub(crate) const TOO_MANY_REQUESTS: Code =
    code("provider_too_many_requests", 429, "The provider takes no more requests now; try again later.");
pub(crate) const INTERNAL_SERVER_ERROR: Code =
    code("internal_server_error", 500, "Something went wrong here; try again later.");
pub(crate) const PROVIDER_ERROR: Code =
    code("provider_error", 503, "The provider is not available; try again later.");
/// Not in the contract, which names no code for these two.
pub(crate) const NOT_FOUND: Code = code("not_found", 404, "There is no such endpoint; check the path.");
pub(crate) const METHOD_NOT_ALLOWED: Code =
    code("method_not_allowed", 405, "This endpoint does not take this method; use the one in 'Allow'.");

/// Every code a mock user can ask for.
const CODES: [Code; 32] = [
    VALIDATION_ERROR,
    INVALID_DATE_RANGE,
    code("deprecated_provider", 400, "The provider is no longer supported; connect another one."),
    code("invalid_grant", 400, "The grant is not valid any more; ask the user to connect again."),
    code("invalid_client", 400, "The client is not known; check its id and secret."),
    code(
        "invalid_authorization_code",
        400,
        "The authorization code is not valid; ask the user to connect again.",
    ),
    UNAUTHORIZED,
    INVALID_TOKEN,
    code("unauthorized_client", 401, "The client may not use this API; check its permissions."),
    code(
        "wrong_credentials",
        401,
        "The provider refused the user's credentials; ask the user to connect again.",
    ),
    ACCESS_DENIED,
    code("sca_exceeded", 403, "The provider asks for the user's presence; ask the user to connect again."),
    code("invalid_credentials_key", 403, "The credentials cannot be used; ask the user to connect again."),
    code(
        "account_temporarily_locked",
        403,
        "The provider has locked the account for a while; try again later.",
    ),
    code(
        "account_permanently_locked",
        403,
        "The provider has locked the account; the user must ask the provider.",
    ),
    code("mfa_required", 403, "The provider asks for a second factor; ask the user to connect again."),
    code("user_input_required", 403, "The provider waits for the user; the user must log in there."),
    ACCOUNT_NOT_FOUND,
    code("request_conflict", 409, "The same request is already running; wait for it."),
    code("wrong_bank", 410, "The user belongs to another part of this provider; connect that one."),
    TOO_MANY_REQUESTS,
    code(
        "provider_request_limit_exceeded",
        429,
        "Too many calls without the user; send X-PSU-IP or try later.",
    ),
    INTERNAL_SERVER_ERROR,
    code("internal_error", 500, "Something went wrong here; try again later."),
    code("endpoint_not_supported", 501, "The provider does not support this endpoint; do without it."),
    PROVIDER_ERROR,
    code("temporarily_unavailable", 503, "The service is not available; try again later."),
    code("connector_overload", 503, "The provider's connector has too much to do; try again later."),
    code("connector_timeout", 504, "The provider's connector did not answer in time; try again later."),
    code("provider_timeout", 504, "The provider did not answer in time; try again later."),
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
];

impl Code {
    /// The code of that name; one nobody knows is an `internal_server_error`.
    pub(crate) fn named(name: &str) -> Self {
        CODES.into_iter().find(|code| code.name == name).unwrap_or(INTERNAL_SERVER_ERROR)
    }
}

/// An error answer of the bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    code: Code,
    description: Option<String>,
    retry_after_s: Option<u32>,
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self { code, description: None, retry_after_s: None }
    }
}

impl Refusal {
    /// With a sentence that says more than the code's own.
    pub(crate) fn because(code: Code, description: impl Into<String>) -> Self {
        Self { description: Some(description.into()), ..Self::from(code) }
    }

    pub(crate) fn retry_after(code: Code, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..Self::from(code) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({
            "error": self.code.name,
            "error_description": self.description.as_deref().unwrap_or(self.code.description),
            "error_details": {},
        });
        let mut response = Response::new(Body::from(body.to_string()));
        let status = StatusCode::from_u16(self.code.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // RFC 6750 section 3: the error is named only when a token was sent.
        let challenge = if self.code == UNAUTHORIZED { "Bearer" } else { "Bearer error=\"invalid_token\"" };
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own_and_an_error_status() {
        for (index, code) in CODES.iter().enumerate() {
            assert_eq!(CODES.iter().position(|other| other.name == code.name), Some(index));
            assert_eq!(Code::named(code.name), *code);
            assert!((400..600).contains(&code.status));
        }
        assert_eq!(Code::named("no_such_code"), INTERNAL_SERVER_ERROR);
    }
}
