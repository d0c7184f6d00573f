//! A webhook URI as text: what RFC 3986 allows, less what two readers could read differently.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::uri::PathAndQuery;

use super::{OWN_LISTENER, Rules};
use crate::secret::Secret;

const MAX_BYTES: usize = 4096;
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// Why a text is no webhook URI. The sentences follow "`webhook_uri`" and never repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriRefusal {
    #[error("is longer than 4096 bytes; shorten it")]
    TooLong,
    #[error("holds a character that RFC 3986 does not allow there; percent-encode it")]
    Character,
    #[error("holds a % that is not followed by two hexadecimal digits; encode it as %25")]
    Escape,
    #[error("is not absolute; begin it with https:// and a host")]
    NotAbsolute,
    #[error("has a scheme that is not allowed here; use https")]
    Scheme,
    #[error("has no host; name one after the //")]
    NoHost,
    #[error("holds a user name before the host; leave it out")]
    UserInfo,
    #[error("holds a fragment; leave out the # and what follows")]
    Fragment,
    #[error("has a host that is neither a DNS name nor an address in its usual notation")]
    Host,
    #[error("has a port that is not a number from 1 to 65535")]
    PortNumber,
    #[error("has a port that is not allowed here; use the scheme's own port")]
    Port,
    /// The rule is one of [`super::Verdict`]'s.
    #[error("names an address that is not public ({0}); name a host that is reachable from the internet")]
    Address(&'static str),
}

/// A URI that passed the table's textual rules. Its query may hold a secret of the user: it has no
/// `Debug`, is kept byte for byte, and its text is wiped when dropped.
#[derive(Clone)]
pub struct WebhookUri {
    text: Secret,
    tls: bool,
    /// Lower case; an address in its shortest notation, without brackets.
    host: String,
    port: u16,
    /// Where path and query begin in `text`.
    target_at: usize,
}

impl WebhookUri {
    /// Reads and judges without looking up names.
    ///
    /// # Errors
    /// The first rule that `raw` breaks.
    pub fn parse(raw: &str, rules: &Rules) -> Result<Self, UriRefusal> {
        check_characters(raw)?;
        let (scheme, rest) = raw.split_once(':').ok_or(UriRefusal::NotAbsolute)?;
        let tls = match scheme {
            _ if scheme.eq_ignore_ascii_case("https") => true,
            _ if scheme.eq_ignore_ascii_case("http") => false,
            _ if is_scheme(scheme) => return Err(UriRefusal::Scheme),
            _ => return Err(UriRefusal::NotAbsolute),
        };
        let rest = rest.strip_prefix("//").ok_or(UriRefusal::NotAbsolute)?;
        let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
        let target_at = raw.len() - rest.len() + authority.len();
        if raw[target_at..].contains(['[', ']']) {
            return Err(UriRefusal::Character);
        }
        let (host, port) = split_authority(authority, tls)?;
        let uri = Self { text: Secret::new(raw), tls, host: host.key(), port, target_at };
        uri.judge(&host, rules)?;
        Ok(uri)
    }

    fn judge(&self, host: &Host<'_>, rules: &Rules) -> Result<(), UriRefusal> {
        let loopback = match *host {
            Host::V4(address, _) => self.judge_address(address.into(), rules)?,
            Host::V6(address) => self.judge_address(address.into(), rules)?,
            Host::Name(name) => rules.is_allowed_loopback_host(name),
        };
        match rules.judge_scheme_and_port(self.tls, self.port) {
            Err("scheme") if !loopback => Err(UriRefusal::Scheme),
            Err(_) if !loopback => Err(UriRefusal::Port),
            _ => Ok(()),
        }
    }

    /// Says whether it is a loopback address that is allowed.
    fn judge_address(&self, address: IpAddr, rules: &Rules) -> Result<bool, UriRefusal> {
        if rules.is_own(SocketAddr::new(address, self.port)) {
            return Err(UriRefusal::Address(OWN_LISTENER));
        }
        let verdict = rules.judge_address(address);
        if verdict.allowed {
            Ok(rules.is_allowed_loopback(address))
        } else {
            Err(UriRefusal::Address(verdict.rule))
        }
    }

    /// The text as submitted, for calling and sealing, never for printing.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// A lower-case name or an address without brackets. Not secret.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What limits by receiver are counted under: host and port.
    #[must_use]
    pub fn host_key(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// What limits by whoever may be behind several receivers are counted under.
    #[must_use]
    pub fn zone(&self) -> String {
        super::zone(&self.host)
    }

    /// Path and query, byte for byte; an empty path is `/` (RFC 9112, 3.2.1).
    #[must_use]
    pub fn target(&self) -> PathAndQuery {
        let written = &self.text.expose()[self.target_at..];
        let target = if written.starts_with('/') { written.to_owned() } else { format!("/{written}") };
        PathAndQuery::try_from(target).expect("RFC 3986 characters make a path and query")
    }
}

/// Whom a task announces its end to.
pub enum Receiver {
    /// By the rules of this process.
    Judged(Arc<WebhookUri>),
    /// As stored: the rules may have changed since.
    Stored(Secret),
}

impl Receiver {
    /// The text as submitted, for sealing.
    #[must_use]
    pub fn expose(&self) -> &str {
        match self {
            Self::Judged(uri) => uri.expose(),
            Self::Stored(text) => text.expose(),
        }
    }

    /// The URI, if today's rules allow it. They do not change while a process runs.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn judged(&self, rules: &Rules) -> Result<Arc<WebhookUri>, UriRefusal> {
        match self {
            Self::Judged(uri) => Ok(Arc::clone(uri)),
            Self::Stored(text) => WebhookUri::parse(text.expose(), rules).map(Arc::new),
        }
    }
}

enum Host<'uri> {
    /// With its text, which is its shortest notation.
    V4(Ipv4Addr, &'uri str),
    V6(Ipv6Addr),
    Name(&'uri str),
}

impl Host<'_> {
    fn key(&self) -> String {
        match self {
            Self::V4(_, text) => (*text).to_owned(),
            Self::V6(address) => address.to_string(),
            Self::Name(name) => name.to_ascii_lowercase(),
        }
    }
}

fn check_characters(raw: &str) -> Result<(), UriRefusal> {
    if raw.len() > MAX_BYTES {
        return Err(UriRefusal::TooLong);
    }
    let bytes = raw.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'#' => return Err(UriRefusal::Fragment),
            b'%' => {
                let digits = bytes.get(at + 1..at + 3).unwrap_or_default();
                if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(UriRefusal::Escape);
                }
            }
            // RFC 3986, 2.2 and 2.3: reserved and unreserved.
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {}
            other if b"-._~:/?[]@!$&'()*+,;=".contains(other) => {}
            _ => return Err(UriRefusal::Character),
        }
    }
    Ok(())
}

/// RFC 3986, 3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn split_authority(authority: &str, tls: bool) -> Result<(Host<'_>, u16), UriRefusal> {
    if authority.contains('@') {
        return Err(UriRefusal::UserInfo);
    }
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (inside, after) = bracketed.split_once(']').ok_or(UriRefusal::Host)?;
        let address: Ipv6Addr = inside.parse().map_err(|_| UriRefusal::Host)?;
        let port = match after.strip_prefix(':') {
            None if after.is_empty() => None,
            None => return Err(UriRefusal::Host),
            Some(port) => Some(port),
        };
        (Host::V6(address), port)
    } else {
        let (host, port) = match authority.split_once(':') {
            None => (authority, None),
            Some((host, port)) => (host, Some(port)),
        };
        (read_name_or_v4(host)?, port)
    };
    let port = match port {
        None if tls => 443,
        None => 80,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|&port| port != 0).ok_or(UriRefusal::PortNumber)?
        }
        Some(_) => return Err(UriRefusal::PortNumber),
    };
    Ok((host, port))
}

/// A host whose last label is a number is an IPv4 address to some readers, in octal, hexadecimal,
/// short or dotless notation too; only the usual notation is accepted.
fn read_name_or_v4(host: &str) -> Result<Host<'_>, UriRefusal> {
    if host.is_empty() {
        return Err(UriRefusal::NoHost);
    }
    let last = host.rsplit('.').next().unwrap_or(host);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if is_number {
        let address: Ipv4Addr = host.parse().map_err(|_| UriRefusal::Host)?;
        return Ok(Host::V4(address, host));
    }
    let is_label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if host.len() <= MAX_NAME_BYTES && host.split('.').all(is_label) {
        Ok(Host::Name(host))
    } else {
        Err(UriRefusal::Host)
    }
}
