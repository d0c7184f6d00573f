//! The commands a person types, one file each. Here: the flags they share and how they fail.

pub mod call;
mod check;
mod check_uri;
mod compact;
mod erase;
mod guide;
mod keys;
pub mod listen;
mod remote;
mod sandbox;
mod screen;
mod serve;

use std::env;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing::level_filters::LevelFilter;

use crate::config::{Config, ConfigErrors, Flag, Sources};
use crate::seal::KeyFileError;
use crate::service::StartError;
use crate::store::OpenError;

/// Used without being named when it exists.
const DEFAULT_FILE: &str = "ringback.toml";

/// An asynchronous mode for any HTTP API: call now, hang up, be rung back.
#[derive(Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node in front of one or more APIs.
    Serve(serve::Serve),
    /// Say whether a configuration is good and what it resolves to.
    Check(check::Check),
    /// Say whether a webhook may be sent to a URI, and which rule says so.
    CheckUri(check_uri::CheckUri),
    /// Make, list and rotate the keys that seal the store and sign webhooks.
    Keys(keys::Keys),
    /// Remove everything that is kept about one credentials id. The node must be stopped.
    Erase(erase::Erase),
    /// Give the space that retention made free back to the disk. The node must be stopped.
    Compact(compact::Compact),
    /// Make a call asynchronously, follow its task and bring the result.
    Call(call::Call),
    /// Receive webhooks during development: print them, pass them on, fetch their results.
    Listen(listen::Listen),
    /// Try Ringback: a mock bank, the gateway in front of it and a webhook inbox in one process.
    Sandbox(sandbox::Sandbox),
}

/// Why a command failed: one sentence, or one a line.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Bank(#[from] ::sandbox::BankError),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    #[error("the store {0} exists and has its keys; `ringback keys rotate sealing` adds one")]
    KeysOfAStore(PathBuf),
    #[error(transparent)]
    Remote(#[from] remote::RemoteError),
    #[error(transparent)]
    Call(#[from] call::CallError),
    #[error(transparent)]
    Trust(#[from] listen::TrustError),
    #[error("RINGBACK_LOG must be one of error, warn, info, debug and trace")]
    LogLevel,
    #[error("cannot write to the standard output: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// 1, unless the command has more to tell.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Call(error) => error.exit_code(),
            _ => 1,
        }
    }
}

impl Cli {
    /// Runs the command to its end; the code is what the command answers, where it answers by code.
    ///
    /// # Errors
    /// One or more lines for a person; nothing has been left running.
    pub fn run(self) -> Result<ExitCode, CommandError> {
        match self.command {
            Command::Serve(serve) => serve.run()?,
            Command::Check(check) => check.run()?,
            Command::CheckUri(check) => return check.run(),
            Command::Keys(keys) => keys.run()?,
            Command::Erase(erase) => erase.run()?,
            Command::Compact(compact) => compact.run()?,
            Command::Call(call) => call.run()?,
            Command::Listen(listen) => listen.run()?,
            Command::Sandbox(sandbox) => sandbox.run()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where the configuration comes from and what is laid over it.
#[derive(Args)]
struct ConfigArgs {
    /// Configuration file; without it ./ringback.toml is used where that exists.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The API to serve, as `http://host:port`; with it no file is needed.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Where calls arrive [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Where /livez, /readyz and /metrics answer [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    admin_listen: Option<SocketAddr>,
    /// Directory of the store and the keys [default: ringback-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// For development only: no identity unless configured, webhooks to this machine.
    #[arg(long)]
    dev: bool,
}

impl ConfigArgs {
    /// For commands that look after a node's data or rules and call no upstream: without a file, the
    /// flags and variables alone will do.
    fn load_node(self) -> Result<Config, ConfigErrors> {
        let mut sources = self.sources();
        if sources.file.is_none() {
            sources.base = Some(String::from("[[upstreams]]\nurl = \"http://127.0.0.1\"\n"));
        }
        Config::load(sources)
    }

    fn sources(self) -> Sources {
        let file = self.config.or_else(|| Path::new(DEFAULT_FILE).exists().then(|| DEFAULT_FILE.into()));
        let flags = [
            flag("--upstream", "upstreams.0.url", self.upstream),
            flag("--listen", "server.listen", self.listen.map(|address| address.to_string())),
            flag(
                "--admin-listen",
                "server.admin_listen",
                self.admin_listen.map(|address| address.to_string()),
            ),
            flag("--data-dir", "server.data_dir", self.data_dir.map(|dir| dir.display().to_string())),
        ];
        Sources {
            base: None,
            file,
            env: environment(),
            flags: flags.into_iter().flatten().collect(),
            dev: self.dev,
        }
    }
}

fn flag(name: &'static str, key: &'static str, value: Option<String>) -> Option<Flag> {
    value.map(|value| Flag { name, key, value })
}

/// Variables that are not text cannot be settings.
fn environment() -> Vec<(String, String)> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

#[derive(Args)]
struct LogArgs {
    /// Log error, warn, info, debug or trace; also `RINGBACK_LOG` [default: info].
    #[arg(long, value_name = "LEVEL", ignore_case = true, hide_possible_values = true)]
    log_level: Option<LogLevel>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogArgs {
    /// The flag, else the variable, else `info`.
    fn level(&self, variable: Option<&str>) -> Result<LevelFilter, CommandError> {
        let level = match (self.log_level, variable.filter(|text| !text.is_empty())) {
            (Some(level), _) => level,
            (None, Some(text)) => LogLevel::from_str(text, true).map_err(|_| CommandError::LogLevel)?,
            (None, None) => LogLevel::Info,
        };
        Ok(match level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        })
    }

    fn start(&self) -> Result<(), CommandError> {
        crate::telemetry::logs::init(self.level(env::var("RINGBACK_LOG").ok().as_deref())?);
        Ok(())
    }
}

/// Writes to the standard output. A reader who has gone away is no failure.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// An address to listen on, with an example for whoever types only a port.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| String::from("write an address and a port, such as 127.0.0.1:8080"))
}

/// As [`print()`], each line with its end.
fn print_lines(lines: &[String]) -> io::Result<()> {
    print(&(lines.join("\n") + "\n"))
}

/// Says loudly what is not safe in the open.
fn warn_of_relaxations(config: &Config) {
    for sentence in config.relaxations() {
        tracing::warn!("{sentence}");
    }
}

#[cfg(test)]
mod tests;
