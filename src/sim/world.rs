//! One world: its plan, its lives, the disk that outlives the node, and the first promise broken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::chance::{self, Dice};
use super::life::Life;
use super::plan::Plan;
use crate::id::Seq;
use crate::seal::KeyRing;
use crate::store::by_hand::Disk;

pub(super) struct World {
    pub plan: Plan,
    /// In the order of the plan's calls.
    pub lives: Vec<Life>,
    pub by_seq: HashMap<Seq, usize>,
    pub disk: Disk,
    /// The first broken promise.
    pub broken: Option<String>,
    /// Events that have happened.
    pub happened: usize,
    /// Nothing can be written before this, in true time.
    pub full_until: i64,
    /// Nothing is claimed any more.
    pub draining: bool,
    /// Half of what is read before this cannot be, in true time.
    pub blind_until: i64,
    /// When this life of the node began, by its steady clock.
    pub began: i64,
    pub dies_at_commit: bool,
    /// Of each upstream.
    pub places: Vec<Places>,
    /// Deliveries in flight: in all, at each host, and in each zone.
    pub ringing: usize,
    pub ringing_at: HashMap<u8, usize>,
    pub ringing_in: HashMap<u8, usize>,
    /// People who wait for the end of a task.
    pub waiting: usize,
    commits: u64,
}

/// Attempts in flight at one upstream.
#[derive(Default)]
pub(super) struct Places {
    pub calling: usize,
    /// Since when one more would have been allowed, by the steady clock; `None` while none is.
    pub free_since: Option<i64>,
}

/// A world shared by all who live in it on one thread.
#[derive(Clone)]
pub(super) struct Shared {
    world: Arc<Mutex<World>>,
    /// Something may have ended.
    pub changed: Arc<Notify>,
    pub dead: Arc<Notify>,
}

impl Shared {
    pub(super) fn new(plan: &Plan) -> Self {
        chance::dawn(plan.seed);
        let world = World {
            lives: plan.calls.iter().map(Life::of).collect(),
            plan: plan.clone(),
            by_seq: HashMap::new(),
            disk: Disk::new(),
            broken: None,
            happened: 0,
            full_until: i64::MIN,
            draining: false,
            blind_until: i64::MIN,
            began: 0,
            dies_at_commit: false,
            places: plan.house.apis.iter().map(|_| Places::default()).collect(),
            ringing: 0,
            ringing_at: HashMap::new(),
            ringing_in: HashMap::new(),
            waiting: 0,
            commits: 0,
        };
        Self { world: Arc::new(Mutex::new(world)), changed: Arc::default(), dead: Arc::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a broken promise; the world ends.
    pub(super) fn broken(&self, what: &str) {
        self.lock().breaks(what);
        self.dead.notify_one();
    }

    /// Time for something small that is done the `nth` time.
    pub(super) async fn lag(&self, what: u64, nth: u64, at_most: u32) {
        let seed = self.lock().plan.seed;
        let lag = Dice::of(seed, what.wrapping_mul(1_000_003).wrapping_add(nth)).below(at_most + 1);
        sleep(u64::from(lag)).await;
    }
}

impl World {
    pub(super) fn breaks(&mut self, what: &str) {
        self.broken.get_or_insert_with(|| format!("{what} ({} ms after the world began)", chance::age()));
    }

    pub(super) fn next_commit(&mut self) -> u64 {
        self.commits += 1;
        self.commits
    }

    pub(super) fn life(&mut self, number: u32) -> Option<&mut Life> {
        self.lives.iter_mut().find(|life| life.call.number == number)
    }
}

/// Milliseconds of simulated time; at least a turn for the others.
pub(super) async fn sleep(ms: u64) {
    if ms == 0 {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// One for all worlds: what is sealed is not what is doubted here.
pub(super) fn ring() -> KeyRing {
    static RING: OnceLock<KeyRing> = OnceLock::new();
    let make = || {
        let dir = tempfile::tempdir().expect("a place for a key file");
        crate::seal::load_or_create(&dir.path().join("keys"), true).expect("a new key file")
    };
    RING.get_or_init(make).clone()
}
