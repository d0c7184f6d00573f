//! One life of the node, from start to crash or drain: its own worker, store and writer on a runtime of
//! one thread whose time moves on when everybody waits.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use prometheus_client::metrics::histogram::Histogram;
use tokio::runtime::Builder;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::chance::{self, Dice};
use super::life::{Kept, Life, Told};
use super::outside::MAX_RESULT;
use super::people::{Front, name_of};
use super::plan::{Api, Happens, House, Keeps};
use super::world::{Shared, World, ring, sleep};
use crate::backoff::Backoff;
use crate::clock::{Clock, Timestamp};
use crate::config::RetentionConfig;
use crate::guard::{Rules, tests::config};
use crate::id::Seq;
use crate::janitor;
use crate::lease::LeaseToken;
use crate::outcome::{RetryPolicy, TransientStatuses};
use crate::pace::Pace;
use crate::store::by_hand::{Reads, Taken, Turned};
use crate::store::{LaneId, OpenOptions, Store};
use crate::task::PublicUris;
use crate::telemetry::metrics::Metrics;
use crate::watch::Watches;
use crate::worker::{Bench, Worker, Workshop};

/// As in the default configuration.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(35);

/// Whatever has not ended so long after the last event never will.
const HORIZON: Duration = Duration::from_hours(100);

/// Longer than the janitor rests between two looks. Milliseconds.
const JANITORS_PACE: u64 = 30_000;

/// Of the dice: which reads fail.
const BLINKS: u64 = 1 << 40;

/// After every so many commits all that is open is looked at; after the others, what they were about.
const LOOK_AT_ALL: u64 = 16;

/// How a life of the node ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    /// The next start finds the wall clock moved.
    Crashed(i64),
    Drained,
    /// Everything that was promised is done.
    Quiet,
    /// A promise was broken.
    Broken,
}

/// Runs the node once.
pub(super) fn live(shared: &Shared, skew: i64) -> End {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without sockets");
    let end = runtime.block_on(async {
        chance::begin(skew);
        let end = lead(shared).await;
        chance::end();
        end
    });
    // Every task dies where it stands.
    drop(runtime);
    let mut world = shared.lock();
    world.bury();
    if world.broken.is_some() { End::Broken } else { end }
}

async fn lead(shared: &Shared) -> End {
    let clock = Clock::by(chance::wall);
    let workshop = {
        let mut world = shared.lock();
        world.dies_at_commit = false;
        let (store, by_hand) = world.disk.open(&options(&world.plan.house, clock), &ring());
        let clock = store.clock();
        world.begins(clock.steady());
        if !chance::resume(clock.steady()) {
            world.breaks("the steady clock begins where it never was");
        }
        tokio::spawn(write(shared.clone(), by_hand.writer));
        tokio::spawn(read(shared.clone(), by_hand.reads));
        let metrics = Arc::new(Metrics::default());
        if let Some(keeps) = &world.plan.house.keeps {
            let never = CancellationToken::new();
            let janitor = janitor::run(store.clone(), retention(keeps), clock, Arc::clone(&metrics), never);
            tokio::spawn(janitor);
        }
        Arc::new(workshop(shared, &world.plan.house, store, clock, &metrics))
    };
    // A message from the life before.
    let _ = shared.dead.notified().now_or_never();
    let worker = Worker::start(Arc::clone(&workshop));
    let front = Front::of(&workshop);
    let to_call: Vec<_> = {
        let world = shared.lock();
        let lives = world.lives.iter().enumerate();
        lives
            .filter(|(_, life)| life.told == Told::NotYet)
            .map(|(index, life)| (index, life.call.at))
            .collect()
    };
    for (index, at) in to_call {
        let front = front.clone();
        tokio::spawn(async move {
            until(at).await;
            front.call(index).await;
        });
    }
    tokio::select! {
        biased;
        () = shared.dead.notified() => End::Crashed(0),
        end = history(shared, &front, &worker) => end,
    }
}

/// What happens to the node, in its order.
async fn history(shared: &Shared, front: &Front, worker: &Worker<Shared>) -> End {
    loop {
        let event = {
            let world = shared.lock();
            world.plan.events.get(world.happened).copied()
        };
        let Some(event) = event else { break };
        until(event.at).await;
        shared.lock().happened += 1;
        match event.what {
            Happens::Crash(skew) => return End::Crashed(skew),
            Happens::CrashAtCommit => shared.lock().dies_at_commit = true,
            Happens::Drain => return drain(shared, worker).await,
            Happens::Jump(by) => chance::jump(by),
            Happens::Full(ms) => {
                let ms = i64::try_from(ms).expect("short");
                shared.lock().full_until = chance::true_now() + ms;
            }
            Happens::Blind(ms) => {
                let ms = i64::try_from(ms).expect("short");
                shared.lock().blind_until = chance::true_now() + ms;
            }
            Happens::Cancel(number) => drop(tokio::spawn(front.clone().cancel(number))),
            Happens::TakeLease(number) => drop(tokio::spawn(front.clone().take_lease(number))),
            Happens::Purge(age) => drop(tokio::spawn(front.clone().purge(age))),
        }
    }
    let quiet = async {
        while !shared.lock().is_quiet() {
            shared.changed.notified().await;
        }
    };
    if timeout(HORIZON, quiet).await.is_err() {
        let open: Vec<_> = {
            let world = shared.lock();
            let open = world.lives.iter().filter(|life| life.is_open());
            open.map(|life| (life.call.number, life.kept.clone())).collect()
        };
        let waiting = shared.lock().waiting;
        shared.broken(&format!("nothing moves any more, with {waiting} waiting for {open:?}"));
    }
    outlive(shared).await;
    End::Quiet
}

/// Until nothing may be kept any more.
async fn outlive(shared: &Shared) {
    let keeps = shared.lock().plan.house.keeps;
    let Some(keeps) = keeps else { return };
    sleep(keeps.results + keeps.tasks + JANITORS_PACE).await;
    shared.audited(|world| {
        world.audit_all();
        if let Some(life) = world.lives.iter().find(|life| life.kept != Kept::Nothing) {
            let wrong = format!("call {} is kept longer than it may be: {:?}", life.call.number, life.kept);
            world.breaks(&wrong);
        }
    });
}

async fn drain(shared: &Shared, worker: &Worker<Shared>) -> End {
    // What a full disk could not take back, the next start does.
    let full = {
        let mut world = shared.lock();
        world.draining = true;
        world.full_until > chance::true_now()
    };
    if timeout(DRAIN_TIMEOUT, worker.drain()).await.is_err() {
        return End::Crashed(0);
    }
    let mut world = shared.lock();
    world.audit_all();
    let (calling, ringing) = (world.places.iter().map(|places| places.calling).sum::<usize>(), world.ringing);
    if !full && (calling + ringing > 0 || world.lives.iter().any(|life| life.kept.lease() != 0)) {
        world.breaks(&format!(
            "drained with {calling} calls and {ringing} webhooks in flight, or leases held"
        ));
    }
    End::Drained
}

/// The writer's thread.
async fn write(shared: Shared, mut writer: Turned) {
    let mut refuses = false;
    while let Some(taken) = writer.next().await {
        let number = shared.lock().next_commit();
        shared.lag(1, number, 2).await;
        let (full, dies) = {
            let world = shared.lock();
            (world.full_until > chance::true_now(), world.dies_at_commit)
        };
        if full != refuses {
            writer.refuse_writes(full);
            refuses = full;
        }
        if dies {
            let _unheard = writer.commit_and_die(taken);
            shared.dead.notify_one();
            return std::future::pending().await;
        }
        let (touched, stale) = shared.lock().before(&taken);
        let purging = writer.commit(taken);
        shared.audited(|world| {
            if number.is_multiple_of(LOOK_AT_ALL) {
                world.audit();
            } else {
                for index in touched {
                    world.audit_one(index);
                }
            }
            world.audit_waits();
            world.untouched(&stale);
        });
        if let Some(purging) = purging {
            writer.purge(purging);
            shared.audited(|world| world.audit_these(Life::rests));
        }
        shared.changed.notify_one();
    }
}

/// The readers' threads.
async fn read(shared: Shared, mut reads: Reads) {
    let mut number = 0;
    while let Some(read) = reads.next().await {
        number += 1;
        shared.lag(2, number, 1).await;
        let world = shared.lock();
        let is_blind = world.blind_until > chance::true_now();
        if is_blind && Dice::of(world.plan.seed, BLINKS + number).percent(50) {
            // Whoever asked hears that it cannot be read.
            drop(read);
        } else {
            read(&world.disk.look);
        }
    }
}

async fn until(at: i64) {
    sleep(u64::try_from(at - chance::age()).unwrap_or(0)).await;
}

impl Shared {
    fn audited(&self, audit: impl FnOnce(&mut World)) {
        let mut world = self.lock();
        audit(&mut world);
        if world.broken.is_some() {
            self.dead.notify_one();
        }
    }
}

impl World {
    fn is_quiet(&self) -> bool {
        self.waiting == 0 && self.lives.iter().all(|life| !life.is_open())
    }

    /// A life of the node begins at this instant of its steady clock.
    fn begins(&mut self, at: Timestamp) {
        (self.began, self.draining) = (at.0, false);
        for places in &mut self.places {
            (places.calling, places.free_since) = (0, Some(at.0));
        }
    }

    /// Lives that a commit to come is about, looked at now, and those of them that it must not change.
    fn before(&mut self, taken: &Taken) -> (Vec<usize>, Vec<(usize, Kept)>) {
        let leases = taken.leases();
        let seqs = leases.iter().map(|(seq, _)| *seq).chain(taken.accepts());
        let mut touched: Vec<_> = seqs.filter_map(|seq| self.by_seq.get(&seq).copied()).collect();
        touched.sort_unstable();
        touched.dedup();
        // A claim may have leased them since.
        for index in &touched {
            self.audit_one(*index);
        }
        let stale = self.stale(&leases);
        (touched, stale)
    }

    /// Lives that operations to come are about, all of them under leases that are held no more.
    fn stale(&self, leases: &[(Seq, Option<LeaseToken>)]) -> Vec<(usize, Kept)> {
        let index = |seq: Seq| self.by_seq.get(&seq).copied();
        let lost = |index: usize, lease: Option<LeaseToken>| {
            lease.is_some_and(|lease| lease.as_i64() != self.lives[index].kept.lease())
        };
        let touched = leases.iter().filter_map(|(seq, _)| index(*seq));
        let all_lost =
            |at: &usize| leases.iter().all(|(seq, lease)| index(*seq) != Some(*at) || lost(*at, *lease));
        touched.filter(all_lost).map(|index| (index, self.lives[index].kept.clone())).collect()
    }

    /// They have changed nothing.
    fn untouched(&mut self, stale: &[(usize, Kept)]) {
        for (index, before) in stale {
            let life = &self.lives[*index];
            if !life.kept.is_untouched(before) {
                let (number, now) = (life.call.number, life.kept.clone());
                self.breaks(&format!("call {number} was changed under a lost lease: {before:?}, {now:?}"));
            }
        }
    }

    /// What the crash has taken with it.
    fn bury(&mut self) {
        self.audit_all();
        self.waiting = 0;
        for life in &mut self.lives {
            if life.told == Told::Asked {
                life.told = Told::Nothing;
            }
            match &life.kept {
                Kept::Waiting(waiting) => life.tried_in_vain = life.tried.saturating_sub(waiting.attempts),
                Kept::Final(end) => {
                    let tries = end.delivery.as_ref().map_or(0, |delivery| delivery.tries);
                    life.rung_in_vain = life.rung.saturating_sub(tries);
                }
                Kept::Nothing | Kept::Expired => {}
            }
        }
    }
}

fn options(house: &House, clock: Clock) -> OpenOptions {
    OpenOptions {
        data_dir: std::path::PathBuf::new(),
        database: None,
        key_file: None,
        upstreams: (0..).zip(&house.apis).map(|(api, _)| name_of(api)).collect(),
        max_queued_tasks: house.max_queued,
        max_queued_per_credentials: house.max_queued,
        max_bytes: house.keeps.map_or(0, |keeps| keeps.max_bytes),
        ready_capacity: house.ready,
        clock,
        busy: Arc::new(move || busy(clock.steady())),
        commit_seconds: Histogram::new([1.0]),
    }
}

/// Every other second the node has no time left, so that accepts are paced now and free then.
fn busy(now: Timestamp) -> Duration {
    let now = now.0.unsigned_abs();
    let (second, rest) = (now / 1_000, now % 1_000);
    Duration::from_millis(second / 2 * 1_000 + second % 2 * rest)
}

fn retention(keeps: &Keeps) -> RetentionConfig {
    RetentionConfig {
        results: Duration::from_millis(keeps.results),
        tasks: Duration::from_millis(keeps.tasks),
        idempotency_keys: Duration::from_millis(keeps.tasks),
        max_bytes: keeps.max_bytes,
        results_at_least: Duration::from_millis(keeps.at_least),
    }
}

fn workshop(
    shared: &Shared,
    house: &House,
    store: Store,
    clock: Clock,
    metrics: &Metrics,
) -> Workshop<Shared> {
    let backoff = |delays: &[u64]| {
        Backoff::new(delays.iter().map(|&ms| Duration::from_millis(ms)).collect(), house.jitter)
    };
    let bench = |(lane, (number, api)): (usize, (u8, &Api))| Bench {
        id: LaneId(lane),
        lane: Arc::clone(&store.lanes()[lane]),
        policy: RetryPolicy { backoff: backoff(&house.retry_delays), statuses: TransientStatuses::default() },
        idempotency: api.idempotency,
        max_result_bytes: u64::try_from(MAX_RESULT).expect("a megabyte"),
        concurrency: api.concurrency,
        uris: PublicUris::new("https://node.example", &format!("/a{number}"), "/results"),
        metrics: metrics.upstream(&name_of(number)),
        pace: Arc::new(Pace::default()),
    };
    let benches = (0..).zip(&house.apis).enumerate().map(bench).collect();
    Workshop {
        store,
        ring: ring(),
        clock,
        benches,
        outside: shared.clone(),
        chance: chance::jitter,
        rules: Arc::new(Rules::new(&config())),
        delivery_backoff: backoff(&house.webhook_delays),
        delivery_metrics: metrics.deliveries(),
        delivery_permits: Workshop::delivery_permits(house.webhook_concurrency, house.per_host),
        watches: Arc::new(Watches::new(100)),
    }
}
