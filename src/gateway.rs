//! The listener: what happens to a call before and after it is somebody else's business.
//!
//! [`Gateway::handle`] decides what a call is: refused, answered from here, made a task, or proxied.
//! The rules are pure and in modules of their own; this one asks them in a fixed order and joins
//! them. Invariant: whatever is refused stored and called nothing; what the head tells, before the body is read.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::client::Body;
use crate::clock::Clock;
use crate::config::{ServerConfig, UpstreamConfig};
use crate::guard::Rules;
use crate::identity::Identity;
use crate::pace::Pace;
use crate::seal::KeyRing;
use crate::store::{LaneId, Store};
use crate::task::PublicUris;
use crate::telemetry::metrics::{Metrics, UpstreamMetrics};
use crate::upstream::Upstream;
use crate::watch::Watches;

pub mod accept;
mod answer;
mod calls;
mod cancel;
pub mod coding;
pub mod cors;
pub mod forwarded;
pub mod framing;
pub mod hop;
pub mod jwks;
pub mod listener;
pub mod path;
pub mod prefer;
mod proxy;
pub mod query;
pub mod refusal;
pub mod repeat;
pub mod results;
pub mod submit;
pub mod target;
pub mod tls;
mod tunnel;

#[cfg(test)]
mod tests;

pub use calls::{Calls, InProgress};
use cors::Cors;
use framing::Informational;
use prefer::Preferences;
use query::Mode;
use refusal::{Form, Refusal};
use repeat::Repeats;
use results::ResultsCall;
use submit::AsyncCall;
use tunnel::Tunnels;

/// A response body.
pub type GatewayBody = Body;

/// One upstream and everything a call to it needs.
pub struct Route {
    pub config: UpstreamConfig,
    pub upstream: Arc<Upstream>,
    pub identity: Arc<Identity>,
    pub cors: Cors,
    pub lane: LaneId,
    pub uris: PublicUris,
    pub metrics: UpstreamMetrics,
    pub pace: Arc<Pace>,
}

/// The upstreams of a node, side by side.
pub struct Routes(Vec<Route>);

impl Routes {
    #[must_use]
    pub fn new(routes: Vec<Route>) -> Self {
        Self(routes)
    }

    /// The upstream of a path.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&Route> {
        let prefixes = self.0.iter().map(|route| route.config.prefix.as_str());
        path::longest(prefixes, path).and_then(|index| self.0.get(index))
    }
}

/// What the calls of one node share.
pub struct Gateway {
    pub routes: Routes,
    pub server: ServerConfig,
    pub store: Store,
    pub ring: KeyRing,
    pub clock: Clock,
    pub rules: Arc<Rules>,
    pub jwks: jwks::Jwks,
    /// Memory for bodies of calls being accepted; see [`submit::buffer_units`].
    pub buffer: Arc<Semaphore>,
    pub calls: Arc<Calls>,
    pub repeats: Repeats,
    pub metrics: Arc<Metrics>,
    pub watches: Arc<Watches>,
}

/// Where a call came from.
pub struct Peer<'c> {
    pub address: IpAddr,
    /// Where informational responses go; `None` where they cannot (HTTP/1.0 and HTTP/2).
    pub informational: Option<Informational>,
    pub tunnels: &'c Tunnels,
    /// The node stops: nobody waits any longer.
    pub stop: &'c CancellationToken,
}

/// A call that becomes a task: what its query and its preferences say.
struct Wish {
    webhook_uri: Option<String>,
    /// Less our own parameters.
    query: Option<String>,
    preferences: Preferences,
}

/// Whether our CORS fields are added to it: an answer that is not ours, and one to a preflight, has its own.
enum Answer {
    Ours(Response<GatewayBody>),
    Theirs(Response<GatewayBody>),
}

impl Gateway {
    /// Answers one call. It is in progress for as long as its place is held: until its answer is written.
    pub async fn handle(
        &self,
        request: Request<Incoming>,
        peer: Peer<'_>,
    ) -> (Response<GatewayBody>, Option<InProgress>) {
        let route = self.routes.find(request.uri().path());
        let credential = route.and_then(|route| request.headers().get(&route.config.identity.header));
        match self.calls.begin(credential.map(HeaderValue::as_bytes)) {
            Ok(place) => (self.answer(route, request, peer).await, Some(place)),
            Err(refusal) => {
                let (origin, form) = (request.headers().get(header::ORIGIN), Form::of(request.headers()));
                (self.refuse(route, origin, form, refusal), None)
            }
        }
    }

    async fn answer(
        &self,
        route: Option<&Route>,
        request: Request<Incoming>,
        peer: Peer<'_>,
    ) -> Response<GatewayBody> {
        let origin = request.headers().get(header::ORIGIN).cloned();
        let form = Form::of(request.headers());
        let mut ours = match self.dispatch(route, request, peer).await {
            Ok(Answer::Theirs(response)) => return response,
            Ok(Answer::Ours(response)) => response,
            Err(refusal) => return self.refuse(route, origin.as_ref(), form, refusal),
        };
        if let Some(route) = route {
            route.cors.decorate(origin.as_ref(), ours.headers_mut());
        }
        ours
    }

    fn refuse(
        &self,
        route: Option<&Route>,
        origin: Option<&HeaderValue>,
        form: Form,
        refusal: Refusal,
    ) -> Response<GatewayBody> {
        self.metrics.refused(refusal.code());
        let mut ours = own(refusal.told_as(form));
        if let Some(route) = route {
            route.cors.decorate(origin, ours.headers_mut());
        }
        ours
    }

    /// What is larger than a submit is boxed: every call moves the room for whatever it could become.
    async fn dispatch(
        &self,
        route: Option<&Route>,
        request: Request<Incoming>,
        peer: Peer<'_>,
    ) -> Result<Answer, Refusal> {
        target::judge(&request, self.server.max_uri_bytes, self.server.max_header_bytes)?;
        if request.uri().path() == self.jwks.path {
            let answer = self.jwks.answer(request.method(), request.headers(), self.clock.wall());
            return Ok(Answer::Ours(answer.unwrap_or_else(|refusal| {
                self.metrics.refused(refusal.code());
                let mut response = own(refusal.told_as(Form::of(request.headers())));
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            })));
        }
        let route = route.ok_or(Refusal::NoUpstream)?;
        let is_preflight = cors::is_preflight(request.method(), request.headers());
        if is_preflight {
            if route.cors.is_configured() {
                // It has CORS fields of its own, and nothing to expose.
                return Ok(Answer::Theirs(own(route.cors.preflight(request.headers()))));
            }
            return Box::pin(self.proxy(route, request, peer)).await;
        }
        let UpstreamConfig { prefix, results_path, .. } = &route.config;
        if let Some(found) = path::results(prefix, results_path, request.uri().path()) {
            let call = ResultsCall {
                method: request.method(),
                id: found.id,
                below: found.below,
                headers: request.headers(),
                stop: peer.stop,
            };
            return Ok(Answer::Ours(Box::pin(results::results(self, route, call)).await));
        }
        // An upgrade cannot be a task, and a preference may be left unheard.
        let preferences = Preferences::of(request.headers());
        let prefers_a_task = preferences.respond_async && !request.headers().contains_key(header::UPGRADE);
        let cut = if prefers_a_task { query::cut_preferring_a_task } else { query::cut };
        let query::Cut { mode, query } = cut(request.uri().query())?;
        match mode {
            Mode::Proxy => Box::pin(self.proxy(route, request, peer)).await,
            Mode::Task { webhook_uri } => {
                let query = query.map(Cow::into_owned);
                self.submit(route, request, &peer, Wish { webhook_uri, query, preferences }).await
            }
        }
    }

    async fn submit(
        &self,
        route: &Route,
        request: Request<Incoming>,
        peer: &Peer<'_>,
        wish: Wish,
    ) -> Result<Answer, Refusal> {
        if request.headers().contains_key(header::UPGRADE) {
            return Err(Refusal::Invalid(String::from(
                "The header Upgrade and async=true contradict each other; send one of them.",
            )));
        }
        let Wish { webhook_uri, query, preferences } = wish;
        // Who waits for the answer is asked once more who it is.
        let waits = preferences.wait.filter(|seconds| *seconds > 0);
        let waits = waits.map(|seconds| (seconds, request.method().clone(), request.headers().clone()));
        let client_host = forwarded::client_host(request.uri(), request.headers());
        let (mut parts, body) = request.into_parts();
        self.make_end_to_end(&mut parts, peer, client_host.as_ref());
        hop::strip_for_task(&mut parts.headers);
        let call = AsyncCall {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query,
            headers: parts.headers,
            client_host,
            body,
            webhook_uri,
        };
        let mut accepted = submit::submit(self, route, call).await?;
        if let Some((seconds, method, headers)) = waits
            && let Some(task) = accepted.headers().get(answer::TASK).and_then(|id| id.to_str().ok())
        {
            let stop = peer.stop;
            let call = ResultsCall { method: &method, id: task, below: None, headers: &headers, stop };
            // Boxed: calls that do not wait need not carry the room for it.
            if let Some(answer) = Box::pin(results::in_time(self, route, &call, seconds)).await {
                return Ok(Answer::Ours(answer));
            }
        }
        if preferences.respond_async {
            let applied = HeaderValue::from_static("respond-async");
            accepted.headers_mut().insert("preference-applied", applied);
        }
        Ok(Answer::Ours(accepted))
    }

    async fn proxy(
        &self,
        route: &Route,
        mut request: Request<Incoming>,
        peer: Peer<'_>,
    ) -> Result<Answer, Refusal> {
        let client_host = forwarded::client_host(request.uri(), request.headers());
        let path_and_query = target::upstream_target(request.uri());
        let upgrade = hop::upgrade(request.headers()).filter(|_| request.version() == Version::HTTP_11);
        let upgrade = upgrade.map(|protocol| proxy::Upgrade {
            protocol,
            client: hyper::upgrade::on(&mut request),
            tunnels: peer.tunnels.clone(),
        });
        let (mut parts, body) = request.into_parts();
        self.make_end_to_end(&mut parts, &peer, client_host.as_ref());
        let call = proxy::Proxied {
            method: parts.method,
            path_and_query,
            headers: parts.headers,
            client_host,
            body,
            max_body_bytes: self.server.max_proxy_body_bytes,
            body_timeout: self.server.body_timeout,
            upgrade,
            informational: peer.informational,
        };
        route.metrics.proxied.inc();
        proxy::proxy(&route.upstream, call).await.map(Answer::Theirs)
    }

    /// Leaves the fields that are for the upstream, with ours about forwarding.
    fn make_end_to_end(
        &self,
        parts: &mut http::request::Parts,
        peer: &Peer<'_>,
        client_host: Option<&HeaderValue>,
    ) {
        let headers = &mut parts.headers;
        hop::strip(headers);
        if parts.version == Version::HTTP_2 {
            hop::join_cookies(headers);
        }
        let trusted = forwarded::is_trusted(peer.address, &self.server.trusted_proxies);
        let scheme = if self.server.tls_cert_file.is_some() { "https" } else { "http" };
        forwarded::apply(headers, peer.address, trusted, client_host, scheme);
    }
}

/// An answer of ours as a response body.
#[must_use]
pub fn own(response: Response<Full<Bytes>>) -> Response<GatewayBody> {
    response.map(|body| body.map_err(|never| match never {}).boxed_unsync())
}
