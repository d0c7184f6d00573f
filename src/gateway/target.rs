//! What a call is aimed at: method, target and authority, judged before anything else is done.

use http::uri::Authority;
use http::{HeaderMap, Method, Request, Uri, Version, header};

use super::framing::MAX_LINES;
use super::path;
use super::query;
use super::refusal::Refusal;

/// A colon, a space and a line's end: what a field of HTTP/1.1 has besides name and value.
const AROUND_FIELD: usize = 4;

/// Judges a call by its head alone.
///
/// # Errors
/// CONNECT and TRACE, a target that is too long or has dot segments, a `Host` that is missing, there
/// twice, not a host, or another than the target's (RFC 9112, 3.2), and fields that are good frames of
/// HTTP/2 and would have two readings in HTTP/1.1 (RFC 9113, 8.1.1 and 8.2.1) or are more than it takes.
pub fn judge<B>(request: &Request<B>, max_uri_bytes: u64, max_header_bytes: u64) -> Result<(), Refusal> {
    let method = request.method();
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::MethodNotAllowed(method.to_string()));
    }
    let length = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if length as u64 > max_uri_bytes {
        return Err(Refusal::UriTooLong(max_uri_bytes));
    }
    if path::has_dot_segment(request.uri().path()) {
        return Err(Refusal::Invalid(String::from(
            "The path has dot segments, which two servers may read differently; send the path they lead to.",
        )));
    }
    if request.version() == Version::HTTP_2 {
        judge_fields(request.headers(), max_header_bytes)?;
    }
    judge_host(request.version(), request.uri(), request.headers())
}

/// The library compares the body with the last length only, and passes on all of them. Over HTTP/1.1
/// these never get as far as here.
fn judge_fields(headers: &HeaderMap, max_bytes: u64) -> Result<(), Refusal> {
    let bytes: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + AROUND_FIELD).sum();
    if bytes as u64 > max_bytes {
        return Err(Refusal::HeadersTooLarge(max_bytes));
    }
    // A cookie comes in pieces, a line each (RFC 9113, 8.2.3), and goes upstream as one line.
    let pieces = headers.get_all(header::COOKIE).iter().count();
    if headers.len() - pieces.saturating_sub(1) > MAX_LINES {
        return Err(Refusal::TooManyHeaders(MAX_LINES));
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let (length, another) = (lengths.next(), lengths.next());
    if another.is_some() || length.is_some_and(|length| !is_plain_number(length.as_bytes())) {
        let sentence = "The header Content-Length is malformed or there more than once; send one number.";
        return Err(Refusal::Invalid(String::from(sentence)));
    }
    let is_space = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b' ' | b'\t'));
    if headers.values().any(|value| is_space(value.as_bytes().first()) || is_space(value.as_bytes().last())) {
        let sentence = "The value of a header begins or ends with a space; send it without.";
        return Err(Refusal::Invalid(String::from(sentence)));
    }
    Ok(())
}

fn is_plain_number(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
}

fn judge_host(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let invalid =
        |what: &str| Refusal::Invalid(format!("The header Host {what}; send it once, with the host called."));
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(invalid("is there more than once")),
        (None, _) if version == Version::HTTP_11 => return Err(invalid("is missing")),
        (Some(host), None) if !host.is_empty() => {
            let host = Authority::try_from(host.as_bytes()).map_err(|_| invalid("is not a host"))?;
            judge_authority(&host)?;
            // One server reads the target, the next one the header.
            if uri.authority().is_some_and(|named| !is_same(named, &host)) {
                return Err(invalid("and the target name two hosts"));
            }
        }
        _ => {}
    }
    uri.authority().map_or(Ok(()), judge_authority)
}

/// Whether both name one host; the scheme's own port may be left out.
fn is_same(one: &Authority, other: &Authority) -> bool {
    let port = |authority: &Authority| authority.port_u16().filter(|port| !matches!(port, 80 | 443));
    one.host().eq_ignore_ascii_case(other.host()) && port(one) == port(other)
}

fn judge_authority(authority: &Authority) -> Result<(), Refusal> {
    let host = authority.host();
    let is_plain = match authority.as_str().strip_prefix(host) {
        Some("" | ":") => true,
        // User names stand before the host, so they end up here too.
        Some(_) => authority.port_u16().is_some(),
        None => false,
    };
    if host.is_empty() || !is_plain {
        return Err(Refusal::Invalid(String::from(
            "The host called is malformed or holds a user name; send host and port only.",
        )));
    }
    Ok(())
}

/// Path and query as the upstream gets them: without our parameters, where they mean something.
/// A query of a preflight that cannot be judged stays as it is: a preflight is never refused.
#[must_use]
pub fn upstream_target(uri: &Uri) -> String {
    match query::cut(uri.query()) {
        Ok(cut) => match cut.query {
            Some(query) => format!("{}?{query}", uri.path()),
            None => uri.path().to_owned(),
        },
        Err(_) => uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, hosts: &[&str]) -> Request<()> {
        let mut builder = Request::builder().method(method).uri(target);
        for host in hosts {
            builder = builder.header(header::HOST, *host);
        }
        builder.body(()).unwrap()
    }

    fn code(request: &Request<()>) -> &'static str {
        judge(request, 20, 60).map_or_else(|refusal| refusal.code(), |()| "ok")
    }

    #[test]
    fn a_call_is_judged_by_its_head() {
        assert_eq!(code(&request("GET", "/a?b", &["a"])), "ok");
        assert_eq!(code(&request("TRACE", "/", &["a"])), "method_not_allowed");
        assert_eq!(code(&request("CONNECT", "a:1", &["a"])), "method_not_allowed");
        assert_eq!(code(&request("GET", "/a/%2E./b", &["a"])), "validation_error");
        assert_eq!(code(&request("GET", "/1234567890123456789", &["a"])), "ok");
        assert_eq!(code(&request("GET", "/12345678901234567890", &["a"])), "uri_too_long");
        assert_eq!(
            code(&request("GET", "http://a.long.host.example/?12345678", &["a.long.host.example"])),
            "ok"
        );
    }

    #[test]
    fn a_host_is_there_once_and_is_one() {
        for hosts in [&[][..], &["a", "a"], &["a b"], &["a/b"], &["u@a"], &["a,b:x"], &[":80"]] {
            assert_eq!(code(&request("GET", "/", hosts)), "validation_error", "{hosts:?}");
        }
        for host in ["a", "a:80", "[::1]:80", "", "a_b.example"] {
            assert_eq!(code(&request("GET", "/", &[host])), "ok", "{host}");
        }
        assert_eq!(code(&request("GET", "http://u@a/", &["a"])), "validation_error");
        for (target, host, verdict) in [
            ("http://a/", "A:80", "ok"),
            ("http://a:8080/", "a:8080", "ok"),
            ("http://a/", "b", "validation_error"),
            ("http://a:8080/", "a", "validation_error"),
        ] {
            assert_eq!(code(&request("GET", target, &[host])), verdict, "{target} {host}");
        }
        let mut old = request("GET", "/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(code(&old), "ok");
    }

    #[test]
    fn over_http2_a_length_is_one_number_and_values_have_no_spaces_around_them() {
        let of = |fields: &[(&str, &str)]| {
            let mut request = request("POST", "/", &["a"]);
            *request.version_mut() = Version::HTTP_2;
            for (name, value) in fields {
                let name: header::HeaderName = name.parse().unwrap();
                request.headers_mut().append(name, header::HeaderValue::from_str(value).unwrap());
            }
            code(&request)
        };
        for good in [&[][..], &[("content-length", "10")], &[("x", "a b")], &[("x", "")]] {
            assert_eq!(of(good), "ok", "{good:?}");
        }
        assert_eq!(of(&[("x", &"a".repeat(46))]), "ok", "with host: a");
        assert_eq!(of(&[("x", &"a".repeat(47))]), "headers_too_large");
        for bad in [
            &[("content-length", "1"), ("content-length", "1")][..],
            &[("content-length", "1, 1")],
            &[("content-length", "")],
            &[("content-length", "+1")],
            &[("x", " a")],
            &[("x", "a\t")],
            &[("x", " ")],
        ] {
            assert_eq!(of(bad), "validation_error", "{bad:?}");
        }
    }

    #[test]
    fn nothing_but_our_parameters_is_taken_from_the_target() {
        let of = |target: &str| upstream_target(&target.parse().unwrap());
        assert_eq!(of("/a%2Fb//c?x=%zz&async=false&+"), "/a%2Fb//c?x=%zz&+");
        assert_eq!(of("/a?"), "/a?");
        assert_eq!(of("/a?async=true"), "/a");
        assert_eq!(of("/a?webhook_uri=b"), "/a?webhook_uri=b");
        assert_eq!(of("/a?async=maybe"), "/a?async=maybe");
        assert_eq!(of("http://h/a?b"), "/a?b");
        assert_eq!(of("http://h"), "/");
    }
}
