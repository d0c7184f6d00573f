//! The transparent reverse proxy: one call through, nothing kept.
//!
//! Bodies stream both ways a piece at a time, so a call costs the same memory whatever its size. An
//! answer that breaks off upstream breaks off here: the client never takes a part for the whole. A
//! call is never sent twice.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;
use tokio::time::timeout;

use super::framing::Informational;
use super::hop;
use super::refusal::Refusal;
use super::tunnel::Tunnels;
use super::{GatewayBody, tunnel};
use crate::client::{Body, Received, Reuse, SendError};
use crate::outcome::NoAnswer;
use crate::upstream::Upstream;

mod streams;

use streams::{ClientBody, ClientSide, UpstreamBody};

/// A call to send on as it is.
pub struct Proxied {
    pub method: Method,
    /// As the client sent it, less our own parameters.
    pub path_and_query: String,
    /// End-to-end fields only; those about forwarding are ours already.
    pub headers: HeaderMap,
    pub client_host: Option<HeaderValue>,
    pub body: Incoming,
    /// Largest body; 0 means no limit.
    pub max_body_bytes: u64,
    /// How long the end of a body of no bytes is waited for.
    pub body_timeout: Duration,
    pub upgrade: Option<Upgrade>,
    /// Where informational responses go; `None` where they cannot.
    pub informational: Option<Informational>,
}

/// A wish to leave HTTP.
pub struct Upgrade {
    pub protocol: HeaderValue,
    pub client: OnUpgrade,
    pub tunnels: Tunnels,
}

/// Sends the call and hands back the answer with its body still arriving.
///
/// Every call may take an idle connection. The risk of one is that the upstream closes it just then;
/// the client's own keep-alive connections carry the same risk, the pool keeps none long enough to
/// be near the usual five seconds, and a request that meets a closed one is handed back unsent. As
/// nothing is ever sent twice, the worst is a 502 that says the call may have taken effect. A new
/// connection for each POST would cost a handshake every time, and all local ports at a few
/// hundred calls a second.
///
/// # Errors
/// Our own answer, where the upstream gave none or the body is too large.
pub async fn proxy(upstream: &Upstream, mut call: Proxied) -> Result<Response<GatewayBody>, Refusal> {
    let max = call.max_body_bytes;
    if max > 0 && call.body.size_hint().lower() > max {
        return Err(Refusal::BodyTooLarge(max));
    }
    if call.body.size_hint().exact() == Some(0) {
        let ended = timeout(call.body_timeout, end_of_nothing(&mut call.body));
        ended.await.map_err(|_| Refusal::BodyTimeout)??;
    }
    let upgrade = call.upgrade;
    let client = Arc::new(ClientSide::default());
    let mut request = Request::new(());
    *request.method_mut() = call.method;
    *request.uri_mut() = upstream.uri_for(&call.path_and_query).map_err(|_| Refusal::Internal)?;
    *request.headers_mut() = call.headers;
    upstream.prepare_headers(request.headers_mut(), call.client_host.as_ref());
    add_hop_by_hop(request.headers_mut(), upgrade.as_ref());
    if let Some(informational) = call.informational {
        pass_informational(&mut request, informational);
    }
    let body: Body = ClientBody::new(call.body, max, Arc::clone(&client)).boxed_unsync();
    let response = upstream
        .exchange(request.map(|()| body), Reuse::Pooled)
        .await
        .map_err(|error| refusal(&error, &client, max))?;
    answer(response, upgrade, upstream)
}

/// Over HTTP/2 a body that is said to have no bytes may have some, which makes the call malformed (RFC 9113,
/// 8.1.1): it must not have left by then.
async fn end_of_nothing(body: &mut Incoming) -> Result<(), Refusal> {
    while !body.is_end_stream() {
        match body.frame().await {
            Some(Ok(_)) => {}
            Some(Err(_)) => return Err(Refusal::BodyBroken),
            None => break,
        }
    }
    Ok(())
}

/// Our side of the connection to the upstream: what its fields say is about this hop alone.
fn add_hop_by_hop(headers: &mut HeaderMap, upgrade: Option<&Upgrade>) {
    let connection = match (upgrade, headers.contains_key(header::TE)) {
        (Some(_), true) => "upgrade, te",
        (Some(_), false) => "upgrade",
        (None, true) => "te",
        (None, false) => return,
    };
    headers.insert(header::CONNECTION, HeaderValue::from_static(connection));
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade.protocol.clone());
    }
}

/// Passes on every 1xx but 100, which our own side of the connection says when the body is wanted.
fn pass_informational<B>(request: &mut Request<B>, informational: Informational) {
    hyper::ext::on_informational(request, move |response| {
        if response.status() != StatusCode::CONTINUE {
            let mut headers = response.headers().clone();
            hop::strip(&mut headers);
            informational.send(response.status(), &headers);
        }
    });
}

fn answer(
    mut response: Response<Received>,
    upgrade: Option<Upgrade>,
    upstream: &Upstream,
) -> Result<Response<GatewayBody>, Refusal> {
    let mut switch = None;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // To a client that did not ask, what follows would be noise.
        let upgrade = upgrade.ok_or(Refusal::UpstreamBroken)?;
        switch = response.headers().get(header::UPGRADE).cloned();
        tunnel::join(upgrade.client, hyper::upgrade::on(&mut response), upgrade.tunnels);
    }
    let (mut parts, body) = response.into_parts();
    hop::strip(&mut parts.headers);
    parts.headers.remove(header::TE);
    if let Some(protocol) = switch {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, protocol);
    }
    let mut answer = Response::new(UpstreamBody::new(body, upstream.idle_timeout()).boxed_unsync());
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = parts.headers;
    // Version and the library's own extensions belong to the other connection.
    if let Some(reason) = parts.extensions.remove::<ReasonPhrase>() {
        answer.extensions_mut().insert(reason);
    }
    Ok(answer)
}

/// Whose fault it is that there is no answer. The client's side is asked first: a call it did not
/// finish cannot be answered by the upstream.
fn refusal(error: &SendError, client: &ClientSide, max_body_bytes: u64) -> Refusal {
    if client.is_too_large() {
        return Refusal::BodyTooLarge(max_body_bytes);
    }
    if client.is_broken() {
        return Refusal::BodyBroken;
    }
    match error {
        SendError::NotSent(_) => Refusal::UpstreamUnreachable,
        SendError::NoAnswer(NoAnswer::Timeout) if client.is_awaited() => Refusal::BodyTimeout,
        SendError::NoAnswer(NoAnswer::Timeout) => Refusal::UpstreamTimeout,
        SendError::NoAnswer(NoAnswer::Broken) => Refusal::UpstreamBroken,
    }
}
