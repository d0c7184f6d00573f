//! HTTP/2 as an attacker writes it, and what of it the upstream sees.
//!
//! A library would not send these. Nothing may arrive that two HTTP/1.1 parsers could read differently, and
//! a message that RFC 9113 calls malformed (8.1.1) does not arrive at all.

use super::frames::{
    CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, HEADERS, Heard, RST_STREAM, WINDOW_UPDATE, block,
    frame, headers, text_of,
};
use super::strict::{Seen, strict};
use super::support::{Node, Raw, answering, node, node_with, upstream};

type Fields = Vec<(&'static str, &'static str)>;

/// A good beginning.
fn pseudo(method: &'static str, path: &'static str) -> Fields {
    vec![(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", path)]
}

/// A good call with more fields.
fn with(path: &'static str, more: &[(&'static str, &'static str)]) -> Fields {
    [&pseudo("POST", path)[..], more].concat()
}

/// A good call, but for one field, which has other values instead: none, one or several.
fn instead(name: &'static str, values: &[&'static str]) -> Fields {
    let (mut fields, mut values) = (pseudo("GET", "/api/bad"), values.to_vec());
    let at = fields.iter().position(|field| field.0 == name).unwrap();
    fields.splice(at..=at, values.drain(..).map(|value| (name, value)));
    fields
}

/// A whole message on stream 1, its body in one piece.
fn message(fields: &[(&str, &str)], body: Option<&str>) -> Vec<u8> {
    match body {
        None => headers(1, END_STREAM, fields),
        Some(body) => [headers(1, 0, fields), frame(DATA, END_STREAM, 1, body.as_bytes())].concat(),
    }
}

/// What the node makes of some bytes on a connection of their own, and what of it arrives upstream.
async fn outcome(node: &Node, seen: &Seen, bytes: &[u8]) -> (Heard, Vec<String>) {
    let mut client = Client::connect(node.address).await;
    client.try_send(bytes).await;
    let heard = client.heard(1).await;
    // A call after it is answered for itself: nothing of the one before is left on any connection.
    let after = "GET /api/after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = node.answer_to(after).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    let mut arrived = Vec::new();
    for call in seen.take() {
        arrived.push(call.unwrap_or_else(|two_readings| panic!("{two_readings}")));
    }
    let after = arrived.pop().expect("the call after it");
    assert!(after.starts_with("get /v1/after http/1.1\r\n"), "{after}");
    (heard, arrived)
}

/// Expects that a message is refused, in whatever way, and that nothing of it arrives.
async fn refused(cases: Vec<(String, Vec<u8>)>) {
    let (upstream, seen) = strict().await;
    let node = node(upstream.address).await;
    for (name, bytes) in cases {
        let (heard, arrived) = outcome(&node, &seen, &bytes).await;
        let is_refused = match heard {
            Heard::Answer { status, .. } => [400, 404, 405, 414, 431].contains(&status),
            Heard::Reset(_) | Heard::GoAway(_) | Heard::Closed => true,
        };
        assert!(is_refused, "{name}: {heard:?}");
        assert!(arrived.is_empty(), "{name}: {arrived:?}");
    }
}

#[tokio::test]
async fn a_good_call_in_frames_arrives_once() {
    let (upstream, seen) = strict().await;
    let node = node(upstream.address).await;
    for (more, body, framed) in [
        (&[][..], None, None),
        (&[("content-length", "5")], Some("hello"), Some("content-length: 5")),
        (&[], Some("hello"), Some("transfer-encoding: chunked")),
        (&[("te", "trailers")], None, None),
        (&[("host", "a.example")], None, None),
        (&[("x", "")], None, None),
    ] {
        let (heard, arrived) = outcome(&node, &seen, &message(&with("/api/good?a=%20b", more), body)).await;
        assert_eq!(heard, Heard::Answer { status: 200, body: String::from("ok") }, "{more:?}");
        assert_eq!(arrived.len(), 1, "{more:?}");
        assert!(arrived[0].starts_with("post /v1/good?a=%20b http/1.1\r\n"), "{arrived:?}");
        assert!(framed.is_none_or(|framed| arrived[0].contains(framed)), "{arrived:?}");
        assert!(arrived[0].ends_with(&format!("\n{}", body.unwrap_or_default())), "{arrived:?}");
    }
}

#[tokio::test]
async fn a_field_of_one_connection_makes_a_call_malformed() {
    let mut cases = Vec::new();
    for field in [
        ("connection", "close"),
        ("connection", "x-private"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "websocket"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("te", "chunked"),
    ] {
        for path in ["/api/bad", "/api/bad?async=true"] {
            cases.push((format!("{field:?} {path}"), message(&with(path, &[field]), Some("x"))));
        }
    }
    refused(cases).await;
}

#[tokio::test]
async fn a_length_that_is_not_the_bodys_makes_a_call_malformed() {
    let mut cases = Vec::new();
    for (lengths, body) in [
        (&["5"][..], Some("x")),
        (&["1"], Some("xGET /v1/smuggled HTTP/1.1\r\nhost: a\r\n\r\n")),
        (&["0"], Some("GET /v1/smuggled HTTP/1.1\r\nhost: a\r\n\r\n")),
        (&["5"], None),
        (&["1", "1"], Some("x")),
        (&["1", "5"], Some("x")),
        (&["5", "1"], Some("x")),
        (&["1, 1"], Some("x")),
        (&["+1"], Some("x")),
        (&["-1"], Some("x")),
        (&["0x1"], Some("x")),
        (&["1 "], Some("x")),
        (&[""], Some("x")),
        (&["18446744073709551617"], Some("x")),
    ] {
        let fields: Fields = lengths.iter().map(|length| ("content-length", *length)).collect();
        for path in ["/api/bad", "/api/bad?async=true"] {
            cases.push((format!("{lengths:?} {body:?} {path}"), message(&with(path, &fields), body)));
        }
    }
    refused(cases).await;
}

#[tokio::test]
async fn an_authority_that_is_not_the_host_is_refused() {
    let mut cases = Vec::new();
    for hosts in [&["b.example"][..], &["a.example", "a.example"], &["u@a.example"], &["a.example, b"]] {
        let fields: Fields = hosts.iter().map(|host| ("host", *host)).collect();
        cases.push((format!("{hosts:?}"), message(&with("/api/bad", &fields), None)));
    }
    for authorities in [
        &["a.example", "b.example"][..],
        &["u@a.example"],
        &["a b"],
        &["a.example/x"],
        &["a.example\r\nx: y"],
        &["a\0"],
        &["a.example:port"],
    ] {
        cases.push((format!("{authorities:?}"), message(&instead(":authority", authorities), None)));
    }
    refused(cases).await;
}

#[tokio::test]
async fn pseudo_fields_are_there_once_known_and_first() {
    let mut late = pseudo("GET", "/api/bad");
    late.insert(1, ("x-first", "1"));
    let mut cases = vec![(String::from("late"), message(&late, None))];
    for name in [":method", ":scheme", ":path"] {
        cases.push((format!("no {name}"), message(&instead(name, &[]), None)));
    }
    for (name, values) in [
        (":method", ["GET", "GET"]),
        (":method", ["GET", "POST"]),
        (":scheme", ["http", "https"]),
        (":path", ["/api/bad", "/api/bad"]),
        (":path", ["/api/bad", "/api/smuggled"]),
    ] {
        cases.push((format!("{name} {values:?}"), message(&instead(name, &values), None)));
    }
    for field in [(":status", "200"), (":unknown", "1"), (":protocol", "websocket"), (":", "1")] {
        let mut fields = pseudo("GET", "/api/bad");
        fields.insert(0, field);
        cases.push((format!("{field:?}"), message(&fields, None)));
    }
    refused(cases).await;
}

#[tokio::test]
async fn names_and_values_that_http1_would_read_differently_are_refused() {
    let mut cases = Vec::new();
    for name in ["X-Upper", "x y", "x:y", "x\r\ny", "x\ny", "x\ry", "x\0y", "", "x\t", "x\u{7f}", "x(", " x"]
    {
        cases.push((format!("{name:?}"), message(&with("/api/bad", &[(name, "1")]), None)));
    }
    for value in [
        "a\r\nx-smuggled: 1",
        "a\r\n\r\nGET /v1/smuggled HTTP/1.1",
        "a\nb",
        "a\rb",
        "a\0b",
        " a",
        "a ",
        "\ta",
        " ",
        "a\u{7f}",
    ] {
        cases.push((format!("{value:?}"), message(&with("/api/bad", &[("x", value)]), None)));
    }
    for method in ["PO ST", "", "GET /v1/smuggled HTTP/1.1\r\nhost: a\r\n\r\nGET", "G\0T", "G(T"] {
        cases.push((format!("{method:?}"), message(&instead(":method", &[method]), None)));
    }
    refused(cases).await;
}

#[tokio::test]
async fn a_path_that_is_none_is_refused() {
    let mut cases = Vec::new();
    for path in [
        "",
        "*",
        "api/bad",
        "http://a.example/api/bad",
        "http://b.example/api/bad",
        "//b.example/api/../bad",
        "/api/b ad",
        "/api/bad HTTP/1.1\r\nx: y\r\n\r\nGET /api/smuggled",
        "/api/bad\r\nx: y",
        "/api/b\tad",
        "/api/b\0ad",
        "/api/b\u{7f}ad",
        "/api/../bad",
        "/api/%2e%2e/bad",
    ] {
        cases.push((format!("{path:?}"), message(&instead(":path", &[path]), None)));
    }
    refused(cases).await;
}

#[tokio::test]
async fn nobody_gets_a_tunnel_over_http2() {
    let plain = [(":method", "CONNECT"), (":authority", "a.example:443")];
    let extended = [&pseudo("CONNECT", "/api/bad")[..], &[(":protocol", "websocket")]].concat();
    let whole = pseudo("CONNECT", "/api/bad");
    let cases = [("plain", &plain[..]), ("extended", &extended), ("with a path", &whole)];
    refused(cases.map(|(name, fields)| (name.to_owned(), message(fields, None))).into()).await;
}

#[tokio::test]
async fn what_is_odd_but_has_one_reading_arrives_once_and_clean() {
    let (upstream, seen) = strict().await;
    let node = node(upstream.address).await;
    for (name, fields, gone) in [
        ("a fragment", instead(":path", &["/api/odd#smuggled"]), "smuggled"),
        ("an empty authority", instead(":authority", &[""]), "a.example"),
        ("no authority", instead(":authority", &[]), "a.example"),
        ("proxy credentials", with("/api/odd", &[("proxy-authorization", "Basic x")]), "basic x"),
        ("settings of HTTP/2", with("/api/odd", &[("http2-settings", "x")]), "http2-settings"),
    ] {
        let (heard, arrived) = outcome(&node, &seen, &message(&fields, None)).await;
        assert!(arrived.len() <= 1, "{name}: {arrived:?}");
        assert_eq!(
            arrived.len() == 1,
            matches!(heard, Heard::Answer { status: 200, .. }),
            "{name}: {heard:?}"
        );
        assert!(arrived.iter().all(|call| !call.contains(gone)), "{name}: {arrived:?}");
    }
    for field in [
        ("content-length", "9"),
        ("transfer-encoding", "chunked"),
        ("host", "b"),
        ("te", "gzip"),
        (":path", "/api/smuggled"),
        (":status", "200"),
    ] {
        let trailers = headers(1, END_STREAM, &[field, ("x-sum", "1")]);
        let begun = [headers(1, 0, &pseudo("POST", "/api/odd")), frame(DATA, 0, 1, b"x"), trailers].concat();
        let (_, arrived) = outcome(&node, &seen, &begun).await;
        assert!(arrived.len() <= 1, "{field:?}: {arrived:?}");
        let body = arrived.first().and_then(|call| call.split_once("\n\n")).map_or("", |(_, body)| body);
        assert!(!body.contains(field.0), "{field:?}: {arrived:?}");
    }
}

/// Sends until the node no longer takes it; whether it stopped before all was sent.
async fn floods(node: &Node, first: &[u8], again: &[u8], times: usize) -> (bool, Heard) {
    let mut client = Client::connect(node.address).await;
    let mut taken = client.try_send(first).await;
    for _ in 0..times {
        if !taken {
            break;
        }
        taken = client.try_send(again).await;
    }
    (!taken, client.heard(1).await)
}

#[tokio::test]
async fn a_header_section_without_end_is_cut_off() {
    let (upstream, seen) = strict().await;
    let node = node(upstream.address).await;
    let first = frame(HEADERS, END_STREAM, 1, &block(&pseudo("GET", "/api/bad")));
    let piece = frame(CONTINUATION, 0, 1, &block(&[("x", &"a".repeat(16_000))]));
    let empty = frame(CONTINUATION, 0, 1, &[]).repeat(1_000);
    for (name, again) in [("large", piece), ("empty", empty)] {
        // Far more than the buffers between the two hold.
        let (stopped, heard) = floods(&node, &first, &again, 10_000).await;
        assert!(stopped, "{name}: all of it was taken");
        assert!(matches!(heard, Heard::GoAway(_) | Heard::Closed | Heard::Reset(_)), "{name}: {heard:?}");
    }
    let good = message(&pseudo("GET", "/api/good"), None);
    let (heard, arrived) = outcome(&node, &seen, &good).await;
    assert!(matches!(heard, Heard::Answer { status: 200, .. }) && arrived.len() == 1, "{heard:?}");
}

#[tokio::test]
async fn header_lists_beyond_the_limit_are_refused_however_small_their_frames() {
    let large = "a".repeat(9_000);
    let many: Vec<_> = (0..1_000).map(|_| ("x", "y")).collect();
    let mut cases = vec![
        (
            String::from("one large"),
            message(&[&pseudo("GET", "/api/bad")[..], &[("x", &large)]].concat(), None),
        ),
        (String::from("many small"), message(&with("/api/bad", &many), None)),
    ];
    // One field, indexed, and a byte for each repetition: a bomb (RFC 7541, 6.1 and 6.2.1).
    let mut bomb = block(&pseudo("GET", "/api/bad"));
    bomb.push(0x40);
    text_of("x", &mut bomb);
    text_of(&"a".repeat(3_000), &mut bomb);
    bomb.extend([0xbe].repeat(5_000));
    cases.push((String::from("a bomb"), frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)));
    refused(cases).await;
}

#[tokio::test]
async fn calls_that_are_reset_as_soon_as_they_are_made_hold_up_nobody() {
    let script = |mut client: Raw| async move {
        while let Some(head) = client.try_until("\r\n\r\n").await {
            if head.starts_with("GET /v1/good") {
                client.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    };
    let upstream = upstream(script).await;
    let node = node_with(upstream.address, "max_calls = 50", "").await;
    let mut client = Client::connect(node.address).await;
    let mut stopped = false;
    for number in 0..20_000_u32 {
        let stream = 2 * number + 1;
        let call = headers(stream, END_STREAM, &pseudo("GET", "/api/hangs"));
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        if !client.try_send(&[call, reset].concat()).await {
            stopped = true;
            break;
        }
    }
    assert!(stopped, "all of it was taken");
    let good = "GET /api/good HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = node.answer_to(good).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(upstream.connections() <= 300, "{}", upstream.connections());
}

#[tokio::test]
async fn a_client_that_reads_but_has_no_room_for_its_answers_is_hung_up_on() {
    const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nan answer";
    let node = node_with(
        answering(LONG).await.address,
        "stall_timeout = \"100ms\"\nheader_timeout = \"100ms\"\nmax_calls = 20",
        "",
    )
    .await;
    // With room for one byte the library takes the whole answer off our hands and keeps it.
    for room in [0, 1] {
        let mut client = Client::with_room(node.address, room).await;
        for number in 0..20_u32 {
            client.try_send(&headers(2 * number + 1, END_STREAM, &pseudo("GET", "/api/long"))).await;
        }
        // All the while every ping is answered.
        let heard = client.heard(41).await;
        assert!(matches!(heard, Heard::Closed | Heard::GoAway(_)), "{room}: {heard:?}");
        let good = "GET /api/good HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answer = node.answer_to(good).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn a_large_answer_comes_whole_in_small_pieces() {
    let body = "x".repeat(1_000_000);
    let sent = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let upstream = upstream(move |mut client: Raw| {
        let sent = sent.clone();
        async move {
            client.head().await;
            client.send(&sent).await;
            client.ended().await;
        }
    })
    .await;
    let node = node(upstream.address).await;
    let mut client = Client::with_room(node.address, 2_000_000).await;
    let more = frame(WINDOW_UPDATE, 0, 0, &2_000_000_u32.to_be_bytes());
    client.try_send(&more).await;
    client.try_send(&headers(1, END_STREAM, &pseudo("GET", "/api/large"))).await;
    assert_eq!(client.heard(1).await, Heard::Answer { status: 200, body });
}

/// A cookie in pieces is one line upstream.
#[tokio::test]
async fn more_header_lines_than_http1_allows_are_refused_over_http2() {
    let (upstream, seen) = strict().await;
    let node = node(upstream.address).await;
    for (name, lines, expected) in [("x", 100, 200), ("x", 101, 431), ("cookie", 101, 200)] {
        let fields = [pseudo("GET", "/api/many"), vec![(name, "a=b"); lines]].concat();
        let (heard, arrived) = outcome(&node, &seen, &message(&fields, None)).await;
        let Heard::Answer { status, body } = heard else { panic!("{lines} {name}: {heard:?}") };
        assert_eq!(status, expected, "{lines} {name}: {body}");
        assert_eq!(arrived.len(), usize::from(status == 200));
        assert!(status == 200 || body.contains("headers_too_large"), "{body}");
    }
}
