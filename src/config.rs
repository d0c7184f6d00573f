//! Every setting of a node, after reading, overlaying and checking.
//!
//! `config.default.toml` holds each key with its unit and default and is compiled in. A person's
//! file, then `RINGBACK_…__…` environment variables, then command-line flags are laid over it key
//! by key. Unknown keys and contradictions refuse to start; what leaves this module is consistent.

mod checks;
mod error;
mod files;
mod load;
mod overlay;
mod places;
mod retention;
mod server;
mod shown;
mod sources;
mod store;
mod tree;
mod units;
mod upstream;
mod webhooks;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, ConfigErrors, Problem};
pub use load::{DEFAULTS, Loaded};
pub use retention::RetentionConfig;
pub use server::ServerConfig;
pub use sources::{Flag, Sources};
pub use store::StoreConfig;
pub use upstream::{
    ClientAuth, CorsConfig, HeadersConfig, IdentityConfig, IdentityMode, RetryConfig, UpstreamConfig,
};
pub use webhooks::{SignatureScheme, WebhooksConfig};

use serde::Deserialize;

/// A checked configuration.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub server: ServerConfig,
    pub store: StoreConfig,
    pub upstreams: Vec<UpstreamConfig>,
    pub webhooks: WebhooksConfig,
    pub retention: RetentionConfig,
}

impl Config {
    /// Reads, overlays and checks. The only I/O is reading the files that `sources` names.
    ///
    /// # Errors
    /// Every problem found, each with the place it was written at.
    pub fn load(sources: Sources) -> Result<Self, ConfigErrors> {
        load::load(sources).map(|loaded| loaded.config)
    }

    /// [`Config::load`], and how the result reads.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_shown(sources: Sources) -> Result<Loaded, ConfigErrors> {
        load::load(sources)
    }

    /// `text` as the person's file, over the defaults; no environment and no flags.
    ///
    /// # Errors
    /// As [`Config::load`]; places say `ringback.toml`.
    pub fn from_toml(text: &str) -> Result<Self, ConfigErrors> {
        load::from_text(text).map(|loaded| loaded.config)
    }

    /// Fills in what follows from other keys, in the one spelling the rest relies on: no slash at
    /// the end of a URL, a name for each upstream, the address as public URL where it is one.
    fn complete(&mut self) {
        self.note_own_listeners();
        let server = &mut self.server;
        server.public_url.truncate(server.public_url.trim_end_matches('/').len());
        if server.listen.port() != 0 {
            server.derive_public_url(server.listen);
        }
        for upstream in &mut self.upstreams {
            upstream.url.truncate(upstream.url.trim_end_matches('/').len());
            if upstream.name.is_empty() {
                upstream.name.clone_from(&upstream.prefix);
            }
        }
    }

    /// Tells the address guard where this node listens; again once the addresses are bound.
    pub fn note_own_listeners(&mut self) {
        self.webhooks.own_listeners = vec![self.server.listen, self.server.admin_listen];
    }

    /// What this configuration allows although it is not safe in the open, a sentence each.
    #[must_use]
    pub fn relaxations(&self) -> Vec<String> {
        let mut said = Vec::new();
        for upstream in &self.upstreams {
            if upstream.identity.mode == IdentityMode::None {
                said.push(format!(
                    "upstream `{}` has identity mode `none`: whoever reaches this node can read every result",
                    upstream.name
                ));
            }
        }
        if self.webhooks.allow_loopback {
            said.push(String::from(
                "webhooks may be sent to programs on this machine, over http and to any port",
            ));
        }
        if self.webhooks.allow_http {
            said.push(String::from("webhooks may be sent over http, readable on their way"));
        }
        if self.webhooks.signatures.is_empty() {
            said.push(String::from("webhooks are not signed: receivers cannot know who sent them"));
        }
        said
    }
}
