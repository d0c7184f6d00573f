//! Where a connection leads: scheme, host and port (RFC 6454).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Uri};

/// A URI whose authority cannot be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    #[error("the address has no scheme or no host")]
    NotAbsolute,
    #[error("the scheme is neither http nor https")]
    Scheme,
    #[error("the address holds user information")]
    UserInfo,
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

/// Connections to equal origins are interchangeable. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    tls: bool,
    /// Lower case, without brackets.
    host: Arc<str>,
    port: u16,
}

impl Origin {
    /// `host` without brackets.
    #[must_use]
    pub fn new(tls: bool, host: &str, port: u16) -> Self {
        Self { tls, host: host.to_ascii_lowercase().into(), port }
    }

    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls
    }

    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, where the host is one and not a name.
    #[must_use]
    pub fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The value of `Host`: the port only where it is not the scheme's own (RFC 9110, 7.2).
    #[must_use]
    pub fn authority(&self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("a URI's host holds header characters only")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if self.port == default_port(self.tls) { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl TryFrom<&Uri> for Origin {
    type Error = OriginError;

    fn try_from(uri: &Uri) -> Result<Self, OriginError> {
        let authority = uri.authority().ok_or(OriginError::NotAbsolute)?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(OriginError::Scheme),
            None => return Err(OriginError::NotAbsolute),
        };
        if authority.as_str().contains('@') {
            return Err(OriginError::UserInfo);
        }
        let written = authority.host();
        let host = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(written);
        if host.is_empty() {
            return Err(OriginError::NotAbsolute);
        }
        let port = match authority.as_str().get(written.len()..) {
            None | Some("") => default_port(tls),
            Some(_) => authority.port_u16().filter(|&port| port != 0).ok_or(OriginError::Port)?,
        };
        Ok(Self::new(tls, host, port))
    }
}

/// The port of a URI that names none.
#[must_use]
pub fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(uri: &str) -> Result<Origin, OriginError> {
        Origin::try_from(&uri.parse::<Uri>().unwrap())
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(origin("http://Bank.Example/x?y").unwrap(), Origin::new(false, "bank.example", 80));
        assert_eq!(origin("https://bank.example:8443").unwrap(), Origin::new(true, "bank.example", 8443));
        assert_eq!(origin("https://[2001:DB8::1]/").unwrap(), Origin::new(true, "2001:db8::1", 443));
    }

    #[test]
    fn the_authority_names_a_port_only_where_it_is_unusual() {
        for (uri, authority) in [
            ("http://a:80", "a"),
            ("https://a:80", "a:80"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("https://[::1]", "[::1]"),
        ] {
            assert_eq!(origin(uri).unwrap().authority(), authority, "{uri}");
        }
    }

    #[test]
    fn what_cannot_be_connected_to_is_no_origin() {
        assert_eq!(origin("/path").unwrap_err(), OriginError::NotAbsolute);
        assert_eq!(origin("ftp://a/").unwrap_err(), OriginError::Scheme);
        assert_eq!(origin("http://user@a/").unwrap_err(), OriginError::UserInfo);
        assert_eq!(origin("http://a:0/").unwrap_err(), OriginError::Port);
    }
}
