//! `[server]`: listeners, the data directory, and the limits every call meets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use super::units;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Where calls arrive.
    #[serde(deserialize_with = "units::address")]
    pub listen: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` answer.
    #[serde(deserialize_with = "units::address")]
    pub admin_listen: SocketAddr,
    /// PEM: with both, the listener speaks TLS and nothing else.
    #[serde(deserialize_with = "units::optional_path")]
    pub tls_cert_file: Option<PathBuf>,
    #[serde(deserialize_with = "units::optional_path")]
    pub tls_key_file: Option<PathBuf>,
    /// Holds the token for what the admin listener does not show everybody.
    #[serde(deserialize_with = "units::optional_path")]
    pub admin_token_file: Option<PathBuf>,
    /// Where the store and the keys live.
    pub data_dir: PathBuf,
    /// Scheme, host and port that clients use, without a trailing slash. Empty only when `listen`
    /// is a specified address; then it is `http://<listen>`, with TLS
    /// `https://<listen>`.
    pub public_url: String,
    /// Peers whose `Forwarded` and `X-Forwarded-*` are believed and appended to.
    #[serde(deserialize_with = "units::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// How long a stopping node waits for what it holds.
    #[serde(deserialize_with = "units::duration")]
    pub drain_timeout: Duration,
    /// Largest body of a call that becomes a task.
    #[serde(deserialize_with = "units::bytes")]
    pub max_body_bytes: u64,
    /// Largest body of a proxied call; 0 means no limit.
    #[serde(deserialize_with = "units::bytes")]
    pub max_proxy_body_bytes: u64,
    /// Bodies of calls being accepted, all together, held in memory.
    #[serde(deserialize_with = "units::bytes")]
    pub max_buffered_bytes: u64,
    /// Longest request target.
    #[serde(deserialize_with = "units::bytes")]
    pub max_uri_bytes: u64,
    /// All header lines of a call together.
    #[serde(deserialize_with = "units::bytes")]
    pub max_header_bytes: u64,
    /// Time a client has to send its header section.
    #[serde(deserialize_with = "units::duration")]
    pub header_timeout: Duration,
    /// Longest pause between two pieces of a task's body.
    #[serde(deserialize_with = "units::duration")]
    pub body_timeout: Duration,
    /// Longest whole body of a task, however it comes.
    #[serde(deserialize_with = "units::duration")]
    pub body_total_timeout: Duration,
    /// How long a client may take nothing of what is there for it.
    #[serde(deserialize_with = "units::duration")]
    pub stall_timeout: Duration,
    /// Open client connections.
    pub max_connections: usize,
    /// Calls in progress, over all connections; above it they are refused with 503.
    pub max_calls: usize,
    /// The same with one credential; above it 429.
    pub max_calls_per_credentials: usize,
    /// Longest a call waits for a task to end (`Prefer: wait`).
    #[serde(deserialize_with = "units::duration")]
    pub max_wait: Duration,
    /// Calls at once that wait for a task to change, streams included.
    pub max_waiters: usize,
    /// Pause after which a stream of status changes says that it is alive.
    #[serde(deserialize_with = "units::duration")]
    pub stream_heartbeat: Duration,
    /// Tasks neither Succeeded nor Failed; above it a call is refused with 503.
    pub max_queued_tasks: u64,
    /// The same of one credentials id at one upstream; above it its calls are refused with 429.
    pub max_queued_per_credentials: u64,
    /// Runtime threads; 0 chooses by the machine: one up to two cores, else one fewer than cores.
    pub threads: usize,
}

impl ServerConfig {
    /// Takes the address that was really bound as public URL, unless one is configured or nobody
    /// can call that address.
    pub fn derive_public_url(&mut self, bound: SocketAddr) {
        if self.public_url.is_empty() && !bound.ip().is_unspecified() {
            let scheme = if self.tls_cert_file.is_some() { "https" } else { "http" };
            self.public_url = format!("{scheme}://{bound}");
        }
    }
}
