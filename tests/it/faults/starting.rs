//! The n-th thing a starting node does to its files fails. It starts all the same or says why not in one
//! line; the next start, on a disk that works, goes on with whatever is there.

use crate::support::edge::{EIO, ENOSPC, Edge, Fault, NAMES, SYNC, WRITE, When};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::peer::Upstream;

/// Starts it; the node if it serves, else the setup it ended with.
async fn start(edge: &Edge, setup: Setup) -> Result<Node, Setup> {
    let mut process = setup.spawn();
    let served = eventually("the node serves or ends", async || {
        let serves = process.log().contains("\"gateway\"");
        (serves || !process.is_running()).then_some(serves)
    })
    .await;
    if served {
        process.signal("KILL");
        process.ended().await;
        edge.heal();
        return Ok(setup.start().await);
    }
    let ended = process.ended().await;
    assert_eq!(ended.status.code(), Some(1), "{:?}", ended.stderr);
    assert_eq!(ended.complaints().len(), 1, "{:?}", ended.complaints());
    Err(setup)
}

async fn works(node: &Node) {
    let task = node.submit(node.get("/x?async=true")).await;
    assert_eq!(node.finished(&task).await.status, 200);
}

/// First starts, each on a new directory.
async fn first_starts(kinds: i64, step: usize, error: i64, when: When) {
    let upstream = Upstream::start().await;
    let (mut rounds, mut refused) = (0, 0);
    for first in (1..).step_by(step) {
        let edge = Edge::new();
        edge.fail(Fault { kinds, first, count: 1, error, when });
        let node = match start(&edge, edge.before(Setup::new(&upstream))).await {
            Ok(node) => node,
            Err(setup) => {
                refused += 1;
                edge.heal();
                setup.start().await
            }
        };
        works(&node).await;
        rounds += 1;
        if edge.hits() == 0 {
            break;
        }
    }
    assert!(rounds > 2 && refused > 0, "{rounds} rounds, {refused} refused");
}

#[tokio::test]
async fn a_first_start_whose_names_fail_bars_no_later_one() {
    first_starts(NAMES, 1, EIO, When::Before).await;
}

#[tokio::test]
async fn a_first_start_whose_syncs_fail_bars_no_later_one() {
    first_starts(SYNC, 1, EIO, When::After).await;
}

#[tokio::test]
async fn a_first_start_on_a_disk_that_fills_bars_no_later_one() {
    first_starts(WRITE, 9, ENOSPC, When::Half).await;
}

#[tokio::test]
async fn a_later_start_that_fails_loses_nothing() {
    let (upstream, edge) = (Upstream::start().await, Edge::new());
    let node = edge.before(Setup::new(&upstream)).start().await;
    let task = node.submit(node.get("/kept?async=true")).await;
    assert_eq!(node.finished(&task).await.status, 200);
    let mut setup = node.kill9().await;
    for (kinds, step) in [(NAMES, 1), (SYNC, 1), (WRITE, 7)] {
        for (round, first) in (1..).step_by(step).enumerate() {
            let when = [When::Before, When::After][round % 2];
            edge.fail(Fault { kinds, first, count: 2, error: EIO, when });
            let node = match start(&edge, setup).await {
                Ok(node) => node,
                Err(setup) => {
                    edge.heal();
                    setup.start().await
                }
            };
            assert_eq!(node.finished(&task).await.status, 200, "{kinds} {first}");
            works(&node).await;
            setup = node.kill9().await;
            if edge.hits() == 0 {
                break;
            }
        }
    }
}
