//! Header fields that end here: those of one connection, and those a task does not send.
//!
//! Invariant: after [`strip`] no field is left that speaks about the connection it came over
//! (RFC 9110, 7.6.1), whichever HTTP version that was.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Always about one connection, named in `Connection` or not.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Never dropped, even when `Connection` names them: without them the message is another one.
const END_TO_END: [HeaderName; 2] = [header::HOST, header::CONTENT_LENGTH];

/// Conditions and ranges: a task needs the whole answer, nobody waits for `100 Continue`, and
/// trailers are kept neither of the call nor of the answer.
const NOT_IN_A_TASK: [HeaderName; 9] = [
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::EXPECT,
    header::TE,
    header::TRAILER,
];

/// Fields that decide framing, routing or authority and so may not arrive after the body
/// (RFC 9110, 6.5.1).
const NOT_IN_TRAILERS: [HeaderName; 5] =
    [header::HOST, header::CONTENT_LENGTH, header::TRAILER, header::TE, header::AUTHORIZATION];

/// Removes hop-by-hop fields, those that `Connection` names included. `TE: trailers` stays in the
/// one form every version allows; who sends it over HTTP/1.1 adds it to `Connection`.
pub fn strip(headers: &mut HeaderMap) {
    let wants_trailers = lists(headers, &header::TE, "trailers");
    for name in named_by_connection(headers) {
        if !END_TO_END.contains(&name) {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(header::TE);
    }
}

/// Removes from a trailer section what has no place there.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    strip(trailers);
    for name in NOT_IN_TRAILERS {
        trailers.remove(name);
    }
}

/// Removes what a task does not send upstream, our own preferences (`respond-async`, `wait`)
/// included; other preferences stay as they are.
pub fn strip_for_task(headers: &mut HeaderMap) {
    for name in NOT_IN_A_TASK {
        headers.remove(name);
    }
    let prefer = HeaderName::from_static("prefer");
    let lines: Vec<HeaderValue> =
        headers.get_all(&prefer).iter().filter_map(without_our_preferences).collect();
    headers.remove(&prefer);
    for line in lines {
        headers.append(&prefer, line);
    }
}

/// Joins `Cookie` lines, which HTTP/2 may split and HTTP/1.1 may not (RFC 9113, 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// What is left of one `Prefer` line (RFC 7240, 2), where anything is.
fn without_our_preferences(line: &HeaderValue) -> Option<HeaderValue> {
    let Ok(text) = line.to_str() else { return Some(line.clone()) };
    let preferences = members(text);
    let others: Vec<&str> = preferences.iter().copied().filter(|one| !is_our_preference(one)).collect();
    if others.len() == preferences.len() {
        return Some(line.clone());
    }
    let text = others.join(",");
    HeaderValue::from_str(text.trim()).ok().filter(|left| !left.is_empty())
}

fn is_our_preference(preference: &str) -> bool {
    let name = preference.split(['=', ';']).next().unwrap_or_default().trim();
    name.eq_ignore_ascii_case("respond-async") || name.eq_ignore_ascii_case("wait")
}

/// The members of a comma-separated list whose values may be quoted strings.
pub(super) fn members(text: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|character| {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' => return !quoted,
            _ => {}
        }
        false
    })
    .collect()
}

/// The protocol to upgrade to, where the client asks for one that can be tunnelled.
///
/// `h2c` is none: inside it a client could call other paths than the one that was routed.
#[must_use]
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers.get(header::UPGRADE)?;
    let tunnels = lists(headers, &header::CONNECTION, "upgrade") && !lists(headers, &header::UPGRADE, "h2c");
    tunnels.then(|| wanted.clone())
}

/// Whether a comma-separated field has this member, in any letter case and on any line.
fn lists(headers: &HeaderMap, name: &HeaderName, member: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|found| found.trim().eq_ignore_ascii_case(member))
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn connection_and_what_it_names_end_here() {
        let mut found = headers(&[
            ("connection", "close, X-Private"),
            ("connection", "keep-alive,x-second"),
            ("x-private", "1"),
            ("x-second", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("proxy-authenticate", "Basic"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("te", "gzip"),
            ("trailer", "x-sum"),
            ("authorization", "Bearer t"),
            ("x-public", "3"),
        ]);
        strip(&mut found);
        let left = [("trailer", "x-sum"), ("authorization", "Bearer t"), ("x-public", "3")];
        assert_eq!(found, headers(&left));
    }

    #[test]
    fn te_keeps_only_trailers() {
        let mut found = headers(&[("te", "deflate;q=0.5, Trailers"), ("connection", "te")]);
        strip(&mut found);
        assert_eq!(found, headers(&[("te", "trailers")]));
    }

    #[test]
    fn connection_cannot_remove_host_or_length() {
        let mut found =
            headers(&[("connection", "host, content-length"), ("host", "a"), ("content-length", "3")]);
        strip(&mut found);
        assert_eq!(found, headers(&[("host", "a"), ("content-length", "3")]));
    }

    #[test]
    fn a_task_sends_no_conditions_and_none_of_our_preferences() {
        let mut found = headers(&[
            ("range", "bytes=0-1"),
            ("if-none-match", "*"),
            ("if-range", "x"),
            ("expect", "100-continue"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("prefer", "respond-async, handling=lenient, wait=10"),
            ("prefer", "Respond-Async; x=1"),
            ("prefer", "note=\"wait=1, respond-async\""),
            ("accept", "*/*"),
        ]);
        strip_for_task(&mut found);
        let left =
            [("prefer", "handling=lenient"), ("prefer", "note=\"wait=1, respond-async\""), ("accept", "*/*")];
        assert_eq!(found, headers(&left));
    }

    #[test]
    fn an_upgrade_needs_both_fields_and_is_never_h2c() {
        let of = |lines| upgrade(&headers(lines)).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(
            of(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]),
            Some("websocket".into())
        );
        assert_eq!(of(&[("upgrade", "websocket")]), None);
        assert_eq!(of(&[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")]), None);
        assert_eq!(of(&[("connection", "upgrade"), ("upgrade", "websocket, H2C")]), None);
    }

    #[test]
    fn split_cookies_are_joined() {
        let mut found = headers(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3")]);
        join_cookies(&mut found);
        assert_eq!(found, headers(&[("cookie", "a=1; b=2; c=3"), ("x", "y")]));
    }

    #[test]
    fn trailers_cannot_carry_framing_or_credentials() {
        let mut found =
            headers(&[("content-length", "1"), ("host", "a"), ("authorization", "b"), ("x-sum", "c")]);
        strip_trailers(&mut found);
        assert_eq!(found, headers(&[("x-sum", "c")]));
    }

    proptest! {
        #[test]
        fn nothing_hop_by_hop_survives_and_nothing_else_goes(
            names in prop::collection::vec("(connection|te|upgrade|keep-alive|host|x-[ab])", 0..8),
            named in "(x-a|host|close)(, ?(x-a|upgrade))?",
        ) {
            let mut found = HeaderMap::new();
            for name in &names {
                let value = if name == "connection" { named.as_str() } else { "v" };
                found.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
            }
            let before = found.clone();
            strip(&mut found);
            let ends_here = |name: &str| {
                ["connection", "te", "upgrade", "keep-alive"].contains(&name)
                    || (name == "x-a" && before.contains_key("connection") && named.contains("x-a"))
            };
            for name in before.keys() {
                prop_assert_eq!(found.contains_key(name), !ends_here(name.as_str()), "{}", name);
            }
            let once = found.clone();
            strip(&mut found);
            prop_assert_eq!(found, once);
        }
    }
}
