//! One delivery attempt at a receiver.
//!
//! Owns the request a receiver sees and the verdict on its answer. Receivers are strangers: every
//! connection passes the address guard, redirects are answers like any other, the answer's body is
//! read only to free the connection, and all of it happens within one limit of time.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use webhook_signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};

use crate::client::{
    Client, Names, Origin, Received, Reuse, SendError, TlsRoots, USER_AGENT, Unsent, full_body,
};
use crate::clock::Timestamp;
use crate::config::WebhooksConfig;
use crate::guard::{Rules, WebhookUri};
use crate::id::TaskId;
use crate::outcome::NoAnswer;
use crate::signing::{Signatures, Signer};

/// As much of an answer is read so that its connection can be used again; beyond it, closing the
/// connection is cheaper.
const MAX_DRAINED_BYTES: usize = 64 * 1024;

/// A message is sent as it was made for so long. Its time is told in whole seconds.
const FRESH_MS: u64 = 1_000;

/// What a receiver is told, and under which name.
pub struct Message {
    /// `webhook-id`: the same on every try.
    pub id: TaskId,
    /// `webhook-timestamp`, in whole seconds, and what is signed: the wall clock at this try.
    pub sent_at: Timestamp,
    /// JSON; sent byte for byte.
    pub body: Bytes,
    signed_early: OnceLock<Signatures>,
}

impl Message {
    #[must_use]
    pub fn new(id: TaskId, sent_at: Timestamp, body: Bytes) -> Self {
        Self { id, sent_at, body, signed_early: OnceLock::new() }
    }

    /// The message as of `now`, if too much time has passed since it was made, or too little.
    #[must_use]
    pub fn unless_fresh(&self, now: Timestamp) -> Option<Self> {
        let is_fresh = now.0.abs_diff(self.sent_at.0) <= FRESH_MS;
        (!is_fresh).then(|| Self::new(self.id, now, self.body.clone()))
    }
}

/// The verdict on one delivery attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    Delivered { status: u16 },
    Failed { why: DeliveryFailure },
}

/// Why a receiver was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryFailure {
    /// An answer that is not 2xx.
    HttpStatus(u16),
    Timeout,
    /// The host name leads nowhere, or nobody said in time where.
    Unresolved,
    /// Nobody accepts a connection, or it was closed before anything was sent.
    Unreachable,
    /// The receiver does not speak TLS, or shows no certificate of its host that is to be trusted.
    Tls,
    /// The connection broke before the answer's headers.
    Broken,
    /// The guard's rule that denied the receiver.
    AddressDenied(&'static str),
}

impl DeliveryFailure {
    /// Stable, for logs and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::HttpStatus(_) => "http_status",
            Self::Timeout => "timeout",
            Self::Unresolved => "unresolved",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Broken => "broken",
            Self::AddressDenied(_) => "address_denied",
        }
    }
}

/// Signs and sends webhooks, over connections of its own.
pub struct WebhookSender {
    client: Client,
    signer: Signer,
    timeout: Duration,
}

impl WebhookSender {
    #[must_use]
    pub fn new(config: &WebhooksConfig, names: Names, signer: Signer) -> Self {
        let rules = Arc::new(Rules::new(config));
        let client = Client::guarded(rules, names, TlsRoots::system(), config.timeout);
        Self { client, signer, timeout: config.timeout }
    }

    /// To be run: signs a message that will be sent soon. One that is sent before that, or after the keys
    /// were replaced, is signed when it is sent.
    pub fn sign_early(&self, message: &Arc<Message>) -> impl FnOnce() + Send + use<> {
        let (signer, message) = (self.signer.clone(), Arc::clone(message));
        move || {
            // Twice the same, if somebody was faster.
            let _ = message.signed_early.set(signer.sign(message.id, message.sent_at, &message.body));
        }
    }

    /// One POST. Resolving, connecting, sending and reading the answer share one limit.
    pub async fn deliver(&self, uri: &WebhookUri, message: &Message) -> DeliveryOutcome {
        let failed = |why| DeliveryOutcome::Failed { why };
        let origin = Origin::new(uri.tls(), uri.host(), uri.port());
        let signed_now;
        let signatures = match message.signed_early.get() {
            Some(early) if self.signer.still_signs_as(early) => early,
            _ => {
                signed_now = self.signer.sign(message.id, message.sent_at, &message.body);
                &signed_now
            }
        };
        let sending = pin!(async {
            // A delivery is at least once: a connection lost while idle costs a repeat, not a doubt.
            let response = self
                .client
                .send(&origin, request(uri, &origin, message, signatures.as_str()), Reuse::Pooled)
                .await?;
            let status = response.status();
            Ok::<_, SendError>((status, response.into_body()))
        });
        let deadline = tokio::time::Instant::now() + self.timeout;
        match tokio::time::timeout_at(deadline, sending).await {
            Err(_) => failed(DeliveryFailure::Timeout),
            Ok(Err(error)) => failed(why_not_sent(error)),
            Ok(Ok((status, body))) => {
                // The status is the whole verdict; what follows cannot change it.
                if !body.is_end_stream() {
                    let _ = tokio::time::timeout_at(deadline, drain(body)).await;
                }
                verdict(status)
            }
        }
    }
}

fn verdict(status: StatusCode) -> DeliveryOutcome {
    if status.is_success() {
        DeliveryOutcome::Delivered { status: status.as_u16() }
    } else {
        DeliveryOutcome::Failed { why: DeliveryFailure::HttpStatus(status.as_u16()) }
    }
}

fn why_not_sent(error: SendError) -> DeliveryFailure {
    match error {
        SendError::NotSent(Unsent::Denied(rule)) => DeliveryFailure::AddressDenied(rule),
        SendError::NotSent(Unsent::Timeout) | SendError::NoAnswer(NoAnswer::Timeout) => {
            DeliveryFailure::Timeout
        }
        SendError::NotSent(Unsent::Resolve) => DeliveryFailure::Unresolved,
        SendError::NotSent(Unsent::Tls) => DeliveryFailure::Tls,
        SendError::NotSent(Unsent::Connect | Unsent::Closed) => DeliveryFailure::Unreachable,
        SendError::NoAnswer(NoAnswer::Broken) => DeliveryFailure::Broken,
    }
}

fn request(
    uri: &WebhookUri,
    origin: &Origin,
    message: &Message,
    signatures: &str,
) -> Request<crate::client::Body> {
    let mut request = Request::new(full_body(message.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from(uri.target());
    let headers = request.headers_mut();
    headers.insert(header::HOST, origin.authority());
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, message.body.len().into());
    let id = HeaderValue::try_from(message.id.to_string()).expect("a UUID is header characters");
    headers.insert(ID_HEADER, id);
    headers.insert(TIMESTAMP_HEADER, message.sent_at.as_secs().into());
    if !signatures.is_empty() {
        let value = HeaderValue::from_str(signatures).expect("base64, commas and spaces");
        headers.insert(SIGNATURE_HEADER, value);
    }
    request
}

/// Reads a short rest of the answer; dropping a longer one closes the connection.
async fn drain(mut body: Received) {
    let mut drained = 0;
    while let Some(Ok(frame)) = body.frame().await {
        drained += frame.data_ref().map_or(0, Bytes::len);
        if drained > MAX_DRAINED_BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
