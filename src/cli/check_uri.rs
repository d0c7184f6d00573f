//! `ringback check-uri`: whether a webhook may be sent to a URI, and which rule says so.
//!
//! The same rules as at submit and at connecting, and the machine's own resolver. Exits 0 allowed,
//! 3 denied, 2 not a usable URI, 4 does not resolve.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;

use super::{CommandError, ConfigArgs, print_lines};
use crate::guard::{Rules, UriRefusal, WebhookUri};

const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

#[derive(Args)]
pub struct CheckUri {
    /// The webhook URI, not encoded again.
    uri: String,
    #[command(flatten)]
    config: ConfigArgs,
}

/// The answer in one word, and as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Allowed = 0,
    NotUsable = 2,
    Denied = 3,
    Unresolved = 4,
}

impl CheckUri {
    pub fn run(self) -> Result<ExitCode, CommandError> {
        let rules = Rules::new(&self.config.load_node()?.webhooks);
        let (lines, answer) = judge(&self.uri, &rules, resolve);
        print_lines(&lines)?;
        Ok(ExitCode::from(answer as u8))
    }
}

/// What to print, and the answer.
fn judge(
    uri: &str,
    rules: &Rules,
    resolve: impl FnOnce(&str, u16) -> Option<Vec<SocketAddr>>,
) -> (Vec<String>, Answer) {
    let uri = match WebhookUri::parse(uri, rules) {
        Ok(uri) => uri,
        Err(refusal) => return judge_refusal(uri, refusal),
    };
    let Some(addresses) = resolve(uri.host(), uri.port()).filter(|found| !found.is_empty()) else {
        return (vec![format!("{} does not resolve", uri.host())], Answer::Unresolved);
    };
    let mut lines = Vec::new();
    for address in &addresses {
        let verdict = rules.judge_destination(uri.tls(), uri.host(), *address);
        let word = if verdict.allowed { "allowed" } else { "denied" };
        lines.push(format!("{} {word} by rule {}", address.ip(), verdict.rule));
    }
    let answer = match rules.judge_connection(uri.tls(), uri.host(), &addresses) {
        Ok(()) => {
            lines.push(String::from("allowed"));
            Answer::Allowed
        }
        Err(rule) => {
            lines.push(format!("denied by rule {rule}: one denied address denies the name"));
            Answer::Denied
        }
    };
    (lines, answer)
}

/// A text that no rule would ever let pass is no webhook URI; the others are denied.
fn judge_refusal(uri: &str, refusal: UriRefusal) -> (Vec<String>, Answer) {
    let is_http = uri.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http:"));
    let rule = match refusal {
        UriRefusal::Address(rule) => rule,
        UriRefusal::Port => "port",
        UriRefusal::Scheme if is_http => "scheme",
        refusal => return (vec![format!("not a webhook URI: it {refusal}")], Answer::NotUsable),
    };
    (vec![format!("denied by rule {rule}: it {refusal}")], Answer::Denied)
}

/// On a thread of its own: a resolver cannot be interrupted.
fn resolve(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let (found, answer) = mpsc::channel();
    let host = host.to_owned();
    std::thread::spawn(move || {
        let addresses = (host.as_str(), port).to_socket_addrs().ok();
        // Nobody waits any more when the limit has passed.
        let _ = found.send(addresses.map(Iterator::collect));
    });
    answer.recv_timeout(LOOKUP_LIMIT).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WebhooksConfig;
    use crate::guard::tests::{config, loopback_config};

    fn judged(uri: &str, config: &WebhooksConfig, addresses: &[&str]) -> (String, Answer) {
        let (lines, answer) = judge(uri, &Rules::new(config), |host, port| {
            let literal = host.parse().ok().map(|ip| vec![SocketAddr::new(ip, port)]);
            let listed = addresses.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
            literal.or_else(|| (!addresses.is_empty()).then(|| listed.collect()))
        });
        (lines.join("\n"), answer)
    }

    #[test]
    fn every_address_is_listed_with_its_rule_and_one_denied_denies_all() {
        let (text, answer) =
            judged("https://a.test/x?secret", &config(), &["8.8.8.8", "10.0.0.1", "fe80::1"]);
        assert_eq!(answer, Answer::Denied);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "8.8.8.8 allowed by rule public",
                "10.0.0.1 denied by rule private",
                "fe80::1 denied by rule link_local"
            ]
        );
        assert!(lines[3].starts_with("denied by rule private"));
        assert!(!text.contains("secret"));
    }

    #[test]
    fn each_answer_has_its_exit_code() {
        for (uri, addresses, answer) in [
            ("https://a.test/", &["8.8.8.8"][..], Answer::Allowed),
            ("https://8.8.8.8/", &[], Answer::Allowed),
            ("https://127.0.0.1/", &[], Answer::Denied),
            ("https://[::ffff:8.8.8.8]/", &[], Answer::Denied),
            ("http://a.test/", &["8.8.8.8"], Answer::Denied),
            ("https://a.test:22/", &["8.8.8.8"], Answer::Denied),
            ("https://a.test/", &[], Answer::Unresolved),
            ("ftp://a.test/", &["8.8.8.8"], Answer::NotUsable),
            ("https://u@a.test/", &["8.8.8.8"], Answer::NotUsable),
            ("https://0x7f000001/", &["8.8.8.8"], Answer::NotUsable),
            ("a.test", &["8.8.8.8"], Answer::NotUsable),
            ("", &[], Answer::NotUsable),
        ] {
            let (text, judged) = judged(uri, &config(), addresses);
            assert_eq!(judged, answer, "{uri}: {text}");
        }
        assert_eq!(
            [0, 2, 3, 4],
            [Answer::Allowed, Answer::NotUsable, Answer::Denied, Answer::Unresolved].map(|a| a as u8)
        );
    }

    #[test]
    fn the_configuration_decides() {
        assert_eq!(judged("http://localhost:9/", &loopback_config(), &["127.0.0.1"]).1, Answer::Allowed);
        assert_eq!(judged("http://localhost:9/", &config(), &["127.0.0.1"]).1, Answer::Denied);
        let named = WebhooksConfig { allow_hosts: vec![String::from("in.test")], ..config() };
        let (text, answer) = judged("https://in.test/", &named, &["10.0.0.1"]);
        assert_eq!(
            (text.as_str(), answer),
            ("10.0.0.1 allowed by rule allow_hosts\nallowed", Answer::Allowed)
        );
    }
}
