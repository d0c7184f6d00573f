//! How much one caller may have, and all together: each limit with its code, its pause, and no harm to
//! others.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::client::Answer;
use crate::support::node::{PREFIX, Setup};
use crate::support::peer::Upstream;
use crate::support::reply::{Gate, Reply};
use crate::support::{eventually, within};

fn opaque(upstream: &Upstream) -> Setup {
    Setup::new(upstream).set("upstreams.0.identity.mode", "opaque")
}

#[track_caller]
fn is_refused_for_now(answer: &Answer, status: u16, code: &str) {
    answer.is_refusal(status, code);
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn one_caller_cannot_fill_the_queue_for_others() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = opaque(&upstream).set("server.max_queued_per_credentials", 2).start().await;
    let call = |token: &str| node.get("/x?async=true").bearer(token);
    let first = node.submit(call("john")).await;
    node.submit(call("john")).await;
    let before = node.rows();
    is_refused_for_now(&call("john").send().await, 429, "credentials_backlog_full");
    assert_eq!(node.rows(), before);
    node.submit(call("jane")).await;
    gate.open();
    eventually("the first task is finished", async || {
        let answer = node.results(&first).bearer("john").send().await;
        (answer.status == 200).then_some(())
    })
    .await;
    node.submit(call("john")).await;
}

#[tokio::test]
async fn the_node_refuses_above_its_own_limit() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = opaque(&upstream).set("server.max_queued_tasks", 1).start().await;
    node.submit(node.get("/x?async=true").bearer("john")).await;
    let refused = node.get("/x?async=true").bearer("jane").send().await;
    is_refused_for_now(&refused, 503, "backlog_full");
    gate.open();
}

#[tokio::test]
async fn calls_in_progress_are_limited_by_credential_and_in_all() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.script(&format!("{PREFIX}/slow"), [Reply::ok("done").behind(&gate)]);
    let setup = opaque(&upstream).set("server.max_calls_per_credentials", 1).set("server.max_calls", 2);
    let node = setup.start().await;
    let slow = |token: &str| tokio::spawn(node.get("/slow").bearer(token).send());
    let john = slow("john");
    upstream.wait_for_calls(1).await;
    is_refused_for_now(&node.get("/fast").bearer("john").send().await, 429, "too_many_calls");
    assert_eq!(node.get("/fast").bearer("jane").send().await.status, 200);
    let jane = slow("jane");
    upstream.wait_for_calls(3).await;
    is_refused_for_now(&node.get("/fast").bearer("jim").send().await, 503, "overloaded");
    gate.open();
    for call in [john, jane] {
        assert_eq!(call.await.expect("a call does not panic").status, 200);
    }
    eventually("there is room again", async || {
        (node.get("/fast").bearer("john").send().await.status == 200).then_some(())
    })
    .await;
}

/// A byte now and then keeps every pause short.
#[tokio::test]
async fn a_body_that_trickles_for_ever_is_not_read_for_ever() {
    let upstream = Upstream::start().await;
    let node = Setup::new(&upstream).set("server.body_total_timeout", "200ms").start().await;
    let before = node.rows();
    let trickle = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        Some((bytes::Bytes::from_static(b"a"), ()))
    });
    let refused = node.post("/x?async=true").stream(trickle).send().await;
    refused.is_refusal(408, "body_timeout");
    assert_eq!(node.rows(), before);
    upstream.saw_nobody();
}

#[tokio::test]
async fn bodies_being_accepted_together_are_bounded() {
    const BODY: usize = 40 * 1024;
    let upstream = Upstream::start().await;
    let setup = Setup::new(&upstream).set("server.max_buffered_bytes", "64KB");
    let node = setup.set("server.max_body_bytes", "48KB").start().await;
    let mut first = TcpStream::connect(node.address()).await.expect("the listener accepts");
    let head = format!(
        "POST {PREFIX}/x?async=true HTTP/1.1\r\nhost: x\r\ncontent-length: {BODY}\r\n\
         expect: 100-continue\r\nconnection: close\r\n\r\n"
    );
    first.write_all(head.as_bytes()).await.expect("the head is written");
    let mut told = [0; 25];
    within("the body is asked for", first.read_exact(&mut told)).await.expect("an interim answer");
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    let another = async || node.post("/x?async=true").body("b".repeat(BODY)).send().await;
    // What is announced takes no room from anybody; what has come does.
    assert_eq!(another().await.status, 202);
    first.write_all(&vec![b'a'; BODY - 1]).await.expect("most of the body is written");
    let refused = async || Some(another().await).filter(|answer| answer.status != 202);
    is_refused_for_now(&eventually("the first body is there", refused).await, 503, "backlog_full");
    first.write_all(b"a").await.expect("the body is written");
    let mut answer = String::new();
    within("the first is answered", first.read_to_string(&mut answer)).await.expect("text");
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    let third = async || Some(another().await).filter(|answer| answer.status == 202);
    eventually("the room is free again", third).await;
}
