//! Whether a text is a path, a URL, an origin, a host name. Each `…_fault` says what is wrong, in
//! words that follow the key's name, and never quotes the text.

use http::Uri;
use http::uri::Scheme;

/// What is wrong with `/data/v1` as a place calls are matched with: whole segments of RFC 3986, none
/// of them empty or made of dots, encoded or not.
pub fn path_fault(path: &str) -> Option<&'static str> {
    let Some(rest) = path.strip_prefix('/') else { return Some("must start with `/`") };
    if rest.ends_with('/') {
        return Some("must not end with `/`");
    }
    if rest.is_empty() || rest.split('/').any(str::is_empty) {
        return Some("must not hold an empty segment");
    }
    if rest.contains(['?', '#']) {
        return Some("must be a path without query or fragment");
    }
    if !rest.bytes().all(is_path_byte) {
        return Some("must be written as in a URL, other characters percent-encoded");
    }
    let is_dots = |segment: &str| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        segment == "." || segment == ".."
    };
    rest.split('/').any(is_dots).then_some("must not hold `.` or `..` segments")
}

/// RFC 3986 section 3.3: `pchar`, and the slash between segments.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&byte)
}

/// What is wrong with the URL of an upstream: absolute, http or https, no more than a path.
pub fn base_url_fault(url: &str) -> Option<&'static str> {
    if url.is_empty() {
        return Some("is missing; give the API's address, such as \"http://127.0.0.1:9000\"");
    }
    if url.contains('#') {
        return Some("must have no fragment");
    }
    if let Some(why) = url_fault(url) {
        return Some(why);
    }
    let uri = url.parse::<Uri>().ok()?;
    if uri.query().is_some() {
        return Some("must have no query");
    }
    match uri.path() {
        "/" => None,
        path => path_fault(path),
    }
}

/// What is wrong with an absolute http or https URL without user-info.
pub fn url_fault(url: &str) -> Option<&'static str> {
    let not_absolute = Some("must be an absolute URL such as \"https://api.example.com/v1\"");
    let Ok(uri) = url.parse::<Uri>() else { return not_absolute };
    let Some(authority) = uri.authority() else { return not_absolute };
    if uri.scheme().is_none_or(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
        return Some("must start with http:// or https://");
    }
    if authority.as_str().contains('@') {
        return Some("must hold no user name or password; set a header instead");
    }
    if authority.host().is_empty() {
        return not_absolute;
    }
    let rest = &authority.as_str()[authority.host().len()..];
    let is_port = rest.is_empty() || authority.port_u16().is_some_and(|port| port != 0);
    (!is_port).then_some("has a port that is not one of 1 to 65535")
}

/// What is wrong with scheme, host and port under which clients reach this node.
pub fn public_url_fault(url: &str) -> Option<&'static str> {
    if let Some(why) = url_fault(url) {
        return Some(why);
    }
    let is_origin = url.matches('/').count() == 2 && !url.contains(['?', '#']);
    (!is_origin).then_some("must be scheme, host and port only, without path, query or fragment")
}

/// What browsers send as `Origin` (RFC 6454), or the star for all.
pub fn is_origin(text: &str) -> bool {
    let is_odd = |byte: u8| byte.is_ascii_uppercase() || byte == b'*';
    text == "*" || (public_url_fault(text).is_none() && !text.bytes().any(is_odd))
}

/// Letters, digits, hyphens, dots and underscores; an address literal is a matter for networks.
pub fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| !label.is_empty())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_is_whole_segments() {
        for path in ["/data", "/data/v1", "/a%20b", "/a:b@c", "/...", "/.well-known"] {
            assert_eq!(path_fault(path), None, "{path}");
        }
        for path in [
            "", "data", "/", "/a/", "//a", "/a//b", "/.", "/a/../b", "/%2E%2e", "/.%2e/a", "/a?b", "/a#b",
            "/a b", "/ä",
        ] {
            assert!(path_fault(path).is_some(), "{path}");
        }
    }

    #[test]
    fn an_upstream_url_is_absolute_http_and_no_more_than_a_path() {
        for url in [
            "http://a",
            "https://a.example:8443/v1",
            "http://[::1]:80",
            "http://127.0.0.1:1/a/b",
            "http://a/",
        ] {
            assert_eq!(base_url_fault(url), None, "{url}");
        }
        for url in [
            "",
            "/v1",
            "a.example",
            "a.example:80",
            "ftp://a",
            "http://",
            "http://u:p@a",
            "http://a?x=1",
            "http://a/#f",
            "http://a:0",
            "http://a:99999",
            "http://a:",
            "http://a/v1/../v2",
            "http://a//b",
            "http:///a",
        ] {
            assert!(base_url_fault(url).is_some(), "{url}");
        }
    }

    #[test]
    fn an_origin_has_no_path_and_no_capitals() {
        for origin in ["*", "https://app.example.com", "http://localhost:3000", "http://[::1]:3000"] {
            assert!(is_origin(origin), "{origin}");
        }
        for origin in [
            "",
            "app.example.com",
            "https://app.example.com/",
            "https://a/b",
            "https://A.example",
            "null",
            "https://*.a",
        ] {
            assert!(!is_origin(origin), "{origin}");
        }
    }

    #[test]
    fn a_host_name_is_not_a_url() {
        for host in ["localhost", "hooks.example.com", "my_service"] {
            assert!(is_host_name(host), "{host}");
        }
        for host in ["", "https://a", "a:443", "a/b", "a..b", "*.a", "[::1]", "a b"] {
            assert!(!is_host_name(host), "{host}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_checks_panic(text in ".*") {
            let _ = (path_fault(&text), base_url_fault(&text), public_url_fault(&text), is_origin(&text), is_host_name(&text));
        }

        #[test]
        fn a_path_that_passes_is_a_path_to_the_http_library_too(text in "/[ -~]{0,12}") {
            if path_fault(&text).is_none() {
                let uri = text.parse::<Uri>().unwrap();
                prop_assert_eq!(uri.path(), &text);
            }
        }
    }
}
