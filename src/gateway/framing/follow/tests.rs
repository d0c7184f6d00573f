use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { target: 100, headers: 200 };

/// What came of a stream of bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Followed {
    heads: Vec<Vec<u8>>,
    bodies: Vec<Vec<u8>>,
    end: Option<Step>,
}

/// Feeds the bytes in pieces cut at `cuts`.
fn follow(bytes: &[u8], cuts: &[usize]) -> Followed {
    let mut follower = Follower::new(LIMITS);
    let mut outcome = Followed::default();
    let mut there = Vec::new();
    let mut sorted: Vec<usize> =
        cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
    sorted.sort_unstable();
    let mut from = 0;
    for to in sorted {
        there.extend_from_slice(&bytes[from..to]);
        from = to;
        loop {
            let step = follower.step(&there);
            let taken = match step {
                Step::Head(count) => {
                    outcome.heads.push(there[..count].to_vec());
                    outcome.bodies.push(Vec::new());
                    count
                }
                Step::Body(count) => {
                    outcome.bodies.last_mut().unwrap().extend_from_slice(&there[..count]);
                    count
                }
                Step::Drop(count) => count,
                Step::More => break,
                Step::Hold | Step::Refuse(..) | Step::Break => {
                    outcome.end = Some(step);
                    return outcome;
                }
            };
            there.drain(..taken);
        }
    }
    outcome
}

fn chunked(body: &str) -> Followed {
    follow(format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}").as_bytes(), &[])
}

#[test]
fn each_message_ends_where_it_says() {
    let bytes = b"\r\nPOST /1 HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET \
        POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n0\r\nSum: 1\r\n\r\n\
        GET /3 HTTP/1.1\r\n\r\n";
    let followed = follow(bytes, &[]);
    assert_eq!(followed.end, None);
    assert_eq!(followed.heads.len(), 3);
    assert_eq!(followed.bodies, [&b"GET "[..], b"3;x=\"y\"\r\nabc\r\n0\r\nSum: 1\r\n\r\n", b""]);
}

#[test]
fn chunks_that_two_parsers_could_read_differently_break_the_body() {
    for body in [
        "3\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n",
        "+3\r\nabc\r\n",
        "-3\r\nabc\r\n",
        "\r\n",
        ";x\r\n",
        "3;a\rb\r\nabc",
        "3;a\0\r\nabc",
        "3\r\nabcd\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "10000000000000000\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\nA: b\n\r\n",
        "0\r\n a: b\r\n\r\n",
        "0\r\n\n",
    ] {
        assert_eq!(chunked(body).end, Some(Step::Break), "{body:?}");
    }
    assert_eq!(chunked(&format!("3;{}", "x".repeat(2000))).end, Some(Step::Break));
    assert_eq!(chunked(&format!("0\r\nA: {}", "x".repeat(300))).end, Some(Step::Break));
}

#[test]
fn a_head_beyond_its_limits_is_refused_before_it_ends() {
    let target = format!("GET /{}", "x".repeat(200));
    assert_eq!(follow(target.as_bytes(), &[]).end, Some(Step::Refuse(Refusal::UriTooLong(100), Form::Json)));
    let headers = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(400));
    assert_eq!(
        follow(headers.as_bytes(), &[]).end,
        Some(Step::Refuse(Refusal::HeadersTooLarge(200), Form::Json))
    );
}

#[test]
fn a_head_that_is_refused_is_answered_as_it_asked_for_within_the_limits() {
    let accept = "Accept: application/problem+json\r\n";
    let form = |head: String| match follow(head.as_bytes(), &[]).end {
        Some(Step::Refuse(_, form)) => form,
        other => panic!("{head}: {other:?}"),
    };
    let long = "x".repeat(400);
    assert_eq!(form(format!("GET / HTTP/1.1\r\n{accept}A: {long}")), Form::Problem);
    assert_eq!(form(format!("GET / HTTP/1.1\r\n{accept}A: {long}\r\n\r\n")), Form::Problem);
    assert_eq!(form(format!("GET / HTTP/1.1\r\n{accept}A : b\r\n\r\n")), Form::Problem);
    assert_eq!(form(format!("CONNECT a:1 HTTP/1.1\r\n{accept}\r\n")), Form::Problem);
    assert_eq!(form(format!("GET / HTTP/1.1\r\nA: {long}\r\n{accept}\r\n")), Form::Json);
    assert_eq!(form(format!("GET /{long} HTTP/1.1\r\n{accept}\r\n")), Form::Json);
}

#[test]
fn a_bare_line_feed_is_refused_where_it_stands() {
    assert!(matches!(
        follow(b"GET / HTTP/1.1\nHost: a", &[]).end,
        Some(Step::Refuse(Refusal::Invalid(_), _))
    ));
}

#[test]
fn after_a_refusal_nothing_goes_on() {
    let bytes = b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\nA : b\r\n\r\nGET /3 HTTP/1.1\r\n\r\n";
    let followed = follow(bytes, &[]);
    assert_eq!(followed.heads, [b"GET /1 HTTP/1.1\r\n\r\n"]);
    assert!(matches!(followed.end, Some(Step::Refuse(..))));
}

#[test]
fn nothing_follows_a_wish_to_upgrade_until_it_is_answered() {
    let mut follower = Follower::new(LIMITS);
    let bytes = b"POST / HTTP/1.1\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\nbGET / HTTP/1.1\r\n\r\n";
    let Step::Head(head) = follower.step(bytes) else { panic!("no head") };
    assert_eq!(follower.step(&bytes[head..]), Step::Body(1));
    let rest = &bytes[head + 1..];
    assert_eq!(follower.step(rest), Step::Hold);
    assert_eq!(follower.step(rest), Step::Hold);
    follower.resume();
    assert_eq!(follower.step(rest), Step::Head(rest.len()));
}

proptest! {
    #[test]
    fn how_the_bytes_arrive_changes_nothing(
        messages in prop::collection::vec(
            "(GET /x HTTP/1\\.1\r\nA: b\r\n\r\n|POST / HTTP/1\\.1\r\nContent-Length: 5\r\n\r\n[\r\nA-c ]{5}\
              |POST / HTTP/1\\.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[\r\nab]{2}\r\n(1;q\r\nz\r\n)?0\r\n(T: u\r\n)?\r\n\
              |GET / HTTP/1\\.1\r\n(Accept: application/problem\\+json\r\n)?A : b\r\n\r\n|\r\n|GET / HTTP/1\\.1\n|PUT / HTTP/1\\.1\r\nUpgrade: y\r\n\r\n)",
            0..5,
        ),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let bytes = messages.concat().into_bytes();
        let whole = follow(&bytes, &[]);
        prop_assert_eq!(&follow(&bytes, &cuts), &whole);
        prop_assert_eq!(follow(&bytes, &(0..bytes.len()).collect::<Vec<_>>()), whole);
    }
}
