//! What the command line understands, and what it makes of it.

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::*;
use crate::config::IdentityMode;

fn parsed(line: &str) -> Result<Cli, ErrorKind> {
    Cli::try_parse_from(line.split(' ')).map_err(|error| error.kind())
}

fn serve_config(line: &str) -> Config {
    let Ok(Cli { command: Command::Serve(serve) }) = parsed(line) else { panic!("not understood: {line}") };
    let sources = Sources { file: None, env: Vec::new(), ..serve.config.sources() };
    Config::load(sources).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_documented_flag_is_understood() {
    for line in [
        "ringback serve",
        "ringback serve --config f.toml --upstream http://a:1 --listen 127.0.0.1:1 --admin-listen [::1]:2 --data-dir d --dev --log-level debug",
        "ringback check --config f.toml",
        "ringback check --upstream http://a:1 --listen 127.0.0.1:1 --admin-listen 127.0.0.1:2 --data-dir d --dev",
        "ringback sandbox",
        "ringback call GET http://a/",
        "ringback call post http://a/ -H A:b --header C:d -d x -o f --webhook-uri http://b/ --token-file t --ca-file c --timeout 5s --json",
        "ringback keys new --data-dir d",
        "ringback keys list --config f",
        "ringback keys rotate sealing",
        "ringback keys rotate webhook --overlap 2h --data-dir d",
        "ringback keys show webhook",
        "ringback keys reseal",
        "ringback erase --credentials-id a --data-dir d",
        "ringback check-uri https://a/b?c --config f --dev",
        "ringback listen",
        "ringback listen --listen 127.0.0.1:0 --forward http://a/ --fetch --gateway http://b --token-file t --ca-file c --json",
        "ringback sandbox --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --bank-listen 127.0.0.1:0 --inbox-listen 127.0.0.1:0 --data-dir d --config f --log-level TRACE",
    ] {
        assert!(parsed(line).is_ok(), "{line}");
    }
}

#[test]
fn a_misspelled_flag_is_a_usage_error() {
    assert_eq!(parsed("ringback serve --upstrem x").err(), Some(ErrorKind::UnknownArgument));
    assert_eq!(parsed("ringback serve --listen nowhere").err(), Some(ErrorKind::ValueValidation));
    assert_eq!(parsed("ringback sandbox --log-level loud").err(), Some(ErrorKind::InvalidValue));
    assert_eq!(parsed("ringback launch").err(), Some(ErrorKind::InvalidSubcommand));
}

#[test]
fn with_just_an_upstream_the_api_is_served_under_the_root() {
    let config = serve_config("ringback serve --upstream http://127.0.0.1:9000");
    let upstream = &config.upstreams[0];
    assert_eq!((upstream.prefix.as_str(), upstream.url.as_str()), ("/", "http://127.0.0.1:9000"));
    assert_eq!(upstream.identity.mode, IdentityMode::Opaque);
    assert_eq!(config.server.data_dir, Path::new("ringback-data"));
    assert!(!config.webhooks.allow_loopback);
}

#[test]
fn flags_reach_their_keys() {
    let config = serve_config(
        "ringback serve --upstream http://a --listen 127.0.0.1:1 --admin-listen 127.0.0.1:2 --data-dir d --dev",
    );
    assert_eq!(config.server.listen.port(), 1);
    assert_eq!(config.server.admin_listen.port(), 2);
    assert_eq!(config.server.data_dir, Path::new("d"));
    assert_eq!(config.upstreams[0].identity.mode, IdentityMode::None);
    assert!(config.webhooks.allow_loopback);
}

#[test]
fn the_log_level_is_the_flag_else_the_variable_else_info() {
    let args = |log_level| LogArgs { log_level };
    assert_eq!(args(Some(LogLevel::Warn)).level(Some("debug")).unwrap(), LevelFilter::WARN);
    assert_eq!(args(None).level(Some("Debug")).unwrap(), LevelFilter::DEBUG);
    assert_eq!(args(None).level(Some("")).unwrap(), LevelFilter::INFO);
    assert_eq!(args(None).level(None).unwrap(), LevelFilter::INFO);
    assert!(args(None).level(Some("loud")).is_err());
}
