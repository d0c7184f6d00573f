//! The call to make, from what was typed. Pure but for the files it names.

use std::borrow::Cow;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use percent_encoding::percent_decode_str;

use super::CallError;
use crate::cli::CommandError;
use crate::cli::remote::{Address, RemoteError, file_error, query_value};
use crate::gateway::prefer::Preferences;

/// Headers that hold credentials.
const EXPOSED: [HeaderName; 3] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];

/// A call ready to be made.
pub struct Ask {
    pub method: Method,
    /// With our own parameters.
    pub address: Address,
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
}

impl Ask {
    pub fn new(
        method: Method,
        address: &Address,
        typed: &[String],
        token: Option<HeaderValue>,
        body: Option<Bytes>,
        webhook_uri: Option<&str>,
    ) -> Result<Self, CommandError> {
        let mut headers = headers(typed)?;
        // Either would be answered with the API's own answer instead of a task, after the call was made.
        if Preferences::of(&headers).wait.is_some() {
            return Err(CallError::WaitsItself.into());
        }
        if is_synchronous(address) {
            return Err(CallError::NotAsynchronous.into());
        }
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, token);
        }
        if let Some(body) = &body {
            headers.insert(header::CONTENT_LENGTH, body.len().into());
            let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
            if is_json && !headers.contains_key(header::CONTENT_TYPE) {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
        }
        Ok(Self { method, address: asynchronous(address, webhook_uri), headers, body })
    }

    /// The headers to ask for the result with: whichever says who the caller is, and nothing that is
    /// about the call itself.
    pub fn results_headers(&self) -> HeaderMap {
        let is_about_the_call = |name: &str| {
            name.starts_with("content-")
                || name.starts_with("if-")
                || ["accept", "idempotency-key", "prefer", "range"].contains(&name)
        };
        let kept = self.headers.iter().filter(|(name, _)| !is_about_the_call(name.as_str()));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// Adds our own parameters, where the person has not written them.
fn asynchronous(address: &Address, webhook_uri: Option<&str>) -> Address {
    let mut address =
        if is_async(address).is_some() { address.clone() } else { address.with_query("async=true") };
    if let Some(uri) = webhook_uri {
        address = address.with_query(&format!("webhook_uri={}", query_value(uri)));
    }
    address
}

fn is_synchronous(address: &Address) -> bool {
    is_async(address).is_some_and(|value| value.eq_ignore_ascii_case("false"))
}

/// What the person has written for `async`.
fn is_async(address: &Address) -> Option<Cow<'_, str>> {
    let pieces = address.query().unwrap_or_default().split('&');
    pieces.map(|piece| piece.split_once('=').unwrap_or((piece, ""))).find_map(|(name, value)| {
        let is_it = percent_decode_str(name).decode_utf8_lossy() == "async";
        is_it.then(|| percent_decode_str(value).decode_utf8_lossy())
    })
}

fn headers(typed: &[String]) -> Result<HeaderMap, CommandError> {
    let mut headers = HeaderMap::new();
    for (number, text) in (1..).zip(typed) {
        if let Some(path) = text.strip_prefix('@') {
            for line in read_text(Path::new(path))?.lines().filter(|line| !line.trim().is_empty()) {
                let (name, value) = header_of(line).ok_or(CallError::Header(number))?;
                headers.append(name, value);
            }
            continue;
        }
        let (name, value) = header_of(text).ok_or(CallError::Header(number))?;
        if EXPOSED.contains(&name) {
            return Err(CallError::ExposedHeader(name.to_string()).into());
        }
        headers.append(name, value);
    }
    Ok(headers)
}

fn header_of(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
}

fn read_text(path: &Path) -> Result<String, RemoteError> {
    fs::read_to_string(path).map_err(|source| file_error(path, source))
}

/// The body named by `-d`.
pub fn body(data: &str) -> Result<Bytes, RemoteError> {
    let Some(path) = data.strip_prefix('@') else { return Ok(Bytes::from(data.to_owned())) };
    if path == "-" {
        let mut body = Vec::new();
        let read = std::io::stdin().read_to_end(&mut body);
        return read.map(|_| body.into()).map_err(|source| file_error(Path::new("standard input"), source));
    }
    fs::read(path).map(Bytes::from).map_err(|source| file_error(Path::new(path), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(url: &str, headers: &[&str], body: Option<&str>) -> Result<Ask, CommandError> {
        let typed: Vec<String> = headers.iter().map(|&text| text.to_owned()).collect();
        let token = HeaderValue::from_static("Bearer t");
        let body = body.map(|body| Bytes::from(body.to_owned()));
        Ask::new(Method::POST, &Address::parse(url).unwrap(), &typed, Some(token), body, None)
    }

    fn address(url: &str, webhook_uri: Option<&str>) -> String {
        let asked = asynchronous(&Address::parse(url).unwrap(), webhook_uri);
        asked.query().unwrap_or_default().to_owned()
    }

    #[test]
    fn the_call_is_made_asynchronous_unless_it_says_so_itself() {
        assert_eq!(address("http://a/x", None), "async=true");
        assert_eq!(address("http://a/x?b=c", None), "b=c&async=true");
        assert_eq!(address("http://a/x?async=TRUE&b", None), "async=TRUE&b");
        assert_eq!(address("http://a/x?%61sync=true", None), "%61sync=true");
        assert_eq!(
            address("http://a/x", Some("http://b/?c=d&e")),
            "async=true&webhook_uri=http%3A%2F%2Fb%2F%3Fc%3Dd%26e"
        );
    }

    #[test]
    fn what_would_make_no_task_is_refused_before_the_call_is_made() {
        let refused = |url: &str, headers: &[&str]| ask(url, headers, None).err();
        for url in ["http://a/x?async=false", "http://a/x?b&%61sync=%46ALSE"] {
            let refused = refused(url, &[]);
            assert!(matches!(refused, Some(CommandError::Call(CallError::NotAsynchronous))), "{url}");
        }
        for header in ["Prefer: wait=3", "prefer: return=minimal, respond-async, Wait=3"] {
            let refused = refused("http://a/x", &[header]);
            assert!(matches!(refused, Some(CommandError::Call(CallError::WaitsItself))), "{header}");
        }
        assert!(refused("http://a/x?async=maybe&xasync=false", &["Prefer: return=minimal"]).is_none());
    }

    #[test]
    fn a_credential_among_the_arguments_is_refused() {
        for line in ["Authorization: Bearer t", "authorization:x", "Cookie: a=b"] {
            let refused = ask("http://a/", &[line], None);
            assert!(matches!(refused, Err(CommandError::Call(CallError::ExposedHeader(_)))), "{line}");
        }
    }

    #[test]
    fn headers_may_come_from_a_file_credentials_included() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("headers");
        fs::write(&file, "X-Key: k\n\nCookie: a=b\n").unwrap();
        let ask = ask("http://a/", &[&format!("@{}", file.display()), "X-Tag:  one "], None).unwrap();
        assert_eq!(
            (&ask.headers["x-key"], &ask.headers["cookie"]),
            (&"k".parse().unwrap(), &"a=b".parse().unwrap())
        );
        assert_eq!(ask.headers["x-tag"], "one");
        assert_eq!(ask.results_headers()["x-key"], "k", "whichever header says who the caller is");
    }

    #[test]
    fn the_result_is_asked_for_without_what_is_about_the_call() {
        let typed = ["Accept: text/csv", "Range: bytes=0-1", "If-None-Match: *", "Idempotency-Key: k"];
        let ask = ask("http://a/", &typed, Some("{}")).unwrap();
        let headers = ask.results_headers();
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["authorization"]);
    }

    #[test]
    fn a_line_that_is_no_header_is_named_by_its_number() {
        for bad in ["no colon", "a b: c", ": x"] {
            let refused = ask("http://a/", &["X-Good: 1", bad], None);
            assert!(matches!(refused, Err(CommandError::Call(CallError::Header(2)))), "{bad}");
        }
    }

    #[test]
    fn a_json_body_says_so_unless_it_is_called_something_else() {
        assert_eq!(
            ask("http://a/", &[], Some("{\"a\":1}")).unwrap().headers["content-type"],
            "application/json"
        );
        assert!(!ask("http://a/", &[], Some("a=b")).unwrap().headers.contains_key("content-type"));
        let named = ask("http://a/", &["Content-Type: text/plain"], Some("{}")).unwrap();
        assert_eq!(named.headers["content-type"], "text/plain");
    }
}
