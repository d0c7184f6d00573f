//! One data call: recorded, allowed or refused, troubled, answered with the contract's headers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use jiff::Timestamp;

use super::Desk;
use super::calls::Call;
use super::dates::{Range, day_of, midnight};
use super::endpoint::Endpoint;
use super::error::{
    ACCESS_DENIED, INVALID_TOKEN, JSON, METHOD_NOT_ALLOWED, NOT_FOUND, Refusal, UNAUTHORIZED,
};
use super::token::Grant;
use super::trouble::{Verdict, verdict};
use crate::server::random_id;

pub(crate) const PREFIX: &str = "/data/v1/";

/// Contract.md section 3, at the end. Sent with every answer below the prefix.
const FIXED_HEADERS: [(&str, &str); 6] = [
    ("content-type", JSON),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none';"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "deny"),
    ("x-xss-protection", "1; mode=block"),
    ("referrer-policy", "no-referrer"),
];

pub(super) async fn call(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let now = Timestamp::now();
    let (parts, _) = request.into_parts();
    let grant = presented(&desk, &parts.headers, now);
    let call = Call {
        user: grant.as_ref().ok().map(|grant| grant.user.name().to_owned()),
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().map(str::to_owned),
        time: format!("{now:.3}"),
        status: None,
    };
    let bytes = call.bytes();
    let number = desk.calls.push(call, bytes);
    let credentials_id = grant.as_ref().ok().map(|grant| grant.user.credentials_id());
    let answered = answer(&desk, &parts.method, &parts.uri, grant, now).await;
    let mut response = answered.unwrap_or_else(Refusal::into_response);
    mark(response.headers_mut(), credentials_id);
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    desk.calls.amend(number, |call| call.status = Some(response.status().as_u16()));
    response
}

/// Who calls, by the bearer token (RFC 6750).
fn presented(desk: &Desk, headers: &HeaderMap, now: Timestamp) -> Result<Grant, Refusal> {
    let value = headers.get(header::AUTHORIZATION).ok_or(UNAUTHORIZED)?;
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(UNAUTHORIZED)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(UNAUTHORIZED.into());
    }
    if headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
        return Err(INVALID_TOKEN.into());
    }
    Grant::of_access_token(&desk.keys, token.trim(), now)
}

async fn answer(
    desk: &Desk,
    method: &Method,
    uri: &Uri,
    grant: Result<Grant, Refusal>,
    now: Timestamp,
) -> Result<Response, Refusal> {
    let path = uri.path().strip_prefix(PREFIX).ok_or(NOT_FOUND)?;
    let endpoint = Endpoint::at(path).ok_or(NOT_FOUND)?;
    if method != Method::GET && method != Method::HEAD {
        return Err(METHOD_NOT_ALLOWED.into());
    }
    let grant = grant?;
    if !grant.allows(endpoint.scopes()) {
        return Err(ACCESS_DENIED.into());
    }
    let time = desk.seen.count(format!("{} {method} {uri}", grant.user.name()));
    let verdict = verdict(&grant.user, time);
    match &verdict {
        Verdict::Refuse(refusal) => return Err(refusal.clone()),
        Verdict::AnswerAfter(pause) => tokio::time::sleep(*pause).await,
        Verdict::Answer | Verdict::Cut => {}
    }
    let range = if endpoint.takes_dates() { range(uri)? } else { Range::default() };
    let today = day_of(now);
    let book = desk.shelf.book(&grant.user, today).await?;
    let body = endpoint.body(&grant, &book, range, today)?;
    let mut response = if verdict == Verdict::Cut { cut(&body) } else { Response::new(Body::from(body)) };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600"));
    let modified = midnight(today).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    headers.extend(HeaderValue::from_str(&modified).map(|value| (header::LAST_MODIFIED, value)));
    Ok(response)
}

/// Every other parameter is ignored.
fn range(uri: &Uri) -> Result<Range, Refusal> {
    // Form decoding never fails on text; what is not UTF-8 becomes a replacement character, which no
    // date contains.
    let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(uri).unwrap_or_default();
    let value = |wanted| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    Range::parse(value("from"), value("to"))
}

/// Declares the whole body, sends at most half of it, then cuts the connection.
fn cut(body: &Bytes) -> Response {
    /// Small enough to leave in one piece before the cut.
    const PART_MAX: usize = 8192;
    let part = body.slice(..(body.len() / 2).min(PART_MAX));
    let frames = futures_util::stream::iter([Some(part), None]).then(|part| async {
        if part.is_none() {
            // The part is flushed when the body is not ready; an error at once would discard it.
            tokio::task::yield_now().await;
        }
        part.ok_or("cut on purpose")
    });
    let mut response = Response::new(Body::from_stream(frames));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    response
}

fn mark(headers: &mut HeaderMap, credentials_id: Option<String>) {
    for (name, value) in FIXED_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let ids = [
        ("x-tl-correlation-id", Some(random_id())),
        ("x-request-id", Some(random_id())),
        ("x-credentials-id", credentials_id),
    ];
    for (name, value) in ids {
        // Ids are hex or base64: always a header value.
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
}
