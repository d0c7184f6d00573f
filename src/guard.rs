//! Which receivers a webhook may be sent to.
//!
//! Webhook URIs are hostile input. This module is one table of rules, asked twice: when a URI is
//! submitted, by what it says alone, and when a connection is made, by every address its host
//! resolved to. It resolves nothing and dials nothing. Denied is what is not allowed: no address
//! that is not public, no scheme and no port the configuration does not name.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::config::WebhooksConfig;

/// The rule that keeps a node from calling itself, which would put its own calls in a stranger's hands.
const OWN_LISTENER: &str = "own_listener";

mod addresses;
mod uri;
mod zone;

pub use uri::{Receiver, UriRefusal, WebhookUri};
pub use zone::zone;

/// What the table says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    /// The rule that decided; stable, snake case.
    pub rule: &'static str,
}

impl Verdict {
    fn allowed(rule: &'static str) -> Self {
        Self { allowed: true, rule }
    }

    fn denied(rule: &'static str) -> Self {
        Self { allowed: false, rule }
    }
}

/// The rule table with what the configuration allows beyond it.
pub struct Rules {
    networks: Vec<IpNet>,
    /// Lower case.
    hosts: Vec<String>,
    ports: Vec<u16>,
    allow_http: bool,
    allow_loopback: bool,
    /// Where this node listens.
    own: Vec<SocketAddr>,
}

impl Rules {
    #[must_use]
    pub fn new(config: &WebhooksConfig) -> Self {
        Self {
            networks: config.allow_networks.clone(),
            hosts: config.allow_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            ports: config.ports.clone(),
            allow_http: config.allow_http,
            allow_loopback: config.allow_loopback,
            own: config.own_listeners.clone(),
        }
    }

    /// Whether an address may be dialled, whoever names it.
    #[must_use]
    pub fn judge_address(&self, address: IpAddr) -> Verdict {
        if self.is_allowed_loopback(address) {
            return Verdict::allowed("allow_loopback");
        }
        // An address inside the well-known NAT64 prefix is the IPv4 address it holds.
        let holds = match address {
            IpAddr::V6(outer) => addresses::nat64(outer).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        let named = |address: IpAddr| self.networks.iter().any(|network| network.contains(&address));
        if named(address) || holds.is_some_and(named) {
            return Verdict::allowed("allow_networks");
        }
        addresses::denial(address).map_or(Verdict::allowed("public"), Verdict::denied)
    }

    /// Whether a connection may be made: one denied address denies the host.
    ///
    /// # Errors
    /// The rule that denied.
    pub fn judge_connection(
        &self,
        tls: bool,
        host: &str,
        addresses: &[SocketAddr],
    ) -> Result<(), &'static str> {
        for address in addresses {
            let verdict = self.judge_destination(tls, host, *address);
            if !verdict.allowed {
                return Err(verdict.rule);
            }
        }
        if addresses.is_empty() { Err("no_address") } else { Ok(()) }
    }

    /// Judges a connection that was made, before anything is written to it: a node that listens on all
    /// addresses of its machine knows them only by being connected to itself.
    ///
    /// # Errors
    /// The rule that denied.
    pub fn judge_socket(&self, local: SocketAddr, peer: SocketAddr) -> Result<(), &'static str> {
        let (from, to) = (local.ip().to_canonical(), peer.ip().to_canonical());
        let is_this_machine = from == to || (from.is_loopback() && to.is_loopback());
        let is_ours = self.own.iter().any(|own| own.port() == peer.port() && own.ip().is_unspecified());
        if (is_this_machine && is_ours) || self.is_own(peer) { Err(OWN_LISTENER) } else { Ok(()) }
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        let ip = addresses::innermost(address.ip());
        self.own.iter().any(|own| {
            let at = own.ip().to_canonical();
            // Who dials the unspecified address is connected to loopback.
            let is_local = at.is_loopback() && ip.is_unspecified();
            let is_any = at.is_unspecified() && (ip.is_loopback() || ip.is_unspecified());
            own.port() == address.port() && (at == ip || is_local || is_any)
        })
    }

    /// Whether a connection to this address of `host` may be made.
    #[must_use]
    pub fn judge_destination(&self, tls: bool, host: &str, address: SocketAddr) -> Verdict {
        if self.is_own(address) {
            return Verdict::denied(OWN_LISTENER);
        }
        let verdict = self.judge_address(address.ip());
        // A name promises nothing about where it leads, so the freedom of loopback receivers depends
        // on the address itself.
        if self.is_allowed_loopback(address.ip()) {
            return verdict;
        }
        match self.judge_scheme_and_port(tls, address.port()) {
            Err(rule) => Verdict::denied(rule),
            Ok(()) if !verdict.allowed && self.is_allowed_host(host) => Verdict::allowed("allow_hosts"),
            Ok(()) => verdict,
        }
    }

    fn judge_scheme_and_port(&self, tls: bool, port: u16) -> Result<(), &'static str> {
        if !tls && !self.allow_http {
            return Err("scheme");
        }
        if self.ports.contains(&port) { Ok(()) } else { Err("port") }
    }

    fn is_allowed_host(&self, host: &str) -> bool {
        self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }

    fn is_allowed_loopback(&self, address: IpAddr) -> bool {
        self.allow_loopback && address.is_loopback()
    }

    /// Loopback as far as text can tell; connecting looks at the address.
    fn is_allowed_loopback_host(&self, host: &str) -> bool {
        let name = host.to_ascii_lowercase();
        self.allow_loopback && (name == "localhost" || name.ends_with(".localhost"))
    }
}

#[cfg(test)]
pub(crate) mod tests;
