//! Starting and stopping: what is finished, what is left, what is said, and the exit code.

use std::os::unix::fs::PermissionsExt as _;

use tokio::net::{TcpListener, TcpStream};

use crate::support::eventually;
use crate::support::node::{Node, PREFIX, Setup};
use crate::support::peer::Upstream;
use crate::support::process::Ended;
use crate::support::receiver::Receiver;
use crate::support::reply::{Gate, Reply};

/// Waits until the node accepts no connection any more.
async fn closed(node: &Node) {
    eventually("the gateway stopped accepting", async || {
        TcpStream::connect(node.address()).await.is_err().then_some(())
    })
    .await;
}

/// Checks that a start was refused in one clear line that says all of `words`.
#[track_caller]
fn is_refused_start(ended: &Ended, words: &[&str]) {
    assert!(!ended.status.success(), "exit code {:?}", ended.status.code());
    let complaints = ended.complaints();
    assert_eq!(complaints.len(), 1, "one clear line, not:\n{}", complaints.join("\n"));
    for word in words {
        assert!(complaints[0].contains(word), "`{word}` is not in: {}", complaints[0]);
    }
    assert!(!complaints[0].contains("panicked"), "{}", complaints[0]);
}

#[tokio::test]
async fn an_idle_node_that_is_asked_to_stop_ends_at_once() {
    let upstream = Upstream::start().await;
    for signal in ["TERM", "INT"] {
        // Waiting for the drain timeout would be longer than the test waits.
        let mut node = Setup::new(&upstream).set("server.drain_timeout", "1h").start().await;
        node.get("/x").send().await;
        node.process().signal(signal);
        let ended = node.process().ended().await;
        assert_eq!(ended.status.code(), Some(0), "{signal}");
    }
}

#[tokio::test]
async fn a_connection_that_is_only_kept_alive_does_not_hold_up_the_end() {
    let upstream = Upstream::start().await;
    let mut node = Setup::new(&upstream).set("server.drain_timeout", "1h").start().await;
    let _silent = TcpStream::connect(node.address()).await.expect("the node accepts");
    let answer = node.get("/x").open().await.expect("an answer comes");
    node.process().signal("TERM");
    assert_eq!(node.process().ended().await.status.code(), Some(0));
    drop(answer);
}

#[tokio::test]
async fn a_stopping_node_finishes_what_runs_and_leaves_what_has_not_begun() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let mut node = Setup::new(&upstream)
        .set("upstreams.0.concurrency", 1)
        .set("server.drain_timeout", "1h")
        .start()
        .await;
    let running = node.submit(node.get(&format!("/running?{}", receiver.query("/hook")))).await;
    upstream.wait_for_calls(1).await;
    let waiting = node.submit(node.get("/waiting?async=true")).await;

    node.process().signal("TERM");
    closed(&node).await;
    assert!(node.process().is_running(), "it holds a task");
    gate.open();
    let ended = node.process().ended().await;

    assert_eq!(ended.status.code(), Some(0));
    let calls = |path: &str| upstream.calls_of(&format!("{PREFIX}{path}")).len();
    assert_eq!((calls("/running"), calls("/waiting")), (1, 0));
    let node = node.kill9().await.start().await;
    assert_eq!(node.finished(&running).await.body, "done");
    assert_eq!(node.finished(&waiting).await.body, "done");
    assert_eq!((calls("/running"), calls("/waiting")), (1, 1));
    receiver.wait_for_task(&running.id, 1).await;
}

#[tokio::test]
async fn a_stopping_node_lets_a_proxied_call_finish() {
    let upstream = Upstream::start().await;
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let mut node = Setup::new(&upstream).set("server.drain_timeout", "1h").start().await;
    let call = tokio::spawn(node.get("/x").send());
    upstream.wait_for_calls(1).await;
    node.process().signal("TERM");
    closed(&node).await;
    gate.open();
    assert_eq!(call.await.expect("the call does not panic").body, "done");
    assert_eq!(node.process().ended().await.status.code(), Some(0));
}

#[tokio::test]
async fn a_stopping_node_waits_no_longer_than_it_may() {
    let upstream = Upstream::start().await;
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Setup::new(&upstream).set("server.drain_timeout", "200ms").start().await;
    let task = node.submit(node.get("/x?async=true")).await;
    upstream.wait_for_calls(1).await;

    let (setup, ended) = node.terminate().await;

    assert_eq!(ended.status.code(), Some(0));
    gate.open();
    let node = setup.start().await;
    assert_eq!(node.finished(&task).await.body, "done");
    assert_eq!(upstream.calls().len(), 2);
}

#[tokio::test]
async fn an_unsafe_call_cut_off_by_the_drain_timeout_ends_unknown() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::silence()]);
    let node = Setup::new(&upstream).set("server.drain_timeout", "200ms").start().await;
    let task = node.submit(node.post("/x?async=true").body("pay")).await;
    upstream.wait_for_calls(1).await;
    let (setup, ended) = node.terminate().await;
    assert_eq!(ended.status.code(), Some(0));
    let node = setup.start().await;
    assert_eq!(node.failed(&task).await["error"], "outcome_unknown");
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::silence()]);
    let mut node = Setup::new(&upstream).set("server.drain_timeout", "1h").start().await;
    node.submit(node.get("/x?async=true")).await;
    upstream.wait_for_calls(1).await;
    node.process().signal("TERM");
    closed(&node).await;
    node.process().signal("TERM");
    node.process().ended().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let upstream = Upstream::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    for key in ["server.listen", "server.admin_listen"] {
        let ended = Setup::new(&upstream).set(key, address.as_str()).spawn().ended().await;
        is_refused_start(&ended, &[&address]);
    }
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_named() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(&upstream);
    // Below a file nobody can make a directory, not even root.
    let file = setup.write("file", "").join("data").display().to_string();
    let ended = setup.set("server.data_dir", file.as_str()).spawn().ended().await;
    is_refused_start(&ended, &[&file]);
}

#[tokio::test]
async fn a_second_process_on_the_same_data_is_refused_and_the_first_goes_on() {
    let upstream = Upstream::start().await;
    let first = Node::start(&upstream).await;
    let task = first.submit(first.get("/x?async=true")).await;
    let data_dir = first.data_dir().display().to_string();
    let second = Setup::new(&upstream).set("server.data_dir", data_dir.as_str());
    is_refused_start(&second.spawn().ended().await, &[&data_dir]);
    assert_eq!(first.finished(&task).await.status, 200);
}

#[tokio::test]
async fn the_master_key_is_made_at_first_and_only_its_owner_may_read_it() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let mut keys = 0;
    for entry in std::fs::read_dir(node.data_dir()).expect("the data directory is there") {
        let entry = entry.expect("it can be listed");
        if entry.file_name().to_string_lossy().contains("key") {
            keys += 1;
            let mode = entry.metadata().expect("a file has metadata").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", entry.path().display());
        }
    }
    assert!(keys > 0, "there is a key file");
}

#[tokio::test]
async fn a_store_without_its_key_is_not_opened() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/x?async=true")).await;
    node.finished(&task).await;
    let setup = node.kill9().await;
    let other = setup.write("other.key", "");
    let elsewhere = Node::start(&upstream).await;
    let files = std::fs::read_dir(elsewhere.data_dir()).expect("the data directory is there");
    let mut files = files.map(|entry| entry.expect("it can be listed").path());
    let key = files.find(|path| path.to_string_lossy().contains("key")).expect("there is a key file");
    std::fs::copy(key, &other).expect("a key can be copied");
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).expect("a mode can be set");

    let ended = setup.env("RINGBACK_KEY_FILE", &other.display().to_string()).spawn().ended().await;

    is_refused_start(&ended, &["key"]);
}

#[tokio::test]
async fn nothing_a_client_said_can_be_read_on_disk_or_in_the_log() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    upstream.always([Reply::json(200, "{\"hush\":\"hush-result\"}")]);
    upstream.script(&format!("{PREFIX}/error"), [Reply::json(403, "{\"error\":\"hush_error\"}")]);
    let gate = Gate::closed();
    upstream.script(&format!("{PREFIX}/open"), [Reply::ok("x").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let call = |path: &str| {
        let query = receiver.query("/hook?k=hush-webhook");
        let call = node.post(&format!("{path}?q=hush-query&{query}")).bearer("hush-token");
        call.header("x-secret", "hush-header").body("hush-body")
    };
    for path in ["/done", "/error"] {
        let task = node.submit(call(path)).await;
        node.finished(&task).await;
        receiver.wait_for_task(&task.id, 1).await;
    }
    node.submit(call("/open")).await;
    upstream.wait_for_begun(3).await;

    let log = node.log();
    let setup = node.kill9().await;

    for entry in std::fs::read_dir(setup.data_dir()).expect("the data directory is there") {
        let path = entry.expect("it can be listed").path();
        let content = std::fs::read(&path).expect("a file of the data directory can be read");
        assert!(!content.windows(5).any(|window| window == b"hush-"), "{}", path.display());
        assert!(!content.windows(5).any(|window| window == b"hush_"), "{}", path.display());
    }
    assert!(!log.contains("hush"), "{log}");
}
