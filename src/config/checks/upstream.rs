//! Checks of `[[upstreams]]`, each for itself and all against each other.

use http::{HeaderName, HeaderValue};

use super::{Findings, syntax};
use crate::config::error::ConfigError;
use crate::config::{IdentityConfig, IdentityMode, UpstreamConfig};

const MOST_RETRIES: usize = 20;

/// RFC 9110 section 7.6.1 (these speak of one connection) and section 6 (these frame the message).
const CONNECTION_HEADERS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub fn all(findings: &mut Findings, upstreams: &[UpstreamConfig]) {
    findings.add_if(upstreams.is_empty(), "upstreams", || ConfigError::NoUpstream);
    for (index, upstream) in upstreams.iter().enumerate() {
        one(findings, upstream, &format!("upstreams.{index}"));
        for (other_index, other) in upstreams.iter().enumerate() {
            if other_index < index {
                twice(findings, upstream, other, index);
            }
            hidden(findings, upstream, other, index);
        }
    }
}

fn twice(findings: &mut Findings, upstream: &UpstreamConfig, earlier: &UpstreamConfig, index: usize) {
    findings.add_if(upstream.name == earlier.name, format!("upstreams.{index}.name"), || {
        ConfigError::NameTwice(upstream.name.clone())
    });
    findings.add_if(upstream.prefix == earlier.prefix, format!("upstreams.{index}.prefix"), || {
        ConfigError::PrefixTwice(upstream.prefix.clone())
    });
}

/// The longest prefix wins: one at or above the place of another's results, and below its prefix,
/// would take every question for a result.
fn hidden(findings: &mut Findings, by: &UpstreamConfig, upstream: &UpstreamConfig, index: usize) {
    let prefix = upstream.prefix.trim_end_matches('/');
    let results = format!("{prefix}{}", upstream.results_path);
    let covers =
        |path: &str| results.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_longer = by.prefix.trim_end_matches('/').len() > prefix.len();
    findings.add_if(is_longer && covers(&by.prefix), format!("upstreams.{index}.prefix"), || {
        ConfigError::ResultsHidden { upstream: upstream.name.clone(), by: by.name.clone() }
    });
}

fn one(findings: &mut Findings, upstream: &UpstreamConfig, at: &str) {
    let name = || upstream.name.clone();
    if let Some(why) = syntax::path_fault(&upstream.prefix).filter(|_| upstream.prefix != "/") {
        findings.add(format!("{at}.prefix"), ConfigError::PrefixInvalid { upstream: name(), why });
    }
    if let Some(why) = syntax::path_fault(&upstream.results_path) {
        findings.add(format!("{at}.results_path"), ConfigError::ResultsPathInvalid { upstream: name(), why });
    }
    if let Some(why) = syntax::base_url_fault(&upstream.url) {
        findings.add(format!("{at}.url"), ConfigError::UpstreamUrlInvalid { upstream: name(), why });
    }
    let pair = (upstream.client_cert_file.is_some(), upstream.client_key_file.is_some());
    findings.pair(format!("{at}.client_cert_file"), format!("{at}.client_key_file"), pair);
    findings.timeout(&format!("{at}.timeout"), upstream.timeout);
    findings.timeout(&format!("{at}.idle_timeout"), upstream.idle_timeout);
    findings.add_if(upstream.total_timeout < upstream.timeout, format!("{at}.total_timeout"), || {
        ConfigError::TotalTimeoutTooShort(name())
    });
    findings.at_once(&format!("{at}.concurrency"), upstream.concurrency);
    findings.range(&format!("{at}.max_result_bytes"), upstream.max_result_bytes, 1, i64::MAX.unsigned_abs());

    let retry = &upstream.retry;
    findings.add_if(retry.deadline < upstream.timeout, format!("{at}.retry.deadline"), || {
        ConfigError::DeadlineTooShort(name())
    });
    let count = retry.delays.len();
    findings.add_if(count > MOST_RETRIES, format!("{at}.retry.delays"), || ConfigError::TooManyRetries {
        upstream: name(),
        count,
        max: MOST_RETRIES,
    });
    findings.jitter(&format!("{at}.retry.jitter"), retry.jitter);

    for origin in &upstream.cors.origins {
        findings.add_if(!syntax::is_origin(origin), format!("{at}.cors.origins"), || {
            ConfigError::CorsOriginInvalid { upstream: name(), origin: origin.clone() }
        });
    }
    headers(findings, upstream, at);
    identity(findings, &upstream.identity, &upstream.name, at);
    asked(findings, upstream, at);
}

fn headers(findings: &mut Findings, upstream: &UpstreamConfig, at: &str) {
    let headers = &upstream.headers;
    for (name, value) in &headers.set {
        let table = if headers.set_from_file.contains_key(name) { "set_from_file" } else { "set" };
        let (upstream, name) = (upstream.name.clone(), name.clone());
        let key = format!("{at}.headers.{table}.{name}");
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            findings.add(key, ConfigError::HeaderNameInvalid { upstream, table, name });
        } else if let Some(why) = reserved(&name) {
            findings.add(key, ConfigError::HeaderReserved { upstream, table, name, why });
        } else if HeaderValue::from_str(value).is_err() {
            findings.add(key, ConfigError::HeaderValueInvalid { upstream, table, name });
        }
    }
    for name in &headers.remove {
        let (upstream, table, key) = (upstream.name.clone(), "remove", format!("{at}.headers.remove"));
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            findings.add(key, ConfigError::HeaderNameInvalid { upstream, table, name: name.clone() });
        } else if let Some(why) = reserved(name) {
            findings.add(key, ConfigError::HeaderReserved { upstream, table, name: name.clone(), why });
        }
    }
}

fn reserved(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    if name == "host" {
        Some("it follows from `url`; `preserve_host` sends the client's")
    } else if CONNECTION_HEADERS.contains(&name.as_str()) {
        Some("it belongs to each connection by itself")
    } else {
        None
    }
}

fn identity(findings: &mut Findings, identity: &IdentityConfig, upstream: &str, at: &str) {
    let name = || upstream.to_owned();
    let is_wrong = HeaderName::from_bytes(identity.header.as_bytes()).is_err();
    findings.add_if(is_wrong, format!("{at}.identity.header"), || ConfigError::IdentityHeaderInvalid(name()));
    if identity.mode != IdentityMode::Jwt {
        return;
    }
    for (key, value) in [("issuer", &identity.issuer), ("audience", &identity.audience)] {
        findings.add_if(value.is_none(), format!("{at}.identity.mode"), || ConfigError::JwtIncomplete {
            upstream: name(),
            key,
        });
    }
    findings.add_if(identity.claim.is_empty(), format!("{at}.identity.claim"), || {
        ConfigError::ClaimMissing(name())
    });
    let is_wrong = identity.jwks_url.is_some() == identity.jwks_file.is_some();
    findings.add_if(is_wrong, format!("{at}.identity.mode"), || ConfigError::JwksSource(name()));
    if let Some(why) = identity.jwks_url.as_deref().and_then(syntax::url_fault) {
        let error = ConfigError::JwksUrlInvalid { upstream: name(), why };
        findings.add(format!("{at}.identity.jwks_url"), error);
    }
}

/// The modes that ask somebody about a token.
fn asked(findings: &mut Findings, upstream: &UpstreamConfig, at: &str) {
    let identity = &upstream.identity;
    let (name, mode) = (|| upstream.name.clone(), identity.mode);
    let mut needed = |mode, key, is_there: bool| {
        findings.add_if(!is_there, format!("{at}.identity.mode"), || ConfigError::IdentityIncomplete {
            upstream: name(),
            mode,
            key,
        });
    };
    let asks_upstream = mode == IdentityMode::Upstream || identity.revalidate;
    if mode == IdentityMode::Introspection {
        needed("introspection", "introspection_url", identity.introspection_url.is_some());
        needed("introspection", "client_id", identity.client_id.is_some());
        let has_secret = identity.client_secret.is_some() || identity.client_secret_file.is_some();
        needed("introspection", "client_secret", has_secret);
        needed("introspection", "claim", !identity.claim.is_empty());
    }
    if mode == IdentityMode::Upstream {
        needed("upstream", "pointer", identity.pointer.is_some());
    }
    if asks_upstream {
        let mode = if identity.revalidate { "revalidate" } else { "upstream" };
        needed(mode, "path", identity.path.is_some());
    }
    let mut invalid = |key: &'static str, why: Option<&'static str>| {
        if let Some(why) = why {
            let error = ConfigError::IdentityInvalid { upstream: name(), key, why };
            findings.add(format!("{at}.identity.{key}"), error);
        }
    };
    invalid("introspection_url", identity.introspection_url.as_deref().and_then(syntax::url_fault));
    invalid("path", identity.path.as_deref().and_then(syntax::path_fault));
    let is_pointer = identity.pointer.as_deref().is_none_or(|pointer| pointer.starts_with('/'));
    invalid("pointer", (!is_pointer).then_some("must start with `/`, such as \"/id\""));
    let misplaced = identity.revalidate && !matches!(mode, IdentityMode::Jwt | IdentityMode::Opaque);
    invalid("revalidate", misplaced.then_some("is for the modes `jwt` and `opaque`; leave it out"));
    findings.timeout(&format!("{at}.identity.timeout"), identity.timeout);
    let carries = |name: &String| name.eq_ignore_ascii_case(&identity.header);
    let headers = &upstream.headers;
    let changed = headers.set.keys().chain(headers.set_from_file.keys()).chain(&headers.remove).any(carries);
    findings.add_if(asks_upstream && changed, format!("{at}.identity.header"), || {
        ConfigError::IdentityHeaderChanged(name())
    });
}
