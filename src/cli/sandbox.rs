//! `ringback sandbox`: a mock bank, a node in front of it and a webhook inbox, in one process.
//!
//! Its own configuration lies under the person's file, so that every delay and limit can be tried.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use clap::Args;

use super::guide::Guide;
use super::{CommandError, LogArgs, environment, flag, print, serve, warn_of_relaxations};
use crate::config::{Config, Sources};
use crate::service::{self, Extra, StartError};

const LISTEN: SocketAddr = loopback(8080);
const ADMIN_LISTEN: SocketAddr = loopback(8081);
const UPSTREAM: &str = "bank";

#[derive(Args)]
pub struct Sandbox {
    /// Where the gateway listens [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS", value_parser = super::address)]
    listen: Option<SocketAddr>,
    /// Where /livez, /readyz and /metrics answer [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDRESS", value_parser = super::address)]
    admin_listen: Option<SocketAddr>,
    /// Where the bank listens.
    #[arg(long, value_name = "ADDRESS", value_parser = super::address, default_value_t = loopback(8090))]
    bank_listen: SocketAddr,
    /// Where the webhook inbox listens.
    #[arg(long, value_name = "ADDRESS", value_parser = super::address, default_value_t = loopback(8091))]
    inbox_listen: SocketAddr,
    /// Directory of the bank's and the node's keys and of the store [default: ringback-sandbox].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Configuration file laid over the sandbox's own, key by key.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Sandbox {
    pub fn run(self) -> Result<(), CommandError> {
        self.log.start()?;
        let (bank_listener, bank_address) = bind(self.bank_listen)?;
        let (inbox_listener, inbox_address) = bind(self.inbox_listen)?;
        let mut config = Config::load(self.sources(bank_address))?;
        warn_of_relaxations(&config);
        let listeners = serve::bind(&mut config)?;
        let bank = ::sandbox::Bank::open(&config.server.data_dir.join("bank"))?;
        let inbox = ::sandbox::Inbox::new();
        let guide = Guide::new(&config, UPSTREAM, bank_address, inbox_address);
        let extras = vec![
            Extra {
                name: "bank",
                listener: bank_listener,
                serve: Box::new(move |listener, stop| Box::pin(bank.serve(listener, stop))),
            },
            Extra {
                name: "inbox",
                listener: inbox_listener,
                serve: Box::new(move |listener, stop| Box::pin(inbox.serve(listener, stop))),
            },
        ];
        Ok(service::run(config, listeners, extras, || {
            // A guide nobody can read is no reason to stop.
            let _ = guide.map(|guide| print(&guide.text()));
        })?)
    }

    /// Flags that were typed lie above the file, the sandbox's own settings below it.
    fn sources(self, bank: SocketAddr) -> Sources {
        let base = base(self.listen.unwrap_or(LISTEN), bank);
        let flags = [
            flag("--listen", "server.listen", self.listen.map(|address| address.to_string())),
            flag(
                "--admin-listen",
                "server.admin_listen",
                self.admin_listen.map(|address| address.to_string()),
            ),
            flag("--data-dir", "server.data_dir", self.data_dir.map(|dir| dir.display().to_string())),
        ];
        Sources {
            base: Some(base),
            file: self.config,
            env: environment(),
            flags: flags.into_iter().flatten().collect(),
            dev: false,
        }
    }
}

/// The sandbox's own configuration.
fn base(listen: SocketAddr, bank: SocketAddr) -> String {
    // A container listens on every address; its person calls the published port on their own.
    let public_url = match listen.port() {
        port if listen.ip().is_unspecified() && port != 0 => {
            format!("public_url = \"http://{}\"\n", callable(listen))
        }
        _ => String::new(),
    };
    format!(
        "[server]\nlisten = \"{LISTEN}\"\nadmin_listen = \"{ADMIN_LISTEN}\"\ndata_dir = \"ringback-sandbox\"\n\
         {public_url}\n\
         [[upstreams]]\nname = \"{UPSTREAM}\"\nprefix = \"/data/v1\"\nurl = \"http://{bank}/data/v1\"\n\n\
         [upstreams.identity]\nmode = \"jwt\"\njwks_url = \"http://{bank}{jwks}\"\nissuer = \"{issuer}\"\n\
         audience = \"{audience}\"\nclaim = \"sub\"\n\n\
         [upstreams.retry]\ndelays = [\"200ms\", \"500ms\", \"1s\", \"2s\", \"4s\", \"8s\"]\n\n\
         [webhooks]\nallow_loopback = true\n",
        jwks = ::sandbox::JWKS_PATH,
        issuer = ::sandbox::ISSUER,
        audience = ::sandbox::AUDIENCE,
    )
}

/// A listener and the address under which this machine calls it.
fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let listener = service::bind(address)?;
    let bound = listener.local_addr().unwrap_or(address);
    Ok((listener, callable(bound)))
}

/// Nobody calls an unspecified address; loopback is one of those it stands for.
fn callable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(address) if address.ip().is_unspecified() => loopback(address.port()),
        SocketAddr::V6(address) if address.ip().is_unspecified() => {
            SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IdentityMode;

    #[test]
    fn its_own_configuration_is_a_good_one() {
        let base = base(loopback(0), loopback(9));
        let config = Config::load(Sources { base: Some(base), ..Sources::default() });
        let config = config.unwrap_or_else(|errors| panic!("{errors}"));
        let bank = &config.upstreams[0];
        assert_eq!((bank.prefix.as_str(), bank.url.as_str()), ("/data/v1", "http://127.0.0.1:9/data/v1"));
        assert_eq!(bank.identity.mode, IdentityMode::Jwt);
        assert!(config.webhooks.allow_loopback);
        assert!(!config.webhooks.allow_http);
    }

    #[test]
    fn on_every_address_it_is_called_on_this_machine() {
        let every = SocketAddr::from(([0, 0, 0, 0], 8080));
        let base = base(every, loopback(9));
        let flags = flag("--listen", "server.listen", Some(every.to_string())).into_iter().collect();
        let config = Config::load(Sources { base: Some(base), flags, ..Sources::default() });
        let config = config.unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(config.server.public_url, "http://127.0.0.1:8080");
    }
}
