//! What must hold of any header a client sends.

use std::net::{IpAddr, Ipv4Addr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ringback::admin::guard::Guard;
use ringback::gateway::coding::Coding;
use ringback::gateway::prefer::Preferences;
use ringback::gateway::repeat::IdempotencyKey;
use ringback::gateway::results::conditions::{self, Verdict};
use ringback::gateway::results::ranges::{self, Wanted};
use ringback::gateway::{accept, forwarded, hop, path, target};

/// A line of the input is a line of this header.
fn lines(name: &HeaderName, input: &[u8]) -> HeaderMap {
    let values = input.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    values.map(|value| (name.clone(), value)).collect()
}

/// A line of the input is a header line of its own: what cannot be one is left out.
fn section(input: &[u8]) -> HeaderMap {
    let lines = input.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = line[colon + 1..].trim_ascii();
        Some((HeaderName::from_bytes(&line[..colon]).ok()?, HeaderValue::from_bytes(value).ok()?))
    });
    lines.collect()
}

fn text(headers: &HeaderMap) -> String {
    let values = headers.values().map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
    values.collect::<Vec<_>>().join(",")
}

/// Only who names a representation of ours gets it.
pub fn accept(input: &[u8]) {
    let headers = lines(&header::ACCEPT, input);
    let said = text(&headers);
    assert!(!accept::wants_events(&headers) || said.contains(accept::EVENT_STREAM), "{said:?}");
    assert!(!accept::wants_problem(&headers) || said.contains(accept::PROBLEM), "{said:?}");
}

/// Who says nothing takes every coding; who says something takes none that is not named or meant by `*`.
pub fn accept_encoding(input: &[u8]) {
    let headers = lines(&header::ACCEPT_ENCODING, input);
    let said = text(&headers);
    let codings = [
        (Coding::Gzip, "gzip"),
        (Coding::Deflate, "deflate"),
        (Coding::Brotli, "br"),
        (Coding::Zstd, "zstd"),
    ];
    for (coding, name) in codings {
        let taken = coding.is_acceptable(&headers);
        assert!(!taken || headers.is_empty() || said.contains(name) || said.contains('*'), "{said:?}");
        assert!(taken || !headers.is_empty());
    }
    // The same bytes as the upstream's coding: what is undone is what is named.
    let named = Coding::of(&lines(&header::CONTENT_ENCODING, input));
    assert!(named.is_none_or(|named| codings.iter().any(|(one, name)| *one == named && said.contains(name))));
}

/// A preference is applied only where it is there, and the first one counts.
pub fn prefer(input: &[u8]) {
    let headers = lines(&HeaderName::from_static("prefer"), input);
    let (found, said) = (Preferences::of(&headers), text(&headers));
    assert!(!found.respond_async || said.contains("respond-async"), "{said:?}");
    if let Some(seconds) = found.wait {
        let digits = said.split(|byte: char| !byte.is_ascii_digit());
        let mut numbers = digits.filter(|digits| !digits.is_empty());
        let meant = |digits: &str| digits.parse().unwrap_or(u64::MAX) == seconds;
        assert!(said.contains("wait") && numbers.any(meant), "{said:?}");
    }
    let mut more = headers;
    more.append("prefer", HeaderValue::from_static("wait=1, wait=2, respond-async=no"));
    let again = Preferences::of(&more);
    assert!(again.wait == found.wait || found.wait.is_none(), "{said:?}");
    assert!(again.respond_async == found.respond_async, "{said:?}");
}

/// Of any result: the whole, or slices of it, not more bytes than it has, not more slices than are worth it.
pub fn range(input: &[u8]) {
    let Ok(said) = std::str::from_utf8(input) else { return };
    for length in [0, 1, 10, 262_144, 1 << 62] {
        let Wanted::Parts(parts) = ranges::wanted(said, length) else { continue };
        assert!((1..=16).contains(&parts.len()), "{said:?}");
        for part in &parts {
            assert!(part.start < part.end && part.end <= length, "{said:?} of {length}: {part:?}");
        }
        let asked: u128 = parts.iter().map(|part| u128::from(part.end - part.start)).sum();
        assert!(asked <= u128::from(length), "{said:?} of {length}: {asked} bytes");
    }
}

/// What is not sent is not sent for a condition that is there, and a client never has what it does not name.
pub fn conditions(input: &[u8]) {
    let request = section(input);
    let answer = HeaderMap::from_iter([
        (header::ETAG, HeaderValue::from_static("\"3f9-tag\"")),
        (header::LAST_MODIFIED, HeaderValue::from_static("Sat, 29 Oct 1994 19:43:31 GMT")),
    ]);
    let has = |name: &HeaderName| request.contains_key(name);
    let names = |name: &HeaderName| {
        request.get_all(name).iter().any(|value| {
            let value = value.as_bytes();
            value.trim_ascii() == b"*" || value.windows(9).any(|tag| tag == b"\"3f9-tag\"")
        })
    };
    match conditions::judge(&request, &answer) {
        Verdict::Send => {}
        Verdict::NotModified if has(&header::IF_NONE_MATCH) => assert!(names(&header::IF_NONE_MATCH)),
        Verdict::NotModified => assert!(has(&header::IF_MODIFIED_SINCE)),
        Verdict::Failed => assert!(has(&header::IF_MATCH) || has(&header::IF_UNMODIFIED_SINCE)),
    }
    if has(&header::IF_MATCH) && !names(&header::IF_MATCH) {
        assert_eq!(conditions::judge(&request, &answer), Verdict::Failed);
    }
    if !has(&header::IF_RANGE) {
        assert!(conditions::range_applies(&request, &answer));
    }
    // An answer without validators meets no condition that needs one.
    if !has(&header::IF_NONE_MATCH) && !has(&header::IF_MATCH) {
        assert_eq!(conditions::judge(&request, &HeaderMap::new()), Verdict::Send);
    }
}

/// One key of 1 to 255 visible characters, or a refusal.
pub fn idempotency_key(input: &[u8]) {
    let name = HeaderName::from_static("idempotency-key");
    let headers = lines(&name, input);
    let fit =
        |key: &HeaderValue| (1..=255).contains(&key.len()) && key.as_bytes().iter().all(u8::is_ascii_graphic);
    let (count, first) = (headers.len(), headers.get(&name));
    match IdempotencyKey::of(&headers) {
        Ok(None) => assert_eq!(count, 0),
        Ok(Some(_)) => assert!(count == 1 && first.is_some_and(fit)),
        Err(_) => assert!(count > 1 || !first.is_some_and(fit)),
    }
}

/// Nothing about the connection goes on, however it is named; what frames and addresses a message stays.
pub fn connection(input: &[u8]) {
    let mut headers = section(input);
    let before = headers.clone();
    hop::strip(&mut headers);
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        assert!(!headers.contains_key(name), "{name} is left");
    }
    for name in [header::HOST, header::CONTENT_LENGTH] {
        assert_eq!(before.get(&name), headers.get(&name));
    }
    assert!(headers.get(header::TE).is_none_or(|te| te == "trailers"));
    let once = headers.clone();
    hop::strip(&mut headers);
    assert_eq!(headers, once, "stripping is done in one go");
    hop::strip_for_task(&mut headers);
    for name in [header::RANGE, header::IF_MATCH, header::IF_NONE_MATCH, header::EXPECT, header::TE] {
        assert!(!headers.contains_key(&name), "{name} is left");
    }
}

/// Of what a stranger says about forwarding nothing is left, and of what a proxy says nothing is lost.
pub fn forwarding(input: &[u8]) {
    let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    let host = HeaderValue::from_static("api.example");
    let names = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    let mut silent = HeaderMap::new();
    forwarded::apply(&mut silent, peer, false, Some(&host), "http");
    let mut stranger = section(input);
    forwarded::apply(&mut stranger, peer, false, Some(&host), "http");
    for name in names {
        let of = |headers: &HeaderMap| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        assert_eq!(of(&stranger), of(&silent), "{name}");
    }
    let mut proxied = section(input);
    let before = proxied.clone();
    forwarded::apply(&mut proxied, peer, true, Some(&host), "http");
    for name in ["x-forwarded-host", "x-forwarded-proto"] {
        assert!(!before.contains_key(name) || proxied.get(name) == before.get(name), "{name}");
    }
}

/// Whatever is routed below a prefix stays there, also for a server that decodes and resolves it.
pub fn path(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if path::has_dot_segment(text) {
        return;
    }
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(text).collect();
    let segments = decoded.split(|byte| matches!(byte, b'/' | b'\\'));
    for segment in segments {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        assert!(name != b"." && name != b"..", "{text:?}");
    }
    if let Some(found) = path::results("/data/v1", "/results", text) {
        assert!(text.starts_with("/data/v1/results/"), "{text:?}");
        assert!(!found.id.is_empty() && !found.id.contains('/'), "{text:?}");
    }
}

/// A call that is let in names one host, however often it says it, and no user.
pub fn host(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let Ok(uri) = http::Uri::try_from(parts.next().unwrap_or_default()) else { return };
    let headers = section(parts.next().unwrap_or_default());
    let mut request = http::Request::new(());
    (*request.uri_mut(), *request.headers_mut()) = (uri, headers);
    if target::judge(&request, 1_000, 1_000).is_err() {
        return;
    }
    let hosts: Vec<_> = request.headers().get_all(header::HOST).iter().collect();
    assert_eq!(hosts.len(), 1);
    let host = std::str::from_utf8(hosts[0].as_bytes()).expect("a host is ASCII");
    assert!(!host.contains(['@', '/', ' ', '\\']), "{host:?}");
    let named = request.uri().authority().map(|named| named.host().to_ascii_lowercase());
    assert!(
        named.is_none_or(|named| host.is_empty() || host.to_ascii_lowercase().starts_with(&named)),
        "{host:?}"
    );
    // What goes upstream has our parameters no more, and the path as it was.
    assert!(target::upstream_target(request.uri()).starts_with(request.uri().path()));
}

/// Nobody gets in with another token than the one, under another host than this machine's, or from another's page.
pub fn admin(input: &[u8]) {
    let headers = section(input);
    let only = |name: &HeaderName| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let token = || Some(ringback::secret::Secret::new("s3cret-token"));
    if (Guard { loopback: true, token: None }).judge(&headers).is_ok() {
        let host = only(&header::HOST).expect("a host").to_ascii_lowercase();
        let host = host.rsplit('@').next().unwrap_or_default();
        assert!(["localhost", "127.", "[::1]", "::1"].iter().any(|here| host.starts_with(here)), "{host:?}");
        let origin = only(&header::ORIGIN);
        assert!(origin.is_none_or(|origin| origin.to_ascii_lowercase().ends_with(host)), "{host:?}");
    }
    for loopback in [false, true] {
        if (Guard { loopback, token: token() }).judge(&headers).is_ok() {
            assert!(only(&header::AUTHORIZATION).is_some_and(|sent| sent.trim().ends_with(" s3cret-token")));
        }
    }
    assert!(Guard { loopback: false, token: None }.judge(&headers).is_err());
}

/// An id is one spelling of one number, whatever letter case it is written in.
pub fn task_id(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(id) = text.parse::<ringback::id::TaskId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
}
