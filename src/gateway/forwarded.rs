//! What the upstream is told about the client: `X-Forwarded-*` and `Forwarded` (RFC 7239).
//!
//! Invariant: an upstream that believes these fields believes only us and the proxies we were told
//! to trust, never the client.

use std::net::IpAddr;

use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whether the fields of this peer are believed.
#[must_use]
pub fn is_trusted(peer: IpAddr, proxies: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    proxies.iter().any(|network| network.contains(&peer))
}

/// Writes the fields for a call from `peer` with the authority `host`; `scheme` is that of our listener.
///
/// A trusted peer's fields are appended to. Of `X-Forwarded-For` and `Forwarded` only those it sent
/// are: beginning the other would name the peer as the first client. Host and scheme as it saw them stay.
pub fn apply(
    headers: &mut HeaderMap,
    peer: IpAddr,
    trusted: bool,
    host: Option<&HeaderValue>,
    scheme: &'static str,
) {
    let peer = peer.to_canonical();
    let client = peer.to_string();
    let begun = if trusted {
        (headers.contains_key(FOR), headers.contains_key(FORWARDED))
    } else {
        remove_all(headers);
        (false, false)
    };
    if begun != (true, false) {
        append(headers, &FORWARDED, element(peer, &client, host, scheme));
    }
    if begun != (false, true) {
        append(headers, &FOR, client);
    }
    if let Some(host) = host
        && !headers.contains_key(X_HOST)
    {
        headers.insert(X_HOST, host.clone());
    }
    if !headers.contains_key(PROTO) {
        headers.insert(PROTO, HeaderValue::from_static(scheme));
    }
}

fn remove_all(headers: &mut HeaderMap) {
    let found: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-forwarded-")).cloned().collect();
    for name in found {
        headers.remove(name);
    }
    headers.remove(FORWARDED);
}

/// Joins the lines of `name` and adds `last`. What cannot be read back as text is replaced.
fn append(headers: &mut HeaderMap, name: &HeaderName, last: String) {
    if !headers.contains_key(name) {
        if let Ok(value) = HeaderValue::try_from(last) {
            headers.insert(name, value);
        }
        return;
    }
    let mut members: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .filter(|line| !line.is_empty())
        .collect();
    members.push(&last);
    let joined = members.join(", ");
    if let Ok(value) = HeaderValue::from_str(&joined) {
        headers.insert(name.clone(), value);
    }
}

/// One `forwarded-element` (RFC 7239, 4). An IPv6 address stands in brackets and so in quotes.
fn element(peer: IpAddr, client: &str, host: Option<&HeaderValue>, scheme: &str) -> String {
    let (opening, closing) = if peer.is_ipv6() { ("\"[", "]\"") } else { ("", "") };
    let host = host.and_then(|host| host.to_str().ok());
    let mut element = String::with_capacity(96 + host.map_or(0, str::len));
    for part in ["for=", opening, client, closing] {
        element.push_str(part);
    }
    if let Some(host) = host {
        element.push_str(";host=");
        push_token_or_quoted(&mut element, host);
    }
    element.push_str(";proto=");
    element.push_str(scheme);
    element
}

fn push_token_or_quoted(line: &mut String, text: &str) {
    if !text.is_empty() && text.bytes().all(is_token_byte) {
        line.push_str(text);
        return;
    }
    line.push('"');
    for character in text.chars() {
        if matches!(character, '\\' | '"') {
            line.push('\\');
        }
        line.push(character);
    }
    line.push('"');
}

/// RFC 9110, 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The authority a call names: the target's where it has one (RFC 9112, 3.2.2), else `Host`.
#[must_use]
pub fn client_host(uri: &http::Uri, headers: &HeaderMap) -> Option<HeaderValue> {
    match uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => headers.get(HOST).filter(|host| !host.is_empty()).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(lines: &[(&str, &str)], peer: &str, trusted: bool, host: Option<&str>) -> Vec<(String, String)> {
        let mut headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let host = host.map(|host| HeaderValue::from_str(host).unwrap());
        apply(&mut headers, peer.parse().unwrap(), trusted, host.as_ref(), "http");
        let mut found: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        found.sort();
        found
    }

    fn expected(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        lines.iter().map(|(name, value)| (String::from(*name), String::from(*value))).collect()
    }

    #[test]
    fn what_a_client_says_about_itself_is_replaced() {
        let lies = [
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "1"),
        ];
        assert_eq!(
            after(&lies, "203.0.113.9", false, Some("api.example")),
            expected(&[
                ("forwarded", "for=203.0.113.9;host=api.example;proto=http"),
                ("x-forwarded-for", "203.0.113.9"),
                ("x-forwarded-host", "api.example"),
                ("x-forwarded-proto", "http"),
            ])
        );
    }

    #[test]
    fn a_trusted_proxy_is_appended_to() {
        let told = [
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "h"),
        ];
        assert_eq!(
            after(&told, "::ffff:10.0.0.1", true, Some("inner:8080")),
            expected(&[
                ("forwarded", "for=1.1.1.1, for=10.0.0.1;host=\"inner:8080\";proto=http"),
                ("x-forwarded-for", "1.1.1.1, 2.2.2.2, 10.0.0.1"),
                ("x-forwarded-host", "h"),
                ("x-forwarded-proto", "https"),
            ])
        );
    }

    #[test]
    fn a_field_the_trusted_proxy_does_not_use_is_not_begun() {
        let names = |found: Vec<(String, String)>| found.into_iter().map(|line| line.0).collect::<Vec<_>>();
        let used = [("x-forwarded-for", "1.1.1.1")];
        assert_eq!(names(after(&used, "10.0.0.1", true, None)), ["x-forwarded-for", "x-forwarded-proto"]);
        let used = [("forwarded", "for=1.1.1.1")];
        assert_eq!(names(after(&used, "10.0.0.1", true, None)), ["forwarded", "x-forwarded-proto"]);
    }

    #[test]
    fn an_ipv6_client_is_quoted() {
        let found = after(&[], "2001:db8::1", false, Some("[2001:db8::2]:80"));
        assert_eq!(found[0].1, "for=\"[2001:db8::1]\";host=\"[2001:db8::2]:80\";proto=http");
        assert_eq!(found[1].1, "2001:db8::1");
    }

    #[test]
    fn trust_follows_the_network_also_for_mapped_addresses() {
        let proxies = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for (peer, trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("fd00::1", true),
            ("11.0.0.1", false),
            ("::1", false),
        ] {
            assert_eq!(is_trusted(peer.parse().unwrap(), &proxies), trusted, "{peer}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_host_reads_back(host in "[!-~]{1,20}") {
            let mut written = String::new();
            push_token_or_quoted(&mut written, &host);
            let read = match written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
                Some(quoted) if written.len() > 1 => {
                    let mut read = String::new();
                    let mut characters = quoted.chars();
                    while let Some(character) = characters.next() {
                        prop_assert_ne!(character, '"');
                        read.push(if character == '\\' { characters.next().unwrap() } else { character });
                    }
                    read
                }
                _ => written,
            };
            prop_assert_eq!(read, host);
        }
    }
}
