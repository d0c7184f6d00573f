//! The webhook inbox: records whatever arrives, on any path, and answers as the URI asks.
//!
//! Its own pages are `GET /` and `GET /deliveries`; everything else is a delivery attempt. Bounded by
//! number and bytes; a body over the limit is refused with 413 and recorded without its body.

mod orders;
mod page;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;
use tokio::net::TcpListener;

use self::orders::Orders;
use crate::journal::Journal;
use crate::tally::Tally;

const DELIVERIES_MAX: usize = 10_000;
/// For all deliveries kept: 10,000 bodies of a megabyte would be too much.
const BYTES_MAX: usize = 128 << 20;
const BODY_BYTES_MAX: usize = 1 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Webhooks whose tries are counted.
const WEBHOOKS_MAX: usize = 10_000;

/// A webhook inbox; empty at first, and again after a restart.
pub struct Inbox {
    post: Arc<Post>,
}

struct Post {
    deliveries: Journal<Delivery>,
    tries: Tally,
}

/// One delivery attempt as it arrived, and what it was answered.
#[derive(Clone, Serialize)]
struct Delivery {
    #[serde(flatten, serialize_with = "shared")]
    received: Arc<Received>,
    /// `None`: not answered yet, or the sender did not wait.
    status: Option<u16>,
}

#[derive(Serialize)]
struct Received {
    #[serde(rename = "received_at")]
    arrived: String,
    method: String,
    path: String,
    query: Option<String>,
    /// A header that came more than once has its values joined by a comma.
    headers: BTreeMap<String, String>,
    body: String,
    /// The body where it is JSON.
    json: Option<Value>,
    webhook_id: Option<String>,
    /// Which try of its webhook this is, from 1.
    #[serde(rename = "try")]
    attempt: u32,
}

/// As if it were not shared: `Arc` has no `Serialize` of its own.
fn shared<S: Serializer>(received: &Arc<Received>, serializer: S) -> Result<S::Ok, S::Error> {
    received.as_ref().serialize(serializer)
}

impl Inbox {
    #[must_use]
    pub fn new() -> Self {
        let deliveries = Journal::new(DELIVERIES_MAX, BYTES_MAX);
        Self { post: Arc::new(Post { deliveries, tries: Tally::new(WEBHOOKS_MAX) }) }
    }

    /// Serves until `stop` is ready, then cuts every connection and returns at once.
    ///
    /// # Errors
    /// When the listener's socket is unusable.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let router = Router::new().fallback(any(arrival)).with_state(self.post);
        crate::server::serve(listener, router, stop).await
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

async fn arrival(State(post): State<Arc<Post>>, request: Request) -> Response {
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    match request.uri().path() {
        "/" if reads => show(&post),
        "/deliveries" if reads => Json(post.deliveries.entries()).into_response(),
        _ => accept(&post, request).await,
    }
}

fn show(post: &Post) -> Response {
    let mut response = Html(page::render(&post.deliveries.entries())).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The page shows what strangers sent: even unescaped it must not run or load anything.
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
    );
    response
}

async fn accept(post: &Post, request: Request) -> Response {
    let arrived = Timestamp::now();
    let (head, body) = request.into_parts();
    let read = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, BODY_BYTES_MAX)).await;
    let (body, refused) = match read {
        Ok(Ok(body)) => (body, None),
        Ok(Err(_)) => (Bytes::new(), Some(StatusCode::PAYLOAD_TOO_LARGE)),
        Err(_) => (Bytes::new(), Some(StatusCode::REQUEST_TIMEOUT)),
    };
    let webhook_id = head.headers.get("webhook-id").map(text);
    let webhook = webhook_id.clone().unwrap_or_else(|| unnamed(head.uri.path(), &body));
    let received = Received {
        arrived: format!("{arrived:.3}"),
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: headers(&head.headers),
        json: serde_json::from_slice(&body).ok(),
        body: String::from_utf8_lossy(&body).into_owned(),
        webhook_id,
        attempt: post.tries.count(webhook),
    };
    let attempt = received.attempt;
    // Parsed JSON is a few times the size of its text.
    let bytes = received.body.len() * 4 + head.headers.len() * 128 + 1024;
    let number = post.deliveries.push(Delivery { received: Arc::new(received), status: None }, bytes);
    let orders = Orders::parse(&head.uri);
    if let Ok(orders) = &orders {
        tokio::time::sleep(orders.delay).await;
    }
    let wanted = orders.as_ref().map(|orders| orders.headers.clone()).unwrap_or_default();
    let (status, sentence) = match (refused, orders) {
        (Some(status), _) => (status, "The body is too large or too slow.".to_owned()),
        (None, Err(sentence)) => (StatusCode::BAD_REQUEST, sentence),
        (None, Ok(orders)) => (orders.status(attempt), format!("Try {attempt}.")),
    };
    post.deliveries.amend(number, |delivery| delivery.status = Some(status.as_u16()));
    let mut response = (status, format!("{sentence}\n")).into_response();
    response.headers_mut().extend(wanted);
    response
}

/// Names a webhook that does not name itself: the same path and body is the same webhook.
fn unnamed(path: &str, body: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
    format!("{path} {}", BASE64_STANDARD.encode(digest))
}

fn headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let joined = |name| headers.get_all(name).iter().map(text).collect::<Vec<_>>().join(", ");
    headers.keys().map(|name| (name.to_string(), joined(name))).collect()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
