//! Who may see more of the admin listener than whether the node lives. Pure.
//!
//! On loopback whoever is on the machine may, but no page in that person's browser: the `Host` must be
//! this machine's, or a name that leads here would make any page the same origin. Elsewhere a token is
//! needed. An `Origin` must be the listener's own wherever it listens.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, StatusCode};
use subtle::ConstantTimeEq as _;

use crate::secret::Secret;

/// What is asked of a request.
pub struct Guard {
    /// Whether the listener is out of everybody else's reach.
    pub loopback: bool,
    pub token: Option<Secret>,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    Host,
    Origin,
    Token,
}

impl Denied {
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Host | Self::Origin => StatusCode::FORBIDDEN,
            Self::Token => StatusCode::UNAUTHORIZED,
        }
    }

    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Host => "call this listener as localhost or by its address\n",
            Self::Origin => "pages of other origins may not call this listener\n",
            Self::Token => "send the token of `server.admin_token_file` as a bearer token\n",
        }
    }
}

impl Guard {
    /// # Errors
    /// The request may see nothing.
    pub fn judge(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let only = |name| {
            let mut values = headers.get_all(name).iter();
            let value = values.next().and_then(|value| value.to_str().ok());
            value.filter(|_| values.next().is_none())
        };
        let host = only(HOST).and_then(|host| host.parse::<Authority>().ok()).ok_or(Denied::Host)?;
        if self.loopback && !is_here(host.host()) {
            return Err(Denied::Host);
        }
        if headers.contains_key(ORIGIN) {
            let own = ["http://", "https://"].map(|scheme| format!("{scheme}{host}"));
            if !only(ORIGIN).is_some_and(|origin| own.iter().any(|own| own.eq_ignore_ascii_case(origin))) {
                return Err(Denied::Origin);
            }
        }
        match &self.token {
            None if self.loopback => Ok(()),
            // Nobody has been given a token, so nobody has one.
            None => Err(Denied::Token),
            Some(token) => {
                let sent = only(AUTHORIZATION).and_then(|value| value.split_once(' '));
                let sent = sent.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
                let is_it = |sent: &str| bool::from(sent.as_bytes().ct_eq(token.expose().as_bytes()));
                sent.is_some_and(|(_, sent)| is_it(sent.trim())).then_some(()).ok_or(Denied::Token)
            }
        }
    }
}

fn is_here(host: &str) -> bool {
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || literal.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn judge(loopback: bool, token: Option<&str>, lines: &[(&'static str, &str)]) -> Result<(), Denied> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        Guard { loopback, token: token.map(Secret::new) }.judge(&headers)
    }

    #[test]
    fn on_loopback_a_name_that_leads_here_is_no_way_in() {
        for host in ["localhost", "LOCALHOST:8081", "127.0.0.1:8081", "[::1]:8081", "127.9.9.9"] {
            assert_eq!(judge(true, None, &[("host", host)]), Ok(()), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1", "a@localhost.b", ""] {
            assert_eq!(judge(true, None, &[("host", host)]), Err(Denied::Host), "{host}");
        }
        assert_eq!(judge(true, None, &[]), Err(Denied::Host));
        assert_eq!(judge(true, None, &[("host", "localhost"), ("host", "localhost")]), Err(Denied::Host));
    }

    #[test]
    fn an_origin_is_our_own_or_nobodys() {
        let from = |origin| judge(true, None, &[("host", "localhost:8081"), ("origin", origin)]);
        assert_eq!(from("http://localhost:8081"), Ok(()));
        for origin in ["https://evil.example", "null", "http://localhost:8080", "http://localhost"] {
            assert_eq!(from(origin), Err(Denied::Origin), "{origin}");
        }
    }

    #[test]
    fn elsewhere_a_token_is_needed() {
        let with =
            |token, sent: &str| judge(false, token, &[("host", "ops.example"), ("authorization", sent)]);
        assert_eq!(with(Some("s3cret"), "Bearer s3cret"), Ok(()));
        assert_eq!(with(Some("s3cret"), "bearer s3cret"), Ok(()));
        for sent in ["Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret", "Bearer"] {
            assert_eq!(with(Some("s3cret"), sent), Err(Denied::Token), "{sent}");
        }
        assert_eq!(with(None, "Bearer "), Err(Denied::Token), "without a token nobody has one");
        assert_eq!(judge(false, Some("s3cret"), &[("host", "ops.example")]), Err(Denied::Token));
        let local = judge(true, Some("s3cret"), &[("host", "localhost")]);
        assert_eq!(local, Err(Denied::Token), "a token that is configured is asked for");
    }
}
