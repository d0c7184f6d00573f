//! Calls a person makes from the command line: where to, with which token.
//!
//! A token comes from a file or the environment, never from an argument: arguments are there for
//! everybody on the machine to read. It is sent to addresses the person named and to no others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::client::{
    Body, Client, FetchError, Origin, OriginError, Received, Reuse, SendError, TlsRoots, TlsRootsError,
    USER_AGENT,
};

/// Variable that holds the access token.
pub const TOKEN_VARIABLE: &str = "RINGBACK_TOKEN";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there was no exchange.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("`{0}` is not a URL that can be called: {1}; write it as http://host:port/path")]
    Url(String, &'static str),
    /// Not shown: a password may follow.
    #[error("the URL holds a user name; give the credential in --token-file or {TOKEN_VARIABLE}")]
    UserInfo,
    #[error("cannot read {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error(
        "the access token is empty, or holds what no header can hold; look into --token-file or {TOKEN_VARIABLE}"
    )]
    Token,
    #[error("cannot use the authorities in --ca-file: {0}")]
    Roots(#[from] TlsRootsError),
    #[error("cannot call {0}: {1}")]
    Send(Origin, SendError),
}

/// Calls addresses a person names.
pub struct Remote {
    client: Client,
}

impl Remote {
    /// With the system's authorities, or those of a PEM file.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, RemoteError> {
        let roots = TlsRoots::from_pem_files(ca_file, None)?;
        Ok(Self { client: Client::trusted(roots, CONNECT_TIMEOUT) })
    }

    /// Sends and waits for the head of the answer.
    pub async fn send(
        &self,
        method: Method,
        to: &Address,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Received>, RemoteError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = to.target.clone();
        *request.headers_mut() = headers;
        let headers = request.headers_mut();
        headers.entry(header::HOST).or_insert_with(|| to.origin.authority());
        headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
        // A person's POST must not meet a connection that is closing at that moment.
        let sent = self.client.send(&to.origin, request, Reuse::Fresh).await;
        sent.map_err(|error| RemoteError::Send(to.origin.clone(), error))
    }

    /// A small document; see [`Client::fetch`].
    pub async fn fetch(&self, uri: &Uri, limit: usize, timeout: Duration) -> Result<Bytes, FetchError> {
        self.client.fetch(uri, limit, timeout).await
    }
}

/// A URL that can be called.
#[derive(Clone)]
pub struct Address {
    pub origin: Origin,
    /// Path and query.
    target: Uri,
}

impl Address {
    pub fn parse(text: &str) -> Result<Self, RemoteError> {
        let wrong = |why| RemoteError::Url(text.to_owned(), why);
        let uri: Uri = text.parse().map_err(|_| wrong("it is not a URI"))?;
        let origin = Origin::try_from(&uri).map_err(|error| match error {
            OriginError::NotAbsolute => wrong("scheme or host is missing"),
            OriginError::Scheme => wrong("the scheme is neither http nor https"),
            OriginError::UserInfo => RemoteError::UserInfo,
            OriginError::Port => wrong("the port is not a number from 1 to 65535"),
        })?;
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
        Ok(Self { origin, target: target.parse().map_err(|_| wrong("its path is not one"))? })
    }

    pub fn query(&self) -> Option<&str> {
        self.target.query()
    }

    /// The same address with `parameters` behind its query.
    pub fn with_query(&self, parameters: &str) -> Self {
        let target = match self.target.query() {
            Some(query) if !query.is_empty() => format!("{}?{query}&{parameters}", self.target.path()),
            _ => format!("{}?{parameters}", self.target.path()),
        };
        let target = target.parse().expect("parameters of ours are valid in a query");
        Self { origin: self.origin.clone(), target }
    }

    /// The path of `other` at this origin.
    pub fn here(&self, other: &Self) -> Self {
        Self { origin: self.origin.clone(), target: other.target.clone() }
    }

    /// Whether this is the machine it is called from.
    pub fn is_loopback(&self) -> bool {
        self.origin.literal().map_or(self.origin.host() == "localhost", |address| address.is_loopback())
    }
}

/// `text` as a value in a query: unreserved characters (RFC 3986, 2.3) stay as they are.
pub fn query_value(text: &str) -> String {
    const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, &ENCODED).to_string()
}

/// The value of `Authorization`: the content of the file, else of the variable. A token alone is a
/// bearer token; with a scheme before it, it is sent as it is.
pub fn authorization(
    file: Option<&Path>,
    variable: Option<String>,
) -> Result<Option<HeaderValue>, RemoteError> {
    let text = match file {
        Some(path) => Some(fs::read_to_string(path).map_err(|source| file_error(path, source))?),
        None => variable,
    };
    let Some(text) = text else { return Ok(None) };
    let text = text.trim();
    let value = if text.contains(' ') { text.to_owned() } else { format!("Bearer {text}") };
    let mut value = HeaderValue::try_from(value).map_err(|_| RemoteError::Token)?;
    if text.is_empty() {
        return Err(RemoteError::Token);
    }
    value.set_sensitive(true);
    Ok(Some(value))
}

pub fn file_error(path: &Path, source: io::Error) -> RemoteError {
    RemoteError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Result<Option<HeaderValue>, RemoteError> {
        authorization(None, Some(text.to_owned()))
    }

    #[test]
    fn a_token_alone_is_a_bearer_token() {
        assert_eq!(token(" t0ken\n").unwrap().unwrap(), "Bearer t0ken");
        assert_eq!(token("Basic am9objpk").unwrap().unwrap(), "Basic am9objpk");
        assert!(token("t0ken").unwrap().unwrap().is_sensitive());
        assert!(authorization(None, None).unwrap().is_none());
        for bad in ["", " \n", "a\nb"] {
            assert!(matches!(token(bad), Err(RemoteError::Token)), "{bad:?}");
        }
    }

    #[test]
    fn the_token_file_comes_before_the_variable() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        fs::write(&file, "of-the-file\n").unwrap();
        let value = authorization(Some(&file), Some(String::from("of-the-variable"))).unwrap();
        assert_eq!(value.unwrap(), "Bearer of-the-file");
        let missing = authorization(Some(&dir.path().join("none")), None);
        assert!(matches!(missing, Err(RemoteError::File { .. })));
    }

    #[test]
    fn parameters_go_behind_what_the_query_holds() {
        for (url, expected) in [
            ("http://a/x", "/x?async=true"),
            ("http://a", "/?async=true"),
            ("http://a/x?", "/x?async=true"),
            ("http://a?b=c", "/?b=c&async=true"),
            ("http://a/x?b=c#d", "/x?b=c&async=true"),
        ] {
            assert_eq!(Address::parse(url).unwrap().with_query("async=true").target, expected, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_called_is_refused_with_a_reason() {
        for bad in ["/x", "ftp://a/", "http://a:0/", "http://a b/"] {
            assert!(matches!(Address::parse(bad), Err(RemoteError::Url(..))), "{bad}");
        }
        let refused = Address::parse("http://u:hush@a/").err().unwrap().to_string();
        assert!(refused.contains("user name") && !refused.contains("hush"), "{refused}");
    }

    #[test]
    fn this_machine_is_known_by_its_addresses() {
        for (url, is) in [
            ("http://127.0.0.1:1/", true),
            ("http://[::1]/", true),
            ("http://localhost/", true),
            ("http://localhost.example/", false),
            ("http://192.0.2.1/", false),
        ] {
            assert_eq!(Address::parse(url).unwrap().is_loopback(), is, "{url}");
        }
    }
}
