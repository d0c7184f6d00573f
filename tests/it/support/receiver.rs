//! A webhook receiver.

use std::sync::Arc;

use serde_json::Value;
use tokio_rustls::TlsAcceptor;

use super::client::encode;
use super::peer::Peer;
use super::reply::Reply;
use super::wire::Received;

/// Records every try; answers 204 unless a script says otherwise.
pub struct Receiver {
    peer: Peer,
}

/// The names of a webhook's members, in their order.
pub const FIELDS: [&str; 8] = [
    "request_timestamp",
    "request_uri",
    "credentials_id",
    "task_id",
    "status",
    "results_uri",
    "error_description",
    "error",
];

impl Receiver {
    pub async fn start() -> Self {
        Self::listen("127.0.0.1:0").await
    }

    pub async fn listen(address: &str) -> Self {
        let peer = Peer::listen(address).await;
        peer.always([Reply::new(204).bodyless()]);
        Self { peer }
    }

    /// Serves `https` with this certificate.
    pub async fn with_tls(acceptor: TlsAcceptor) -> Self {
        let peer = Peer::with_tls(acceptor).await;
        peer.always([Reply::new(204).bodyless()]);
        Self { peer }
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Answers the tries by `replies`; the last one repeats.
    pub fn answers(&self, replies: impl Into<Vec<Reply>>) {
        self.peer.always(replies);
    }

    /// Refuses the first `count` tries with 503.
    pub fn refuses_first(&self, count: usize) {
        let mut replies = vec![Reply::new(503); count];
        replies.push(Reply::new(204).bodyless());
        self.peer.always(replies);
    }

    /// `async=true&webhook_uri=…` with this receiver and `path`, its query included.
    pub fn query(&self, path: &str) -> String {
        format!("async=true&webhook_uri={}", encode(&self.peer.uri(path)))
    }

    pub async fn wait_for(&self, count: usize) -> Vec<Arc<Received>> {
        self.peer.wait_for_calls(count).await
    }

    pub fn tries(&self) -> Vec<Arc<Received>> {
        self.peer.calls()
    }

    /// The tries that announce `task_id`.
    pub fn tries_for(&self, task_id: &str) -> Vec<Arc<Received>> {
        self.tries().into_iter().filter(|received| received.json()["task_id"] == task_id).collect()
    }

    /// Waits for `count` tries that announce `task_id`.
    pub async fn wait_for_task(&self, task_id: &str, count: usize) -> Vec<Arc<Received>> {
        super::eventually("the webhook of one task came often enough", async || {
            Some(self.tries_for(task_id)).filter(|tries| tries.len() >= count)
        })
        .await
    }

    /// The one webhook that came, read.
    pub async fn webhook(&self) -> Value {
        self.wait_for(1).await[0].json()
    }
}
