//! The simulation: whole worlds in which the node's own worker and store live through what a plan has in
//! store for them, on one thread, by one seed, in simulated time.
//!
//! **Real** is the node from the submit's edge to the socket's: every decision function, the dispatchers,
//! attempts, settles, deliveries, permits, cancellation, waiting, drain, the janitor with retention by age
//! and by size, `Store` with its inbox, the writer's batches, claims, hand-off and back-pressure, every
//! SQL statement, and recovery. **Simulated** are the clocks, one to three upstreams with settings of their
//! own, receivers that share hosts and zones, the callers, the disk (a database in memory that keeps what
//! was committed; at times nothing can be written, or half of what is read cannot be), the threads (tasks
//! of one runtime whose clock moves when all wait), and chance.
//! **Not simulated** are HTTP, TLS and sockets, the gateway, file locks and keys, the kernel's view of an
//! fsync, and threads that truly run at once; `tests/it` and the crash suite are for those.
//!
//! After every commit what it was about is looked at from outside, every 16 commits everything is
//! ([`audit`]), and every call and webhook is judged as it leaves ([`outside`]). A broken promise prints its seed, the line that replays it, and the
//! plan shrunk; a plan worth keeping becomes a test in [`kept`].

mod audit;
mod chance;
mod kept;
mod life;
mod node;
mod outside;
mod people;
mod plan;
mod shrink;
mod world;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use node::End;
use plan::Plan;
use world::Shared;

/// What CI lives through.
const LIVES: u64 = 20_000;

/// Lives the plan to its end. The promise that was broken, if one was.
fn run(plan: &Plan) -> Option<String> {
    let shared = Shared::new(plan);
    let mut skew = 0;
    loop {
        match node::live(&shared, skew) {
            End::Crashed(by) => skew = by,
            End::Drained => skew = 0,
            End::Quiet => return None,
            End::Broken => return shared.lock().broken.take(),
        }
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// `RINGBACK_SIM_SEED` begins elsewhere, `RINGBACK_SIM_LIVES` goes on longer.
#[test]
fn whatever_happens_every_promise_is_kept() {
    let enough = from_environment("RINGBACK_SIM_LIVES").unwrap_or(LIVES);
    let next = AtomicU64::new(from_environment("RINGBACK_SIM_SEED").unwrap_or(1));
    let (lived, over, began) = (AtomicU64::new(0), AtomicBool::new(false), Instant::now());
    let through_seeds = || {
        while lived.load(Ordering::Relaxed) < enough && !over.load(Ordering::Relaxed) {
            let plan = Plan::from_seed(next.fetch_add(1, Ordering::Relaxed));
            if let Some(broken) = run(&plan) {
                over.store(true, Ordering::Relaxed);
                return Some((plan, format!("after {} lives: {broken}", lived.load(Ordering::Relaxed))));
            }
            lived.fetch_add(plan.calls.len() as u64, Ordering::Relaxed);
        }
        None
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let broken: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(through_seeds)).collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("the world itself is sound")).collect()
    });
    if let Some((plan, broken)) = broken.into_iter().next() {
        let small = shrink::shrink(&plan, |plan| run(plan).is_some());
        let again = run(&small).unwrap_or_default();
        let seed = plan.seed;
        panic!(
            "{broken}\n\
             replay: RINGBACK_SIM_SEED={seed} RINGBACK_SIM_LIVES=1 cargo test --lib sim::\n\
             shrunk: {again}\n{small:#?}"
        );
    }
    println!("{} lives in {:?}", lived.into_inner(), began.elapsed());
}

#[test]
fn a_seed_is_lived_the_same_way_twice() {
    for seed in 1..30 {
        let plan = Plan::from_seed(seed);
        let lived = || {
            let shared = Shared::new(&plan);
            let ends: Vec<_> = std::iter::successors(Some(node::live(&shared, 0)), |end| match end {
                End::Crashed(skew) => Some(node::live(&shared, *skew)),
                End::Drained => Some(node::live(&shared, 0)),
                End::Quiet | End::Broken => None,
            })
            .collect();
            let world = shared.lock();
            let lives: Vec<_> =
                world.lives.iter().map(|life| (life.ended.clone(), life.heard.clone())).collect();
            (ends, lives, chance::age())
        };
        assert_eq!(lived(), lived(), "seed {seed}");
    }
}
