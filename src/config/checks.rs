//! Contradictions between keys, and values that have the right type but no meaning. Pure.

mod syntax;
mod upstream;

use std::time::Duration;

use super::error::ConfigError;
use super::{Config, ServerConfig, StoreConfig, WebhooksConfig};

/// The limit of the contract (design.md 2.5).
const MOST_WEBHOOK_RETRIES: usize = 6;
/// The HTTP library refuses to read less than this at a time.
const SMALLEST_HEADER_LIMIT: u64 = 8 * 1024;
/// The longest request target the HTTP library can hold.
const LONGEST_URI: u64 = 65_534;
/// Above it a number of connections or calls is a slip of the hand.
const MOST_AT_ONCE: u64 = 1_000_000;

const MOST_THREADS: u64 = 1024;
/// An empty store takes a quarter of it.
const SMALLEST_STORE: u64 = 1024 * 1024;

/// Something to complain about and the key to look at, list entries by number.
pub struct Finding {
    pub key: String,
    pub error: ConfigError,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, key: impl Into<String>, error: ConfigError) {
        self.0.push(Finding { key: key.into(), error });
    }

    fn add_if(&mut self, is_wrong: bool, key: impl Into<String>, error: impl FnOnce() -> ConfigError) {
        if is_wrong {
            self.add(key, error());
        }
    }

    fn timeout(&mut self, key: &str, timeout: Duration) {
        self.add_if(timeout.is_zero(), key, || ConfigError::TimeoutZero(key.to_owned()));
    }

    fn range(&mut self, key: &str, value: u64, min: u64, max: u64) {
        let is_wrong = !(min..=max).contains(&value);
        self.add_if(is_wrong, key, || ConfigError::LimitOutOfRange { key: key.to_owned(), min, max });
    }

    fn at_once(&mut self, key: &str, count: usize) {
        self.range(key, u64::try_from(count).unwrap_or(u64::MAX), 1, MOST_AT_ONCE);
    }

    /// A certificate is of no use without its key.
    fn pair(&mut self, one: String, other: String, are_set: (bool, bool)) {
        self.add_if(are_set.0 != are_set.1, one.clone(), || ConfigError::Unpaired(one, other));
    }

    fn jitter(&mut self, key: &str, jitter: f64) {
        // Not-a-number is in no range.
        let is_wrong = !(0.0..=1.0).contains(&jitter);
        self.add_if(is_wrong, key, || ConfigError::JitterOutOfRange(key.to_owned()));
    }
}

/// All contradictions in a configuration.
pub fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Findings::default();
    server(&mut findings, &config.server);
    store(&mut findings, &config.store);
    upstream::all(&mut findings, &config.upstreams);
    webhooks(&mut findings, &config.webhooks);
    retention(&mut findings, config);
    findings.0
}

fn server(findings: &mut Findings, server: &ServerConfig) {
    let listen = server.listen;
    findings.add_if(listen == server.admin_listen && listen.port() != 0, "server.admin_listen", || {
        ConfigError::ListenTwice(listen.to_string())
    });
    if !server.public_url.is_empty() {
        if let Some(why) = syntax::public_url_fault(&server.public_url) {
            findings.add("server.public_url", ConfigError::PublicUrlInvalid(why));
        }
    } else if listen.ip().is_unspecified() {
        findings.add("server.listen", ConfigError::PublicUrlMissing(listen.to_string()));
    }
    findings
        .add_if(server.data_dir.as_os_str().is_empty(), "server.data_dir", || ConfigError::DataDirMissing);
    let tls = (server.tls_cert_file.is_some(), server.tls_key_file.is_some());
    findings.pair(String::from("server.tls_cert_file"), String::from("server.tls_key_file"), tls);
    findings.range("server.threads", u64::try_from(server.threads).unwrap_or(u64::MAX), 0, MOST_THREADS);
    findings.add_if(server.max_body_bytes > server.max_buffered_bytes, "server.max_body_bytes", || {
        ConfigError::BodyAboveBuffer
    });
    findings.range("server.max_uri_bytes", server.max_uri_bytes, 1, LONGEST_URI);
    let largest = u64::from(u32::MAX);
    findings.range("server.max_header_bytes", server.max_header_bytes, SMALLEST_HEADER_LIMIT, largest);
    findings.timeout("server.header_timeout", server.header_timeout);
    findings.timeout("server.body_timeout", server.body_timeout);
    findings.timeout("server.body_total_timeout", server.body_total_timeout);
    findings.timeout("server.stall_timeout", server.stall_timeout);
    findings.at_once("server.max_connections", server.max_connections);
    findings.at_once("server.max_calls", server.max_calls);
    findings.at_once("server.max_calls_per_credentials", server.max_calls_per_credentials);
    let most = i64::MAX.unsigned_abs();
    findings.range("server.max_queued_tasks", server.max_queued_tasks, 1, most);
    let key = "server.max_queued_per_credentials";
    findings.range(key, server.max_queued_per_credentials, 1, most);
    findings.timeout("server.stream_heartbeat", server.stream_heartbeat);
    findings.at_once("server.max_waiters", server.max_waiters);
}

fn store(findings: &mut Findings, store: &StoreConfig) {
    let url = &store.url;
    if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        findings.add("store.url", ConfigError::StoreNotSupported);
    } else if url != "sqlite" && url.strip_prefix("sqlite:").is_none_or(|path| path.trim().is_empty()) {
        findings.add("store.url", ConfigError::StoreUrlInvalid);
    }
}

fn webhooks(findings: &mut Findings, webhooks: &WebhooksConfig) {
    let count = webhooks.delays.len();
    findings.add_if(count > MOST_WEBHOOK_RETRIES, "webhooks.delays", || ConfigError::TooManyWebhookDelays {
        count,
        max: MOST_WEBHOOK_RETRIES,
    });
    findings.jitter("webhooks.jitter", webhooks.jitter);
    findings.timeout("webhooks.timeout", webhooks.timeout);
    findings.at_once("webhooks.concurrency", webhooks.concurrency);
    findings.at_once("webhooks.per_host_concurrency", webhooks.per_host_concurrency);
    if let Some(why) = syntax::path_fault(&webhooks.jwks_path) {
        findings.add("webhooks.jwks_path", ConfigError::JwksPathInvalid(why));
    }
    for host in &webhooks.allow_hosts {
        let error = || ConfigError::WebhookHostInvalid(host.clone());
        findings.add_if(!syntax::is_host_name(host), "webhooks.allow_hosts", error);
    }
}

fn retention(findings: &mut Findings, config: &Config) {
    let retention = &config.retention;
    let is_wrong = retention.tasks < retention.results;
    findings.add_if(is_wrong, "retention.tasks", || ConfigError::RetentionOrder);
    let max = retention.max_bytes;
    if max == 0 {
        return;
    }
    let key = "retention.max_bytes";
    if max < SMALLEST_STORE {
        findings.add(key, ConfigError::MaxBytesTooSmall(SMALLEST_STORE));
        return;
    }
    let body = (String::from("server.max_body_bytes"), config.server.max_body_bytes);
    let results =
        config.upstreams.iter().enumerate().map(|(index, upstream)| {
            (format!("upstreams.{index}.max_result_bytes"), upstream.max_result_bytes)
        });
    for (other, bytes) in results.chain([body]) {
        findings.add_if(bytes > max, key, || ConfigError::MaxBytesBelow(other));
    }
}
