//! A thin HTTP client: one connection a call, nothing added that the test did not ask for.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderMap, Method, Request, Uri, Version, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::within;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A call being put together.
pub struct Call {
    to: SocketAddr,
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Body,
    http2: bool,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// A header that is there at most once, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        assert!(values.next().is_none(), "the header {name} is there twice");
        Some(value.to_str().expect("header values in these tests are ASCII"))
    }

    /// The comma-separated members of a list header, over all its lines, in lower case.
    pub fn list(&self, name: &str) -> Vec<String> {
        let lines = self.headers.get_all(name).iter();
        let lines = lines.map(|line| line.to_str().expect("header values in these tests are ASCII"));
        lines.flat_map(|line| line.split(',')).map(|member| member.trim().to_ascii_lowercase()).collect()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {:?} {:?}", self.status, self.body))
    }

    /// The names of the members of the JSON object, in their order.
    #[track_caller]
    pub fn keys(&self) -> Vec<String> {
        self.json().as_object().expect("the body is a JSON object").keys().cloned().collect()
    }

    /// Checks that this is Ringback's own error answer with this status and code.
    #[track_caller]
    pub fn is_refusal(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.header("ringback-error")), (status, Some(code)), "{:?}", self.body);
        assert_eq!(self.keys(), ["error", "error_description", "error_details"]);
        let body = self.json();
        assert_eq!(body["error"], code);
        assert!(body["error_details"].is_object(), "{body}");
        let sentence = body["error_description"].as_str().expect("error_description is a string");
        assert!(sentence.ends_with('.') && sentence.len() > 10, "not a sentence: {sentence}");
        assert!(self.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
    }
}

impl Answer {
    /// Checks that this is the same told as a problem (RFC 9457).
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.header("ringback-error")), (status, Some(code)), "{:?}", self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{code}");
        assert_eq!(self.keys(), ["type", "title", "status", "detail", "error", "error_details"]);
        let body = self.json();
        assert_eq!((&body["error"], &body["status"]), (&code.into(), &status.into()));
        assert_eq!(body["type"], format!("urn:ringback:error:{code}"));
        assert!(body["error_details"].is_object(), "{body}");
        let sentence = body["detail"].as_str().expect("detail is a string");
        assert!(sentence.ends_with('.') && sentence.len() > 10, "not a sentence: {sentence}");
        assert!(self.list("vary").contains(&"accept".to_owned()), "{code}");
    }

    /// The answer in `text`, as it stood on the wire; its body ends where the connection did.
    pub fn from_wire(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let fields = lines.map(|line| line.split_once(": ").expect("a header line"));
        let headers = fields.map(|(name, value)| {
            let name: http::HeaderName = name.parse().expect("a header name");
            (name, value.parse::<http::HeaderValue>().expect("a header value"))
        });
        Self {
            status: status.expect("a status line"),
            version: Version::HTTP_11,
            headers: headers.collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            trailers: None,
        }
    }
}

impl Call {
    pub fn new(to: SocketAddr, method: Method, target: &str) -> Self {
        Self {
            to,
            method,
            target: target.to_owned(),
            headers: HeaderMap::new(),
            body: Empty::new().boxed_unsync(),
            http2: false,
        }
    }

    /// A GET of an absolute `http` URI whose host is an address.
    pub fn get(uri: &str) -> Self {
        let uri: Uri = uri.parse().unwrap_or_else(|_| panic!("`{uri}` is not a URI"));
        let authority = uri.authority().unwrap_or_else(|| panic!("`{uri}` is not absolute"));
        let to = authority.as_str().parse().unwrap_or_else(|_| panic!("`{uri}` names no address"));
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Self::new(to, Method::GET, target)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = http::HeaderName::try_from(name).expect("a header name");
        self.headers.append(name, value.parse().expect("a header value"));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Full::new(body.into()).boxed_unsync();
        self
    }

    /// A body whose length is not declared.
    pub fn stream(mut self, pieces: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        let frames = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        self.body = StreamBody::new(frames).boxed_unsync();
        self
    }

    /// A body whose frames, trailers among them, the test makes itself.
    pub fn frames(mut self, frames: impl Stream<Item = Frame<Bytes>> + Send + 'static) -> Self {
        self.body = StreamBody::new(frames.map(Ok::<_, Infallible>)).boxed_unsync();
        self
    }

    /// HTTP/2 with prior knowledge.
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// The whole answer; a broken one fails the test.
    pub async fn send(self) -> Answer {
        let what = format!("{} {} was answered", self.method, self.target);
        self.try_send().await.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// The whole answer, or how it broke.
    pub async fn try_send(self) -> Result<Answer, hyper::Error> {
        let what = format!("{} {} was answered whole", self.method, self.target);
        let whole = Box::pin(async {
            let (parts, body) = self.open().await?.into_parts();
            let collected = body.collect().await?;
            let trailers = collected.trailers().cloned();
            let body = collected.to_bytes();
            let (status, version) = (parts.status.as_u16(), parts.version);
            Ok(Answer { status, version, headers: parts.headers, body, trailers })
        });
        within(&what, whole).await
    }

    /// The head of the answer; the body is read by the test. Dropping it drops the connection.
    pub async fn open(self) -> Result<http::Response<Incoming>, hyper::Error> {
        let what = format!("{} {} was answered", self.method, self.target);
        within(&what, Box::pin(self.exchange())).await
    }

    /// As [`Call::open`] for a body that may take longer than a single wait.
    pub async fn open_patiently(self) -> Result<http::Response<Incoming>, hyper::Error> {
        let what = format!("{} {} with its large body was answered", self.method, self.target);
        super::within_times(4, &what, Box::pin(self.exchange())).await
    }

    async fn exchange(self) -> Result<http::Response<Incoming>, hyper::Error> {
        let Self { to, method, target, mut headers, body, http2 } = self;
        let stream = TcpStream::connect(to).await.unwrap_or_else(|error| panic!("connect to {to}: {error}"));
        let io = TokioIo::new(stream);
        let mut request = Request::new(body);
        *request.method_mut() = method;
        if http2 {
            *request.uri_mut() = format!("http://{to}{target}").parse().expect("a URI");
            *request.headers_mut() = headers;
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            return sender.send_request(request).await;
        }
        if !headers.contains_key(header::HOST) {
            headers.insert(header::HOST, to.to_string().parse().expect("an address is a header value"));
        }
        *request.uri_mut() = target.parse().expect("a request target");
        *request.headers_mut() = headers;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await
    }
}

/// Writes bytes as they are and reads until the other side closes.
pub async fn raw(to: SocketAddr, bytes: &[u8]) -> String {
    within("the raw call was answered and closed", async {
        let mut stream = TcpStream::connect(to).await.expect("the listener accepts");
        stream.write_all(bytes).await.expect("the call is written");
        let mut answer = Vec::new();
        // A reset after the answer is as good as an end.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    })
    .await
}

/// `text` as a query value: everything but unreserved characters is percent-encoded.
pub fn encode(text: &str) -> String {
    const ENCODED: percent_encoding::AsciiSet =
        percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(text, &ENCODED).to_string()
}
