//! A full disk: calls are refused, the node stays up and answers what it can, and goes on by itself when
//! space returns. Played by the edge every day, and once on a real file system that is too small.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_util::stream::{self, StreamExt as _};
use http::Method;

use super::sweep::is_unavailable;
use crate::support::edge::{ENOSPC, Edge, WRITE, When};
use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;
use crate::support::reply::{Gate, Reply};
use crate::support::{eventually, store};

/// Calls with large bodies until one is refused; those that were not.
async fn fill(node: &Node, name: &str, query: &str) -> Vec<Task> {
    let mut tasks = Vec::new();
    for number in 0..2_000 {
        let call = node.call(Method::PUT, &format!("{PREFIX}/{name}/{number}?{query}"));
        let answer = call.body(vec![b'x'; 60_000]).send().await;
        if is_unavailable(&answer) {
            return tasks;
        }
        tasks.push(Task::from(&answer));
    }
    panic!("the disk does not fill");
}

async fn all_succeed(node: &Node, receiver: &Receiver, tasks: &[Task]) {
    for task in tasks {
        assert_eq!(node.finished(task).await.header("ringback-status"), Some("Succeeded"));
        receiver.wait_for_task(&task.id, 1).await;
    }
}

/// Fills the disk, looks at the node meanwhile, gives space back, and accounts for everything.
async fn fills_and_goes_on(setup: Setup, upstream: &Upstream, take: impl FnOnce(), give: impl FnOnce()) {
    let receiver = Receiver::start().await;
    let query = receiver.query("/hook");
    let gate = Gate::closed();
    upstream.script(&format!("{PREFIX}/held"), [Reply::ok("done").behind(&gate)]);
    let mut node = setup.start().await;
    let finished = node.submit(node.get("/before?async=true")).await;
    let result = node.finished(&finished).await;
    let held = node.submit(node.get(&format!("/held?{query}"))).await;
    node.reaches(&held, "Running").await;

    take();
    let accepted = fill(&node, "filling", &query).await;
    // Its result is known now and cannot be written.
    gate.open();
    let refused = node.get(&format!("/refused?{query}")).send().await;
    assert!(is_unavailable(&refused));
    assert_eq!(node.results(&finished).send().await.body, result.body, "results are still there");
    assert_eq!(node.get("/proxied").send().await.status, 200, "calls are still proxied");
    assert_eq!(node.admin("/readyz").send().await.status, 200);
    assert!(node.process().is_running());

    give();
    let again = eventually("calls are accepted again", async || {
        let answer = node.get(&format!("/again?{query}")).send().await;
        (!is_unavailable(&answer)).then(|| Task::from(&answer))
    })
    .await;
    all_succeed(&node, &receiver, &accepted).await;
    all_succeed(&node, &receiver, &[held, again]).await;
    assert_eq!(upstream.calls_of(&format!("{PREFIX}/refused")).len(), 0, "what was refused is not called");
    assert_eq!(upstream.calls_of(&format!("{PREFIX}/held")).len(), 1, "what was called is not called again");
    eventually("nothing is owed", async || {
        let rows = node.rows();
        ["state", "request", "delivery"].iter().all(|table| rows[*table] == 0).then_some(())
    })
    .await;
    assert_eq!(store::damage(&node.data_dir()), None);
    assert_eq!(store::stray_chunks(&node.data_dir()), 0);
    let (setup, ended) = node.terminate().await;
    assert_eq!(ended.status.code(), Some(0));
    let node = setup.start().await;
    assert_eq!(node.results(&finished).send().await.body, result.body);
}

#[tokio::test]
async fn a_disk_that_fills_costs_refusals_and_nothing_else() {
    let (edge, upstream) = (Edge::new(), Upstream::start().await);
    let setup = edge.before(Setup::new(&upstream));
    fills_and_goes_on(setup, &upstream, || edge.space(500_000), || edge.space(1 << 30)).await;
}

/// The log of a full disk is long and takes space to be carried over. Space that comes back in small pieces
/// must go there first, or it would be filled again without anything having been finished.
#[tokio::test]
async fn space_that_comes_back_in_small_pieces_is_enough() {
    let (edge, upstream, receiver) = (Edge::new(), Upstream::start().await, Receiver::start().await);
    let query = receiver.query("/hook");
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let setup = edge.before(Setup::new(&upstream).set("upstreams.0.concurrency", 1));
    let node = setup.start().await;
    edge.space(9_000_000);
    let mut tasks = fill(&node, "filling", &query).await;
    gate.open();
    let (step, mut given) = (400_000, 0);
    let mut went_on = false;
    while !went_on {
        assert!(given < 16_000_000, "{given} bytes were given back and nothing goes on");
        given += step;
        edge.space(u64::try_from(edge.space_left()).unwrap_or(0) + step);
        went_on = eventually("the space is taken or calls are accepted", async || {
            let answer = node.get(&format!("/more?{query}")).send().await;
            if !is_unavailable(&answer) {
                tasks.push(Task::from(&answer));
                return Some(true);
            }
            (edge.space_left() < 8192).then_some(false)
        })
        .await;
    }
    all_succeed(&node, &receiver, &tasks).await;
}

/// What retention frees on a full disk is room enough for calls: nothing else has to make any.
#[tokio::test]
async fn on_a_full_disk_retention_goes_on_and_what_it_frees_takes_calls() {
    let (edge, upstream) = (Edge::new(), Upstream::start().await);
    let setup = Setup::new(&upstream).set("retention.results", "5s").set("retention.tasks", "5s");
    let node = edge.before(setup).start().await;
    // All at once, however slow the machine is: none may be gone when the last is there.
    let finish = async |count: usize| {
        let gate = Gate::closed();
        upstream.always([Reply::ok("x".repeat(60_000)).behind(&gate)]);
        let calls = (0..count).map(|number| node.submit(node.get(&format!("/{number}?async=true"))));
        let tasks: Vec<Task> = stream::iter(calls).buffer_unordered(10).collect().await;
        gate.open();
        for task in &tasks {
            assert_eq!(node.finished(task).await.body.len(), 60_000);
        }
    };
    let gone = || eventually("every task is gone", async || (node.rows()["task"] == 0).then_some(()));
    // Files that have been as large as they are going to be, with free pages: a page that is in the log alone
    // could not be carried over without new space.
    finish(120).await;
    gone().await;
    eventually("the database has its size", async || {
        finish(20).await;
        store::is_carried_over(&node.data_dir()).then_some(())
    })
    .await;

    edge.space(0);
    edge.fail_all(WRITE, ENOSPC, When::Before);
    assert!(is_unavailable(&node.get("/refused?async=true").send().await));
    let before = store::content(&node.data_dir());
    assert!(node.rows()["task"] > 0, "there is something to remove");
    eventually("retention meets the full disk", async || {
        node.log().contains("retention could not remove anything").then_some(())
    })
    .await;
    assert!(store::content(&node.data_dir()) == before, "nothing is removed by halves");
    assert_eq!((store::damage(&node.data_dir()), store::stray_chunks(&node.data_dir())), (None, 0));

    // Old pages can be written again, and the disk is as full as before.
    edge.heal();
    gone().await;
    finish(10).await;
    assert_eq!(edge.space_left(), 0);
    assert_eq!((store::damage(&node.data_dir()), store::stray_chunks(&node.data_dir())), (None, 0));
}

/// A small file system of its own.
struct Small(PathBuf);

impl Small {
    fn mounted_at(path: &Path, megabytes: u32) -> Self {
        std::fs::create_dir_all(path).expect("the temporary directory can be written");
        let size = format!("size={megabytes}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(path).output();
        let mounted = mounted.expect("the command `mount` is there");
        assert!(
            mounted.status.success(),
            "this test fills a file system that it mounts, which this user may not. Type:\n    unshare -rm ./test\n{}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        Self(path.to_owned())
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        let mut ballast = File::create(self.0.join("ballast")).expect("it can be written");
        let block = [0; 4096];
        while ballast.write_all(&block).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("ballast")).expect("it was made");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l".as_ref(), self.0.as_os_str()]).output();
    }
}

#[tokio::test]
async fn a_real_file_system_that_fills_costs_refusals_and_nothing_else() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(&upstream);
    let small = Small::mounted_at(&setup.data_dir(), 16);
    fills_and_goes_on(setup, &upstream, || small.fill(), || small.free()).await;
}
