//! `[webhooks]`: how results are announced, and which receivers are allowed.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use super::units;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhooksConfig {
    /// One entry a retry, at most six.
    #[serde(deserialize_with = "units::durations")]
    pub delays: Vec<Duration>,
    /// Each delay is moved by up to this fraction of itself, either way.
    pub jitter: f64,
    /// One whole delivery attempt, resolution and connecting included.
    #[serde(deserialize_with = "units::duration")]
    pub timeout: Duration,
    pub allow_http: bool,
    /// Networks allowed although they are not public.
    #[serde(deserialize_with = "units::networks")]
    pub allow_networks: Vec<IpNet>,
    /// Host names allowed whatever they resolve to.
    pub allow_hosts: Vec<String>,
    pub ports: Vec<u16>,
    /// For development: loopback receivers over http and on any port.
    pub allow_loopback: bool,
    /// How webhooks are signed, every one by each of these.
    pub signatures: Vec<SignatureScheme>,
    /// Where the gateway serves the public keys.
    pub jwks_path: String,
    /// Delivery attempts in flight at once.
    pub concurrency: usize,
    /// … to one receiver host.
    pub per_host_concurrency: usize,
    /// Where this node itself listens; never a receiver. Follows from `server`.
    #[serde(skip)]
    pub(crate) own_listeners: Vec<SocketAddr>,
}

/// A scheme of the Standard Webhooks specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum SignatureScheme {
    /// HMAC-SHA256 with a secret that receivers share.
    #[serde(rename = "v1")]
    V1,
    /// ed25519 with public keys at `jwks_path`.
    #[serde(rename = "v1a")]
    V1a,
}
