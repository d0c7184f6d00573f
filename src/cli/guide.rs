//! What the sandbox prints: commands to paste, with the real addresses.
//!
//! No command holds a comment or a tool beyond `curl` and `sed`, so that any shell takes them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::Config;

/// The mock users that make trouble, and the trouble.
const USERS: [(&str, &str); 6] = [
    ("john, jane, …", "all goes well; each name has money of its own"),
    ("flaky", "each call fails twice, then succeeds: watch the retries"),
    ("limited", "429 with Retry-After: 2, once a call"),
    ("slow", "8 seconds an answer"),
    ("broken", "every answer breaks off: ends Failed, retries_exhausted"),
    ("error.<code>", "always that error, such as error.provider_error"),
];

pub struct Guide {
    /// Where the bank's API is called through the gateway.
    api: String,
    admin: SocketAddr,
    bank: SocketAddr,
    inbox: SocketAddr,
    data_dir: PathBuf,
}

impl Guide {
    /// `None` when the configuration no longer has the upstream that the commands call.
    pub fn new(config: &Config, upstream: &str, bank: SocketAddr, inbox: SocketAddr) -> Option<Self> {
        let upstream = config.upstreams.iter().find(|candidate| candidate.name == upstream)?;
        let api = format!("{}{}", config.server.public_url, upstream.prefix.trim_end_matches('/'));
        let server = &config.server;
        Some(Self { api, admin: server.admin_listen, bank, inbox, data_dir: server.data_dir.clone() })
    }

    /// The whole page.
    pub fn text(&self) -> String {
        let Self { api, admin, bank, inbox, .. } = self;
        let mut text = format!(
            r#"
Ringback sandbox: a mock bank, Ringback in front of it, an inbox for webhooks.

  gateway  {api}
  bank     http://{bank}
  inbox    http://{inbox}
  admin    http://{admin}/metrics

1. Get a token, as the bank's user john:

TOKEN=$(curl -s http://{bank}{token_path} -d grant_type=authorization_code -d code=john \
  -d client_id=me -d client_secret=me | sed -n 's/.*"access_token": *"\([^"]*\)".*/\1/p')

2. Call asynchronously, and ask for a webhook:

ANSWER=$(curl -s -H "Authorization: Bearer $TOKEN" \
  "{api}/accounts?async=true&webhook_uri=http://{inbox}/hello")
echo "$ANSWER"

3. Fetch the result; it is 202 until the bank has answered, then 200:

RESULTS=$(echo "$ANSWER" | sed -n 's/.*"results_uri": *"\([^"]*\)".*/\1/p')
curl -si -H "Authorization: Bearer $TOKEN" "$RESULTS"; echo

4. See the webhook arrive, here or at http://{inbox}/ in a browser:

curl -s http://{inbox}/deliveries; echo

A webhook URI with ?fail=2 is refused twice first; http://{bank}/calls lists what reached the bank.

Other users, to put after code= in step 1:

"#,
            token_path = ::sandbox::TOKEN_PATH,
        );
        for (user, trouble) in USERS {
            writeln!(text, "  {user:<14} {trouble}").expect("writing to a string");
        }
        writeln!(
            text,
            "\nRetries are quicker here than by default. Ctrl-C stops it; {} keeps the tasks.\n",
            self.data_dir.display()
        )
        .expect("writing to a string");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let config =
            Config::from_toml("[[upstreams]]\nname = \"bank\"\nprefix = \"/data/v1\"\nurl = \"http://a\"\n");
        let config = config.unwrap_or_else(|errors| panic!("{errors}"));
        Guide::new(&config, "bank", address(1111), address(2222)).expect("there is a bank").text()
    }

    #[test]
    fn the_commands_hold_the_real_addresses() {
        let text = text();
        assert!(text.contains(
            "http://127.0.0.1:8080/data/v1/accounts?async=true&webhook_uri=http://127.0.0.1:2222/"
        ));
        assert!(text.contains("curl -s http://127.0.0.1:1111/connect/token"), "{text}");
        assert!(text.contains("curl -s http://127.0.0.1:2222/deliveries"));
        assert!(!text.contains('{') && text.lines().all(|line| line.len() <= 110), "{text}");
    }

    #[test]
    fn the_commands_are_a_shell_script() {
        let text = text();
        let commands = text.lines().filter(|line| is_command(line)).collect::<Vec<_>>().join("\n");
        assert_eq!(commands.matches("curl ").count(), 4, "{commands}");
        let checked = std::process::Command::new("sh").args(["-n", "-c", &commands]).output();
        let checked = checked.expect("a shell is there");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }

    fn is_command(line: &str) -> bool {
        ["TOKEN=", "ANSWER=", "RESULTS=", "echo ", "curl ", "  -d ", "  \""]
            .iter()
            .any(|start| line.starts_with(start))
    }
}
