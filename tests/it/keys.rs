//! Master keys and erasing: nothing is lost by a rotation, and nothing starts with the wrong key.

use std::fs;
use std::path::Path;

use crate::signatures::hang_up;
use crate::support::node::{Node, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::process::{Ended, Process, run};
use crate::support::receiver::Receiver;
use crate::support::reply::{Gate, Reply};
use crate::support::store;

async fn ringback(setup: &Setup, args: &[&str]) -> Ended {
    let dir = setup.data_dir().display().to_string();
    run(&[args, &["--data-dir", &dir]].concat()).await
}

async fn done(setup: &Setup, args: &[&str]) -> String {
    let ended = ringback(setup, args).await;
    assert!(ended.status.success(), "{args:?}: {:?}", ended.stderr);
    ended.stdout.join("\n")
}

/// Expects the start to fail with one line that holds `words`, and nothing to change.
async fn refused(setup: &Setup, words: &str) {
    let before = store::content(&setup.data_dir());
    let files = || {
        let mut names: Vec<_> =
            fs::read_dir(setup.data_dir()).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let there = files();
    let mut process = setup.spawn();
    let ended = process.ended().await;
    assert_eq!(ended.status.code(), Some(1));
    let complaints = ended.complaints();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains(words), "{complaints:?}");
    assert_eq!(store::content(&setup.data_dir()), before);
    assert_eq!(files(), there);
}

async fn finished(node: &Node, body: &str) -> Task {
    let task = node.submit(node.post("/echo?async=true&q=1").body(body.to_owned())).await;
    assert_eq!(node.finished(&task).await.status, 200);
    task
}

#[tokio::test]
async fn a_wrong_a_missing_and_a_broken_key_file_each_stop_the_start() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    finished(&node, "x").await;
    let (setup, _) = node.terminate().await;
    let path = setup.data_dir().join("ringback.keys");
    let good = fs::read(&path).unwrap();
    fs::write(&path, "1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    refused(&setup, "does not fit the store").await;
    fs::write(&path, "7:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    refused(&setup, "key 1").await;
    fs::write(&path, "nonsense\n").unwrap();
    refused(&setup, "line 1").await;
    fs::remove_file(&path).unwrap();
    refused(&setup, "is missing").await;
    fs::write(&path, good).unwrap();
    setup.start().await;
}

#[tokio::test]
async fn a_new_sealing_key_is_taken_over_by_a_running_node_and_old_values_still_open() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("the answer")]);
    let setup = Setup::new(&upstream);
    let dir = setup.data_dir().display().to_string();
    let mut node = setup.start().await;
    let before = finished(&node, "one").await;
    let ended = run(&["keys", "rotate", "sealing", "--data-dir", &dir]).await;
    assert!(ended.status.success(), "{:?}", ended.stderr);
    let sealed_by_the_new = || store::content(Path::new(&dir)).contains("Blob([0, 0, 0, 2, ");
    assert!(!sealed_by_the_new(), "nothing is sealed with a key before it was taken over");
    hang_up(&mut node).await;
    let after = finished(&node, "two").await;
    assert!(sealed_by_the_new());
    for task in [&before, &after] {
        assert_eq!(node.finished(task).await.body, "the answer");
    }
    let (setup, _) = node.terminate().await;
    // Without the old key the old values are out of reach, and the start says so.
    let path = setup.data_dir().join("ringback.keys");
    let both = fs::read_to_string(&path).unwrap();
    let newest = both.lines().find(|line| line.starts_with("2:")).expect("the new key");
    fs::write(&path, format!("{newest}\n")).unwrap();
    refused(&setup, "key 1").await;
    fs::write(&path, both).unwrap();
    let node = setup.start().await;
    for task in [&before, &after] {
        assert_eq!(node.finished(task).await.body, "the answer");
    }
}

#[tokio::test]
async fn after_resealing_the_old_key_is_needed_for_nothing() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let gate = Gate::closed();
    upstream.script("/data/v1/slow", [Reply::ok("slow").behind(&gate)]);
    upstream.script("/data/v1/failing", [Reply::json(403, r#"{"error":"no","error_description":"Never."}"#)]);
    upstream.always([Reply::ok("a".repeat(700_000))]);
    let node = Setup::new(&upstream).set("upstreams.0.retry.delays", vec!["20ms"]).start().await;
    let large = finished(&node, "one").await;
    let failing = node.submit(node.get("/failing?async=true")).await;
    node.failed(&failing).await;
    // Waits with a body of several chunks when the node is killed.
    let query = receiver.query("/hook?key=1");
    let slow = node
        .submit(node.call(http::Method::PUT, &format!("/data/v1/slow?{query}")).body("b".repeat(600_000)))
        .await;
    upstream.wait_for_body_bytes(600_000).await;
    let setup = node.kill9().await;

    done(&setup, &["keys", "rotate", "sealing"]).await;
    let said = done(&setup, &["keys", "reseal"]).await;
    assert!(said.contains("key 1 can be removed"), "{said}");
    let again = done(&setup, &["keys", "reseal"]).await;
    assert!(again.contains("Sealed 0 values"), "{again}");
    let path = setup.data_dir().join("ringback.keys");
    let newest = fs::read_to_string(&path).unwrap();
    let newest = newest.lines().find(|line| line.starts_with("2:")).expect("the new key");
    fs::write(&path, newest).unwrap();

    gate.open();
    let node = setup.start().await;
    assert_eq!(node.finished(&large).await.body.len(), 700_000);
    assert_eq!(node.failed(&failing).await["error_description"], "Never.");
    assert_eq!(node.finished(&slow).await.body, "slow");
    let call = upstream.calls_of("/data/v1/slow").pop().expect("called again");
    assert_eq!(call.body.len(), 600_000);
    let webhook = receiver.wait_for(1).await.remove(0);
    assert_eq!(webhook.path(), "/hook");
}

#[tokio::test]
async fn a_resealing_that_is_killed_goes_on_where_it_was() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("a".repeat(2_000_000))]);
    let node = Node::start(&upstream).await;
    let mut tasks = Vec::new();
    for number in 0..30 {
        tasks.push(finished(&node, &number.to_string()).await);
    }
    let (setup, _) = node.terminate().await;
    let dir = setup.data_dir();
    done(&setup, &["keys", "rotate", "sealing"]).await;
    let all = store::sealed_by(&dir, 1);

    let args = ["keys", "reseal", "--data-dir", &dir.display().to_string()].map(String::from);
    let mut process = Process::start(&args, &[]);
    while store::sealed_by(&dir, 2) == 0 {
        assert!(process.is_running(), "it ended with nothing done");
        tokio::task::yield_now().await;
    }
    process.signal("KILL");
    assert_eq!(process.ended().await.status.code(), None);
    let (old, new) = (store::sealed_by(&dir, 1), store::sealed_by(&dir, 2));
    assert!(old > 0 && new > 0 && old + new == all, "killed too late: {old} and {new} of {all}");

    // Half done is a good store, and what is sealed meanwhile is sealed by the new key.
    let node = setup.start().await;
    for task in &tasks {
        assert_eq!(node.finished(task).await.body.len(), 2_000_000);
    }
    tasks.push(finished(&node, "in between").await);
    let (setup, _) = node.terminate().await;
    let said = done(&setup, &["keys", "reseal"]).await;
    assert!(!said.contains("Sealed 0 values") && said.contains("key 1 can be removed"), "{said}");
    assert_eq!(store::sealed_by(&dir, 1), 0);
    let path = dir.join("ringback.keys");
    let both = fs::read_to_string(&path).unwrap();
    fs::write(&path, both.lines().find(|line| line.starts_with("2:")).expect("the new key")).unwrap();
    let node = setup.start().await;
    for task in &tasks {
        assert_eq!(node.finished(task).await.body.len(), 2_000_000);
    }
}

#[tokio::test]
async fn resealing_erasing_and_compacting_need_the_node_to_be_stopped() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let dir = node.data_dir().display().to_string();
    for args in [&["keys", "reseal"][..], &["erase", "--credentials-id", "x"], &["compact"]] {
        let ended = run(&[args, &["--data-dir", &dir]].concat()).await;
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stderr.join("\n").contains("another process"), "{:?}", ended.stderr);
    }
}

#[tokio::test]
async fn a_command_for_a_store_that_is_not_there_makes_none() {
    let setup = Setup::of("http://127.0.0.1:9");
    for args in [
        &["keys", "reseal"][..],
        &["keys", "show", "webhook"],
        &["keys", "rotate", "webhook"],
        &["erase", "--credentials-id", "x"],
        &["compact"],
    ] {
        let ended = ringback(&setup, args).await;
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stderr.join("\n").contains("there is no store"), "{:?}", ended.stderr);
        assert!(!setup.data_dir().exists());
    }
}

#[tokio::test]
async fn a_key_file_made_beforehand_is_the_one_used() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(&upstream);
    done(&setup, &["keys", "new"]).await;
    let made = fs::read(setup.data_dir().join("ringback.keys")).unwrap();
    assert!(!ringback(&setup, &["keys", "new"]).await.status.success(), "a key file is never replaced");
    let (setup, _) = setup.start().await.terminate().await;
    assert_eq!(fs::read(setup.data_dir().join("ringback.keys")).unwrap(), made);
    assert!(!ringback(&setup, &["keys", "new"]).await.status.success());
}

#[tokio::test]
async fn erasing_one_person_leaves_nothing_of_them_and_everything_of_others() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let gate = Gate::closed();
    upstream.script("/data/v1/slow", [Reply::ok("slow").behind(&gate)]);
    upstream.always([Reply::ok("a".repeat(700_000))]);
    receiver.answers([Reply::new(500)]);
    let setup =
        Setup::new(&upstream).set("upstreams.0.identity.mode", "opaque").set("webhooks.delays", vec!["1h"]);
    let node = setup.start().await;
    let call =
        |token: &str, target: &str| node.get(&format!("{target}?{}", receiver.query("/hook"))).bearer(token);
    let other = node.submit(call("bob", "/accounts")).await;
    receiver.wait_for(1).await;
    node.submit(call("ann", "/accounts")).await;
    let ann = receiver.wait_for(2).await[1].json()["credentials_id"].as_str().unwrap().to_owned();
    node.submit(call("ann", "/slow")).await;
    upstream.wait_for_calls(3).await;
    let setup = node.kill9().await;

    let said = done(&setup, &["erase", "--credentials-id", &ann]).await;
    assert!(said.starts_with("Erased 2 tasks, 1 of them unfinished"), "{said}");
    assert!(
        said.contains("1 requests") && said.contains("1 results") && said.contains("1 deliveries"),
        "{said}"
    );
    assert!(!store::content(&setup.data_dir()).contains(&ann));
    let rows = store::rows(&setup.data_dir());
    assert_eq!(
        (rows["task"], rows["result"], rows["request"], rows["state"], rows["delivery"]),
        (1, 1, 0, 0, 1)
    );
    let again = done(&setup, &["erase", "--credentials-id", &ann]).await;
    assert!(again.starts_with("Erased 0 tasks"), "{again}");

    let node = setup.start().await;
    let answer = node.results(&other).bearer("bob").send().await;
    assert_eq!((answer.status, answer.body.len()), (200, 700_000));
}
