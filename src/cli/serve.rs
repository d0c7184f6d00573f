//! `ringback serve`: one node, until it is told to stop.

use clap::Args;

use super::{CommandError, ConfigArgs, LogArgs, warn_of_relaxations};
use crate::config::Config;
use crate::service::{self, Listeners, StartError};

#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    #[command(flatten)]
    log: LogArgs,
}

impl Serve {
    pub fn run(self) -> Result<(), CommandError> {
        self.log.start()?;
        let mut config = Config::load(self.config.sources())?;
        warn_of_relaxations(&config);
        let listeners = bind(&mut config)?;
        Ok(service::run(config, listeners, Vec::new(), || {})?)
    }
}

/// Binds the node's listeners. A port 0 becomes a real one, in the configuration too: the public URL
/// is made of it.
pub fn bind(config: &mut Config) -> Result<Listeners, StartError> {
    let listeners = Listeners::bind(&config.server)?;
    let server = &mut config.server;
    server.listen = listeners.gateway.local_addr().unwrap_or(server.listen);
    server.admin_listen = listeners.admin.local_addr().unwrap_or(server.admin_listen);
    server.derive_public_url(server.listen);
    Ok(listeners)
}
