//! One exchange with the API a task or a proxied call is sent to.
//!
//! Owns where a call goes, what its header section says there, and how long each part of the
//! answer may take. Knows no store and no retries: it takes a call and returns what happened.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::poll;
use http::response::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use crate::client::{
    Body, Client, ClientCertificate, FetchError, Origin, OriginError, Patience, Received, Reuse, SendError,
    TlsRoots, TlsRootsError, USER_AGENT,
};
use crate::config::UpstreamConfig;
use crate::outcome::{NoAnswer, RetryAfter};
use crate::task::Safety;

mod headers;

pub use headers::HeadersError;

use headers::HeaderRules;

/// An upstream slower than this to accept a connection is down; the next address is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A configuration no upstream can be made of.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("upstream `{name}`: url must be http:// or https://, a host, and no query: {why}")]
    Url { name: String, why: &'static str },
    #[error("upstream `{name}`: {why}")]
    Roots { name: String, why: TlsRootsError },
    #[error("upstream `{name}`: {why}")]
    Headers { name: String, why: HeadersError },
}

/// A configured API and the connections to it.
pub struct Upstream {
    origin: Origin,
    authority: HeaderValue,
    /// Without a trailing slash; empty for `/`.
    prefix: String,
    /// The path that takes the prefix's place, as configured.
    base: String,
    preserve_host: bool,
    headers: HeaderRules,
    client: Client,
    timeout: Duration,
    idle_timeout: Duration,
    total_timeout: Duration,
}

/// A task's call, ready to be sent.
pub struct Call<'call> {
    pub method: Method,
    /// As the client sent it, below the prefix; our own parameters already removed.
    pub path_and_query: &'call str,
    /// The client's, end-to-end headers only. Its `Host` is used only with `preserve_host`.
    pub headers: HeaderMap,
    /// Exactly `content_length` bytes.
    pub body: Body,
    /// `None` for a call without a body.
    pub content_length: Option<u64>,
    pub safety: Safety,
}

/// What one attempt came to, as far as the response headers.
pub enum Attempt<B = Received> {
    NotSent,
    NoAnswer(NoAnswer),
    Answered(Answer<B>),
}

/// Response headers, and a body still arriving.
pub struct Answer<B = Received> {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub retry_after: Option<RetryAfter>,
    body: B,
    idle_timeout: Duration,
    end: Instant,
}

/// A body that arrives piece by piece.
pub trait Arriving: http_body::Body<Data = Bytes, Error: Send> + Send + Unpin {}

impl<B: http_body::Body<Data = Bytes, Error: Send> + Send + Unpin> Arriving for B {}

impl<B: Arriving> Answer<B> {
    /// An answer whose body may take until `end`, each piece of it `idle_timeout`.
    #[must_use]
    pub fn new(head: Parts, body: B, idle_timeout: Duration, end: Instant) -> Self {
        let retry_after = head.headers.get(header::RETRY_AFTER);
        Self {
            status: head.status,
            retry_after: retry_after.and_then(|value| RetryAfter::parse(value.as_bytes())),
            headers: head.headers,
            body,
            idle_timeout,
            end,
        }
    }

    /// The next piece of the body, `None` after the last one.
    ///
    /// # Errors
    /// `Timeout` when the piece or the whole attempt took too long, `Broken` when the body ended
    /// before its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, NoAnswer> {
        while !self.body.is_end_stream() {
            match self.frame().await? {
                None => break,
                Some(Err(_)) => return Err(NoAnswer::Broken),
                // Trailers are no part of a result.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
        Ok(None)
    }

    async fn frame(&mut self) -> Result<Option<Result<Frame<Bytes>, B::Error>>, NoAnswer> {
        let mut frame = self.body.frame();
        // What has come already needs no limit on the wait for it.
        if let Poll::Ready(frame) = poll!(&mut frame) {
            return Ok(frame);
        }
        let end = self.end.min(Instant::now() + self.idle_timeout);
        timeout_at(end, frame).await.map_err(|_| NoAnswer::Timeout)
    }
}

impl Upstream {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub fn new(config: &UpstreamConfig) -> Result<Self, UpstreamError> {
        let name = || config.name.clone();
        let bad_url = |why| UpstreamError::Url { name: name(), why };
        let url: Uri = config.url.parse().map_err(|_| bad_url("it is not a URL"))?;
        let origin = Origin::try_from(&url).map_err(|why| {
            bad_url(match why {
                OriginError::NotAbsolute => "scheme or host is missing",
                OriginError::Scheme => "the scheme is another one",
                OriginError::UserInfo => "it holds a user name; use headers.set instead",
                OriginError::Port => "the port is not a number from 1 to 65535",
            })
        })?;
        if url.query().is_some() || config.url.contains('#') {
            return Err(bad_url("it holds a query or a fragment"));
        }
        let client = config.client_cert_file.as_deref().zip(config.client_key_file.as_deref());
        let client = client.map(|(certificate, key)| ClientCertificate { certificate, key });
        let roots = TlsRoots::from_pem_files(config.ca_file.as_deref(), client.as_ref())
            .map_err(|why| UpstreamError::Roots { name: name(), why })?;
        let headers =
            HeaderRules::new(&config.headers).map_err(|why| UpstreamError::Headers { name: name(), why })?;
        Ok(Self {
            authority: origin.authority(),
            origin,
            prefix: config.prefix.trim_end_matches('/').to_owned(),
            base: url.path().to_owned(),
            preserve_host: config.preserve_host,
            headers,
            client: Client::trusted(roots, CONNECT_TIMEOUT.min(config.timeout)),
            timeout: config.timeout,
            idle_timeout: config.idle_timeout,
            total_timeout: config.total_timeout,
        })
    }

    /// The request target upstream, in origin form: the prefix replaced by the url's path, all else
    /// byte for byte. A path that is not below the prefix is appended whole.
    ///
    /// # Errors
    /// `path_and_query` is not one.
    pub fn uri_for(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        let rest = path_and_query.strip_prefix(&self.prefix).unwrap_or(path_and_query);
        let base = if rest.starts_with('/') { self.base.trim_end_matches('/') } else { &self.base };
        let target = PathAndQuery::try_from(format!("{base}{rest}"))?;
        Ok(Uri::from(target))
    }

    /// Makes a client's header section the upstream's: its own `Host` unless the client's is to be
    /// preserved, then the configured removals, then the configured values.
    pub fn prepare_headers(&self, headers: &mut HeaderMap, client_host: Option<&HeaderValue>) {
        let host = client_host.filter(|_| self.preserve_host).unwrap_or(&self.authority);
        headers.insert(header::HOST, host.clone());
        self.headers.apply(headers);
    }

    /// Sends a request in origin form and waits at most `timeout` for the response headers,
    /// connecting included; every piece of the request body that is taken starts the time anew.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn exchange(
        &self,
        request: Request<Body>,
        reuse: Reuse,
    ) -> Result<Response<Received>, SendError> {
        self.send(request, reuse, Patience::of(self.timeout)).await
    }

    async fn send(
        &self,
        request: Request<Body>,
        reuse: Reuse,
        mut patience: Patience,
    ) -> Result<Response<Received>, SendError> {
        let request = request.map(|body| patience.watch(body));
        self.client.send_within(&self.origin, request, reuse, &patience).await
    }

    /// A question of the node's own: `request` names a path below the prefix and has no body. The
    /// answer's body is at most `limit` bytes; how long it may take, the caller says.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn ask(&self, mut request: Request<Body>, limit: usize) -> Result<Response<Bytes>, FetchError> {
        let path = format!("{}{}", self.prefix, request.uri().path());
        *request.uri_mut() = self.uri_for(&path).map_err(|_| FetchError::Broken)?;
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        self.prepare_headers(request.headers_mut(), None);
        self.client.exchange(&self.origin, request, limit).await
    }

    /// Longest pause between two pieces of the upstream's body.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// One attempt of a task. An unsafe call never takes an idle connection, which could be closing
    /// at that moment and make it doubtful whether the call arrived.
    pub async fn attempt(&self, call: Call<'_>) -> Attempt {
        let end = Instant::now() + self.total_timeout;
        let reuse = match call.safety {
            Safety::Repeatable => Reuse::Pooled,
            Safety::Unsafe => Reuse::Fresh,
        };
        // A target that was accepted from a client cannot fail here; if it does, nothing was sent.
        let Ok(request) = self.request(call) else { return Attempt::NotSent };
        match self.send(request, reuse, Patience::of(self.timeout).until(end)).await {
            Err(SendError::NotSent(_)) => Attempt::NotSent,
            Err(SendError::NoAnswer(why)) => Attempt::NoAnswer(why),
            Ok(response) => {
                let (parts, body) = response.into_parts();
                Attempt::Answered(Answer::new(parts, body, self.idle_timeout, end))
            }
        }
    }

    fn request(&self, call: Call<'_>) -> Result<Request<Body>, http::Error> {
        let mut request = Request::new(call.body);
        *request.method_mut() = call.method;
        *request.uri_mut() = self.uri_for(call.path_and_query)?;
        let mut headers = call.headers;
        let client_host = headers.remove(header::HOST);
        self.prepare_headers(&mut headers, client_host.as_ref());
        // The body stored is what counts, not what the client said of it.
        headers.remove(header::TRANSFER_ENCODING);
        match call.content_length {
            Some(length) => headers.insert(header::CONTENT_LENGTH, length.into()),
            None => headers.remove(header::CONTENT_LENGTH),
        };
        *request.headers_mut() = headers;
        Ok(request)
    }
}

#[cfg(test)]
mod tests;
