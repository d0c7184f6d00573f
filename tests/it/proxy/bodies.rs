//! Bodies of any size and shape, both ways, and what becomes of broken ones.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use tokio::sync::mpsc;

use crate::support::node::{Node, PREFIX, Setup};
use crate::support::peer::Upstream;
use crate::support::reply::{Gate, Reply, Step};
use crate::support::within;

const GIGABYTE: u64 = 1 << 30;

/// More than a node needs for one call, and far less than a body.
const CONSTANT: u64 = 64 << 20;

/// A part of the client's body sent by hand.
fn by_hand() -> (mpsc::Sender<Bytes>, impl futures_util::Stream<Item = Bytes>) {
    let (sender, mut receiver) = mpsc::channel(1);
    (sender, stream::poll_fn(move |context| receiver.poll_recv(context)))
}

#[tokio::test]
async fn a_gigabyte_comes_down_in_constant_memory() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(200).zeros(GIGABYTE)]);
    let node = Node::start(&upstream).await;
    let before = node.peak_memory();

    let answer = node.get("/file").open().await.expect("the head arrives");
    assert_eq!(answer.headers()["content-length"], GIGABYTE.to_string().as_str());
    let mut body = answer.into_body();
    let mut count = 0;
    while let Some(frame) = within("the next piece came", body.frame()).await {
        count += frame.expect("the body is whole").data_ref().map_or(0, Bytes::len) as u64;
    }

    assert_eq!(count, GIGABYTE);
    let grown = node.peak_memory() - before;
    assert!(grown < CONSTANT, "the node took {grown} bytes more");
}

#[tokio::test]
async fn a_gigabyte_goes_up_in_constant_memory() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let before = node.peak_memory();
    let block = Bytes::from(vec![0; 1 << 20]);
    let blocks =
        stream::iter(std::iter::repeat_n(block, usize::try_from(GIGABYTE >> 20).expect("a small number")));

    let answer = node.post("/file").stream(blocks).open_patiently().await;

    assert_eq!(answer.expect("the call is answered").status(), 200);
    assert_eq!(upstream.body_bytes(), GIGABYTE);
    let grown = node.peak_memory() - before;
    assert!(grown < CONSTANT, "the node took {grown} bytes more");
}

#[tokio::test]
async fn a_body_goes_up_while_it_is_still_being_made() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let (pieces, body) = by_hand();
    let call = tokio::spawn(node.post("/file").stream(body).send());
    pieces.send(Bytes::from_static(b"first ")).await.expect("the call is going");
    upstream.wait_for_body_bytes(6).await;
    pieces.send(Bytes::from_static(b"second")).await.expect("the call is going");
    drop(pieces);
    assert_eq!(call.await.expect("the call does not panic").status, 200);
    assert_eq!(upstream.only_call().body, b"first second");
}

#[tokio::test]
async fn a_body_comes_down_while_it_is_still_being_made() {
    let upstream = Upstream::start().await;
    let gate = Gate::closed();
    upstream.always([Reply::new(200).chunks(vec![(None, "first "), (Some(gate.clone()), "second")])]);
    let node = Node::start(&upstream).await;
    let mut body = node.get("/file").open().await.expect("the head arrives").into_body();
    let piece = within("the first piece came", body.frame()).await.expect("a frame").expect("whole");
    assert_eq!(piece.into_data().expect("data"), "first ");
    gate.open();
    assert_eq!(body.collect().await.expect("the rest arrives").to_bytes(), "second");
}

#[tokio::test]
async fn chunked_bodies_and_their_trailers_go_both_ways() {
    let upstream = Upstream::start().await;
    let reply = Reply::new(200).header("trailer", "x-sum").chunks(vec![(None, "down "), (None, "stream")]);
    upstream.always([reply.trailer("x-sum", "42")]);
    let node = Node::start(&upstream).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-check", "7".parse().expect("a header value"));
    let frames = [Frame::data(Bytes::from_static(b"up")), Frame::trailers(trailers)];

    let call = node.post("/x").header("te", "trailers").header("trailer", "x-check");
    let answer = call.frames(stream::iter(frames)).send().await;

    assert_eq!(answer.body, "down stream");
    assert_eq!(answer.trailers.expect("trailers arrive")["x-sum"], "42");
    let call = upstream.only_call();
    assert_eq!(call.body, b"up");
    assert_eq!(call.trailers, [("x-check".to_owned(), "7".to_owned())]);
}

#[tokio::test]
async fn answers_without_a_body_stay_without_one() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for status in [204, 304] {
        upstream.always([Reply::new(status).header("etag", "\"v1\"").bodyless()]);
        let answer = node.get("/x").send().await;
        assert_eq!((answer.status, answer.body.len()), (status, 0));
        assert_eq!(answer.header("etag"), Some("\"v1\""));
    }
    upstream.always([Reply::ok("twelve bytes")]);
    let head = node.call(Method::HEAD, &format!("{PREFIX}/x")).send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some("12"));
}

#[tokio::test]
async fn a_body_the_upstream_breaks_off_never_ends_cleanly() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let chunked = |end| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        Reply::steps(vec![Step::Send(head.into()), end])
    };
    let broken = [
        ("declared and closed", Reply::ok("").broken_after("declared whole", 5)),
        ("chunked and closed", chunked(Step::Cut)),
        ("chunked and reset", chunked(Step::Reset)),
    ];
    for (name, reply) in broken {
        upstream.always([reply]);
        assert!(node.get("/x").try_send().await.is_err(), "{name}, over HTTP/1.1");
        assert!(node.get("/x").http2().try_send().await.is_err(), "{name}, over HTTP/2");
    }
}

#[tokio::test]
async fn a_body_the_upstream_stops_sending_never_ends_cleanly() {
    let upstream = Upstream::start().await;
    let never = Gate::closed();
    upstream.always([Reply::new(200).chunks(vec![(None, "first"), (Some(never), "second")])]);
    let node = Setup::new(&upstream).set("upstreams.0.idle_timeout", "200ms").start().await;
    assert!(node.get("/x").try_send().await.is_err());
    upstream.wait_for_abandoned(1).await;
}

#[tokio::test]
async fn a_body_over_the_limit_for_proxied_calls_is_refused() {
    let upstream = Upstream::start().await;
    let node = Setup::new(&upstream).set("server.max_proxy_body_bytes", 1000).start().await;
    node.post("/x").body(vec![1; 1001]).send().await.is_refusal(413, "body_too_large");
    upstream.saw_nobody();
    let pieces = stream::iter(vec![Bytes::from(vec![1; 400]); 3]);
    let streamed = node.post("/x").stream(pieces).try_send().await;
    assert!(streamed.is_err() || streamed.is_ok_and(|answer| answer.status == 413));
    assert_eq!(upstream.calls().len(), 0, "the upstream never saw a whole one");
    assert_eq!(node.post("/x").body(vec![1; 1000]).send().await.status, 200);
}

#[tokio::test]
async fn when_the_client_goes_the_upstream_call_is_dropped() {
    let upstream = Upstream::start().await;
    let never = Gate::closed();
    let node = Node::start(&upstream).await;

    // Before the answer.
    upstream.always([Reply::ok("late").behind(&never)]);
    let waiting = tokio::spawn(node.get("/x").send());
    upstream.wait_for_calls(1).await;
    waiting.abort();
    upstream.wait_for_abandoned(1).await;

    // In the middle of it.
    upstream.always([Reply::new(200).chunks(vec![(None, "first"), (Some(never), "second")])]);
    let answer = node.get("/x").open().await.expect("the head arrives");
    drop(answer);
    upstream.wait_for_abandoned(2).await;
}

#[tokio::test]
async fn when_the_client_breaks_off_its_body_the_upstream_never_sees_a_whole_one() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let (pieces, body) = by_hand();
    let call = tokio::spawn(node.post("/x").stream(body).send());
    pieces.send(Bytes::from_static(b"first")).await.expect("the call is going");
    upstream.wait_for_body_bytes(5).await;
    call.abort();
    upstream.wait_for_abandoned(1).await;
    assert_eq!(upstream.calls().len(), 0);
}

#[tokio::test]
async fn many_calls_at_once_each_get_their_own_answer() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for number in 0..50 {
        upstream.script(&format!("{PREFIX}/{number}"), [Reply::ok(number.to_string())]);
    }
    let answers = stream::iter(0..50).map(|number| {
        let call = node.get(&format!("/{number}"));
        async move { (number, call.send().await) }
    });
    let answers: Vec<_> = answers.buffer_unordered(50).collect().await;
    for (number, answer) in answers {
        assert_eq!(answer.body, number.to_string());
    }
}
