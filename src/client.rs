//! Keep-alive HTTP/1.1 connections to addresses somebody has checked.
//!
//! Owns resolving, judging, dialling, TLS and pooling for every call that leaves the node. Knows no
//! proxies of the environment, follows no redirect and adds no header. Says honestly whether a
//! request left: [`SendError::NotSent`] only where no byte of it can have been written.

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use tokio::time::Instant;

use crate::guard::Rules;
use crate::outcome::NoAnswer;

#[cfg(debug_assertions)]
mod defect;
mod dial;
mod names;
mod origin;
mod patience;
mod pool;
mod received;
mod stream;
mod tls;

#[cfg(test)]
pub(crate) mod scripted;

pub use names::Names;
pub use origin::{Origin, OriginError};
pub use patience::Patience;
pub use received::Received;
pub use tls::{ClientCertificate, TlsRoots, TlsRootsError};

use pool::{Link, Lost, Pool};

pub type BoxError = Box<dyn Error + Send + Sync>;

/// A request body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body of no bytes.
#[must_use]
pub fn empty_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is all there.
#[must_use]
pub fn full_body(bytes: Bytes) -> Body {
    http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Which connections may carry a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// An idle one, else a new one. The peer can close an idle connection at the very moment it is
    /// used, so a request may be lost without an answer: for calls that may be repeated.
    Pooled,
    /// A new one, so that a stale connection never makes it doubtful whether a call was sent.
    Fresh,
}

/// Why no byte of a request left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    #[error("the host name does not resolve")]
    Resolve,
    /// The rule that denied an address, the scheme or the port.
    #[error("the address is not allowed ({0})")]
    Denied(&'static str),
    #[error("no address accepts a connection")]
    Connect,
    #[error("no trusted TLS connection to the host")]
    Tls,
    #[error("the peer closed the connection before the request was sent")]
    Closed,
    #[error("connecting took too long")]
    Timeout,
}

impl Unsent {
    /// Stable, for logs and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Denied(_) => "address_denied",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
        }
    }
}

/// Why there are no response headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("not sent: {0}")]
    NotSent(Unsent),
    /// The request, or a part of it, may have arrived.
    #[error("sent, but not answered: {0:?}")]
    NoAnswer(NoAnswer),
}

/// Why [`Client::fetch`] has no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Uri(#[from] OriginError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("answered with status {0}, not 200")]
    Status(u16),
    #[error("the document is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the document broke off")]
    Broken,
    #[error("the document took too long")]
    Timeout,
}

/// Sends requests. Clones share one pool.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Arc<Pool>,
    names: Names,
    tls: TlsRoots,
    /// Resolving, connecting and the TLS handshake, each.
    connect_timeout: Duration,
    guard: Option<Arc<Rules>>,
}

/// Why a connection brought no response.
enum Unanswered {
    /// The peer hung up while the connection was idle; nothing was written to it.
    Again(Box<Request<Body>>),
    Over(SendError),
}

impl Client {
    /// For addresses that the configuration names: upstreams and key sets.
    #[must_use]
    pub fn trusted(tls: TlsRoots, connect_timeout: Duration) -> Self {
        Self::build(tls, connect_timeout, None, Names::system())
    }

    /// For addresses that strangers name: every one is judged, literal or resolved, and one denied
    /// address denies the name. The address judged is the address dialled.
    #[must_use]
    pub fn guarded(rules: Arc<Rules>, names: Names, tls: TlsRoots, connect_timeout: Duration) -> Self {
        Self::build(tls, connect_timeout, Some(rules), names)
    }

    fn build(tls: TlsRoots, connect_timeout: Duration, guard: Option<Arc<Rules>>, names: Names) -> Self {
        Self { inner: Arc::new(Inner { pool: Arc::default(), names, tls, connect_timeout, guard }) }
    }

    /// Sends `request` and waits for the response headers for as long as it takes.
    ///
    /// The request's URI is in origin form and its `Host` is set. The connection goes back to the
    /// pool when the response body was read to its end; dropping the future or the body earlier
    /// closes it.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(
        &self,
        origin: &Origin,
        request: Request<Body>,
        reuse: Reuse,
    ) -> Result<Response<Received>, SendError> {
        self.send_within(origin, request, reuse, &Patience::endless()).await
    }

    /// As [`Client::send`], with a limit on the wait.
    ///
    /// # Errors
    /// See [`SendError`]; `Timeout` of both kinds when `patience` ended.
    pub async fn send_within(
        &self,
        origin: &Origin,
        mut request: Request<Body>,
        mut reuse: Reuse,
        patience: &Patience,
    ) -> Result<Response<Received>, SendError> {
        #[cfg(debug_assertions)]
        defect::act_as_if(&request);
        frame(&mut request);
        loop {
            let link = match self.idle_link(origin, reuse) {
                Some(link) => link,
                // Boxed: a handshake's state is large, and most requests do without one.
                None => patience
                    .bound(Box::pin(self.connect(origin)))
                    .await
                    .unwrap_or(Err(Unsent::Timeout))
                    .map_err(SendError::NotSent)?,
            };
            match self.send_on(link, origin, request, patience).await {
                Ok(response) => return Ok(response),
                Err(Unanswered::Over(error)) => return Err(error),
                Err(Unanswered::Again(back)) => {
                    request = *back;
                    reuse = Reuse::Fresh;
                }
            }
        }
    }

    async fn send_on(
        &self,
        link: Link,
        origin: &Origin,
        request: Request<Body>,
        patience: &Patience,
    ) -> Result<Response<Received>, Unanswered> {
        let was_pooled = link.was_pooled();
        let sending = pin!(link.send(request, &self.inner.pool, origin));
        let Some(sent) = patience.bound(sending).await else {
            return Err(Unanswered::Over(SendError::NoAnswer(NoAnswer::Timeout)));
        };
        sent.map_err(|lost| match lost {
            Lost::HandedBack(request) if was_pooled => Unanswered::Again(request),
            Lost::HandedBack(_) => Unanswered::Over(SendError::NotSent(Unsent::Closed)),
            Lost::MaybeSent => Unanswered::Over(SendError::NoAnswer(NoAnswer::Broken)),
        })
    }

    /// A small document by GET: status 200, at most `limit` bytes, all within `timeout`.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(&self, uri: &Uri, limit: usize, timeout: Duration) -> Result<Bytes, FetchError> {
        let mut request = Request::new(empty_body());
        *request.uri_mut() = uri.clone();
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let reading = async {
            let response = self.send_absolute(request).await?;
            if response.status() != StatusCode::OK {
                return Err(FetchError::Status(response.status().as_u16()));
            }
            read_at_most(response.into_body(), limit).await
        };
        tokio::time::timeout(timeout, reading).await.unwrap_or(Err(FetchError::Timeout))
    }

    /// As [`Client::exchange`], to the origin that the request's absolute URI names.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn exchange_absolute(
        &self,
        request: Request<Body>,
        limit: usize,
    ) -> Result<Response<Bytes>, FetchError> {
        let (parts, body) = self.send_absolute(request).await?.into_parts();
        Ok(Response::from_parts(parts, read_at_most(body, limit).await?))
    }

    async fn send_absolute(&self, mut request: Request<Body>) -> Result<Response<Received>, FetchError> {
        let origin = Origin::try_from(request.uri())?;
        let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        *request.uri_mut() = target.parse().map_err(|_| OriginError::NotAbsolute)?;
        // Host comes first, RFC 9112 section 3.2.
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, origin.authority());
        headers.extend(std::mem::take(request.headers_mut()));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        *request.headers_mut() = headers;
        Ok(self.send(&origin, request, Reuse::Pooled).await?)
    }

    /// One answer with its whole body of at most `limit` bytes, for as long as it takes. The request
    /// is as for [`Client::send`].
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn exchange(
        &self,
        origin: &Origin,
        request: Request<Body>,
        limit: usize,
    ) -> Result<Response<Bytes>, FetchError> {
        let (parts, body) = self.send(origin, request, Reuse::Pooled).await?.into_parts();
        Ok(Response::from_parts(parts, read_at_most(body, limit).await?))
    }

    /// Connections nobody uses at the moment.
    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.inner.pool.idle()
    }

    fn idle_link(&self, origin: &Origin, reuse: Reuse) -> Option<Link> {
        (reuse == Reuse::Pooled).then(|| self.inner.pool.take(origin, Instant::now())).flatten()
    }

    async fn connect(&self, origin: &Origin) -> Result<Link, Unsent> {
        let inner = &*self.inner;
        let addresses = inner.names.resolve(origin).await?;
        if let Some(rules) = &inner.guard {
            rules.judge_connection(origin.tls(), origin.host(), &addresses).map_err(Unsent::Denied)?;
        }
        let stream = dial::connect(&addresses, inner.connect_timeout).await?;
        if let Some(rules) = &inner.guard {
            let ends = stream.local_addr().and_then(|local| Ok((local, stream.peer_addr()?)));
            let (local, peer) = ends.map_err(|_| Unsent::Connect)?;
            rules.judge_socket(local, peer).map_err(Unsent::Denied)?;
        }
        let stream = dial::secure(stream, origin, &inner.tls, inner.connect_timeout).await?;
        pool::open(stream).await
    }
}

/// Makes sure the body arrives. The version a client spoke is not ours to speak (RFC 9110, 2.5),
/// and without a header of its own the body of a GET whose length is unknown would be left out.
fn frame(request: &mut Request<Body>) {
    *request.version_mut() = Version::HTTP_11;
    let body = request.body();
    let unframed = !body.is_end_stream() && body.size_hint().exact().is_none();
    let headers = request.headers_mut();
    if unframed && !headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Whether where an answer ends depends on who reads it (RFC 9112, 6.3). The library reads on.
fn has_two_readings(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let (length, coding) = (lengths.next(), codings.next());
    let is_plain = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
    };
    lengths.next().is_some()
        || codings.next().is_some()
        || (length.is_some() && coding.is_some())
        || length.is_some_and(|length| !is_plain(length))
        || coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

/// What this program calls itself on the wire.
pub const USER_AGENT: &str = concat!("Ringback/", env!("CARGO_PKG_VERSION"));

async fn read_at_most(mut body: Received, limit: usize) -> Result<Bytes, FetchError> {
    let mut document = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| FetchError::Broken)?.into_data() else { continue };
        if document.len() + data.len() > limit {
            return Err(FetchError::TooLarge(limit));
        }
        document.extend_from_slice(&data);
    }
    Ok(document.freeze())
}

#[cfg(test)]
mod tests;
