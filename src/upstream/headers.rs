//! Configured changes to the header section sent upstream.

use std::path::{Path, PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::config::HeadersConfig;

/// A header setting that cannot be used. Never holds a value: values are credentials.
#[derive(Debug, thiserror::Error)]
pub enum HeadersError {
    #[error("`{0}` is not a header name")]
    Name(String),
    #[error("the value of header `{0}` holds characters that no header may hold")]
    Value(String),
    #[error("header `{0}` frames the message and cannot be set or removed")]
    Framing(String),
    #[error("header `host` cannot be removed; set it, or use preserve_host")]
    Host,
    #[error("the file {1} with the value of header `{0}` cannot be read")]
    File(String, PathBuf),
}

/// Headers that say where a message ends or belong to one connection: a configured value could
/// make the upstream read another message than the one sent.
const FRAMING: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// [`HeadersConfig`], checked and read.
pub(super) struct HeaderRules {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderRules {
    pub(super) fn new(config: &HeadersConfig) -> Result<Self, HeadersError> {
        let remove = config.remove.iter().map(|written| name(written)).collect::<Result<Vec<_>, _>>()?;
        if remove.contains(&header::HOST) {
            return Err(HeadersError::Host);
        }
        let mut set = Vec::with_capacity(config.set.len() + config.set_from_file.len());
        for (written, text) in &config.set {
            set.push((name(written)?, value(written, text)?));
        }
        for (written, path) in &config.set_from_file {
            set.push((name(written)?, value(written, read(written, path)?.trim())?));
        }
        Ok(Self { remove, set })
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }
}

fn name(written: &str) -> Result<HeaderName, HeadersError> {
    let name = HeaderName::from_bytes(written.as_bytes()).map_err(|_| HeadersError::Name(written.into()))?;
    if FRAMING.contains(&name) { Err(HeadersError::Framing(written.into())) } else { Ok(name) }
}

fn value(name: &str, text: &str) -> Result<HeaderValue, HeadersError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| HeadersError::Value(name.into()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn read(name: &str, path: &Path) -> Result<String, HeadersError> {
    std::fs::read_to_string(path).map_err(|_| HeadersError::File(name.into(), path.into()))
}
