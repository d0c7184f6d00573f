//! The files a configuration names: header values are read, the rest must be readable.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::checks::Finding;
use super::error::ConfigError;
use super::{Config, UpstreamConfig};

/// Moves the content of each `headers.set_from_file` into `headers.set`.
pub fn read(config: &mut Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, upstream) in config.upstreams.iter_mut().enumerate() {
        read_headers(upstream, index, &mut findings);
        read_client_secret(upstream, index, &mut findings);
        let named = [
            ("ca_file", &upstream.ca_file),
            ("client_cert_file", &upstream.client_cert_file),
            ("client_key_file", &upstream.client_key_file),
            ("identity.jwks_file", &upstream.identity.jwks_file),
        ];
        for (key, path) in named {
            must_be_readable(format!("upstreams.{index}.{key}"), path.as_deref(), &mut findings);
        }
    }
    let server = &config.server;
    let named = [
        ("tls_cert_file", &server.tls_cert_file),
        ("tls_key_file", &server.tls_key_file),
        ("admin_token_file", &server.admin_token_file),
    ];
    for (key, path) in named {
        must_be_readable(format!("server.{key}"), path.as_deref(), &mut findings);
    }
    findings
}

fn must_be_readable(key: String, path: Option<&Path>, findings: &mut Vec<Finding>) {
    let Some(path) = path else { return };
    let opened = File::open(path).and_then(|file| file.metadata()).and_then(|metadata| is_file(&metadata));
    if let Err(error) = opened {
        findings.push(unreadable(key, path, &error));
    }
}

fn read_headers(upstream: &mut UpstreamConfig, index: usize, findings: &mut Vec<Finding>) {
    let headers = &mut upstream.headers;
    for (name, path) in &headers.set_from_file {
        let key = format!("upstreams.{index}.headers.set_from_file.{name}");
        if headers.set.keys().any(|set| set.eq_ignore_ascii_case(name)) {
            let error = ConfigError::HeaderTwice { upstream: upstream.name.clone(), name: name.clone() };
            findings.push(Finding { key, error });
            continue;
        }
        match fs::read_to_string(path) {
            Ok(value) => {
                headers.set.insert(name.clone(), value.trim().to_owned());
            }
            Err(error) => findings.push(unreadable(key, path, &error)),
        }
    }
}

fn read_client_secret(upstream: &mut UpstreamConfig, index: usize, findings: &mut Vec<Finding>) {
    let identity = &mut upstream.identity;
    let Some(path) = &identity.client_secret_file else { return };
    let key = format!("upstreams.{index}.identity.client_secret_file");
    if identity.client_secret.is_some() {
        findings.push(Finding { key, error: ConfigError::ClientSecretTwice(upstream.name.clone()) });
        return;
    }
    match fs::read_to_string(path) {
        Ok(secret) => identity.client_secret = Some(secret.trim().to_owned()),
        Err(error) => findings.push(unreadable(key, path, &error)),
    }
}

fn is_file(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(()) }
}

fn unreadable(key: String, path: &Path, error: &io::Error) -> Finding {
    let error = ConfigError::FileUnreadable { path: path.display().to_string(), why: error.to_string() };
    Finding { key, error }
}
