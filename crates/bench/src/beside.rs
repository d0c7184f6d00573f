//! Ringback beside other programs that can do its work, on one machine, in one run.
//!
//! Everybody gets the same work from the same generator, upstream and receiver: take a call durably,
//! call the upstream (2 KB), keep the answer, ring the receiver. Rounds are interleaved because the
//! machine drifts. What differs is said beside the numbers: see [`table`].

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::ledger::{Account, Ledger};
use crate::load::{self, Load, Pace, Seen, Target};
use crate::noop::Noop;
use crate::peer::{Manners, Peers};
use crate::report::{Percentiles, a_second, float, megabytes, percentiles};
use crate::usage::{Machine, Usage, families, family_cpu, family_memory};
use crate::wire::{Wire, text_of};

mod contender;
mod table;

pub use contender::{CONCURRENCY, Contender, Kind, Programs};
pub use table::{markdown, versions};

/// What is compared, and how long.
pub struct Options {
    pub programs: Programs,
    pub kinds: Vec<Kind>,
    pub rounds: u32,
    /// Counted seconds of each load.
    pub seconds: u64,
    pub connections: usize,
    pub kills: u32,
    /// Seconds without progress after the last kill before a task counts as not done.
    pub settle: u64,
    pub dir: std::path::PathBuf,
}

/// What one contender did.
#[derive(Default)]
pub struct Measures {
    /// One value a round.
    pub accepted: Vec<f64>,
    pub whole: Vec<f64>,
    pub cpu: Vec<f64>,
    /// Calls that were answered with anything but 202, and tasks not finished in time.
    pub wrong: u64,
    pub unfinished: u64,
    pub accept: Option<Percentiles>,
    pub lag: Option<Percentiles>,
    pub memory: f64,
    /// `fsync` and `fdatasync` calls a call accepted; `None` without strace.
    pub syncs: Option<f64>,
    /// Results read back, of [`READ_BACK`].
    pub results: u32,
    pub kills: Killed,
}

/// What the kills left.
#[derive(Default)]
pub struct Killed {
    pub count: u32,
    pub account: Account,
    /// Unfinished and given up, by its own word.
    pub left: Option<(u64, u64)>,
    pub slowest_start: Duration,
}

/// Everything measured.
pub struct Comparison {
    pub measures: Vec<(Kind, Measures)>,
    /// Calls a second of a server that does nothing, one a round.
    pub noop: Vec<f64>,
    /// The most others used of the machine during a load.
    pub foreign_cores: f64,
}

/// Long enough for what compiles while it runs.
const WARM_UP: Duration = Duration::from_secs(2);

/// How long the tasks of one load may take to end after it.
const DRAIN: Duration = Duration::from_secs(20);

/// Calls a second for latencies: far below what the slowest can do.
const LOW_RATE: f64 = 100.0;

pub const READ_BACK: u32 = 20;

/// Calls accepted one at a time while syncs are counted.
const SYNCED_CALLS: u32 = 40;

/// Longer than the phase: the upstream does not answer.
const NEVER: Duration = Duration::from_secs(25);

const KILL_CONNECTIONS: usize = 8;
const KILL_PAUSE: Duration = Duration::from_millis(20);
const LIFE_MAX: Duration = Duration::from_millis(1500);

/// Measures everybody.
///
/// # Errors
/// A contender does not start or stops answering.
pub fn run(options: &Options) -> anyhow::Result<Comparison> {
    let mut comparison = Comparison {
        measures: options.kinds.iter().map(|&kind| (kind, Measures::default())).collect(),
        noop: Vec::new(),
        foreign_cores: 0.0,
    };
    for round in 0..options.rounds {
        comparison.noop.push(noop(options)?);
        for place in 0..options.kinds.len() {
            // Everybody comes first once.
            let place = (place + usize::try_from(round)?) % options.kinds.len();
            let (kind, measures) = &mut comparison.measures[place];
            eprintln!("round {}: {} …", round + 1, kind.name());
            let foreign = measure(options, *kind, round == 0, measures)?;
            comparison.foreign_cores = comparison.foreign_cores.max(foreign);
        }
    }
    if options.kills > 0 {
        kill_everybody(options, &mut comparison)?;
    }
    Ok(comparison)
}

/// A place whose way in is open: PostgreSQL runs as another user.
fn place(dir: &Path) -> anyhow::Result<TempDir> {
    let place = tempfile::Builder::new()
        .prefix("ringback-peers-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in(dir)?;
    Ok(place)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn noop(options: &Options) -> anyhow::Result<f64> {
    let noop = Noop::start()?;
    let target = Target::new(noop.address, noop.address);
    let load = Load {
        connections: options.connections,
        pace: Pace::Closed,
        warm_up: WARM_UP,
        counted: Duration::from_secs(2),
    };
    let seen = runtime()?.block_on(load::run(load, &target, &Arc::default(), || {}))?;
    Ok(a_second(seen.accepted, load.counted))
}

/// One round of one contender; says how many cores others used.
fn measure(options: &Options, kind: Kind, is_first: bool, measures: &mut Measures) -> anyhow::Result<f64> {
    let place = place(&options.dir)?;
    let ledger = Arc::new(Ledger::default());
    let peers = Peers::start(&ledger)?;
    let mut contender = Contender::new(kind, &options.programs, place.path(), peers.upstream)?;
    contender.start()?;
    let target = Target::new(contender.front, peers.receiver).speaking(contender.dialect());
    runtime()?.block_on(first_call(&target, &ledger))?;
    wait_until_done(&ledger, DRAIN);
    let foreign = saturate(options, &contender, &target, &ledger, measures)?;
    if is_first {
        measures.memory = megabytes(family_memory(&contender.roots()));
        at_low_rate(&target, &ledger, measures)?;
        measures.results = runtime()?.block_on(read_back(&target, &ledger))?;
        measures.syncs = syncs(&contender, &target, &ledger, &peers.manners, place.path())?;
    }
    contender.kill()?;
    Ok(foreign)
}

/// Calls until a call is accepted: some listen long before they can take one.
async fn first_call(target: &Target, ledger: &Arc<Ledger>) -> anyhow::Result<()> {
    let mut request = Vec::new();
    for _ in 0..300 {
        let number = ledger.call();
        target.write_task(&mut request, number);
        let attempt = async {
            let mut wire = Wire::new(TcpStream::connect(target.server).await?);
            load::exchange(&mut wire, &request).await
        };
        if let Ok(Ok((202, Some(task)))) = tokio::time::timeout(Duration::from_secs(30), attempt).await {
            ledger.accepted(number, task);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("no call is accepted")
}

/// As fast as it takes calls, and then until everything it took is done.
fn saturate(
    options: &Options,
    contender: &Contender<'_>,
    target: &Target,
    ledger: &Arc<Ledger>,
    measures: &mut Measures,
) -> anyhow::Result<f64> {
    let load = Load {
        connections: options.connections,
        pace: Pace::Closed,
        warm_up: WARM_UP,
        counted: Duration::from_secs(options.seconds),
    };
    let roots = contender.roots();
    let (cpu, own) = (family_cpu(&roots), Usage::of(std::process::id()).cpu);
    let machine = Machine::now();
    let (began, before) = (ledger.now(), ledger.sums().announced);
    let seen = runtime()?.block_on(load::run(load, target, ledger, || {}))?;
    wait_until_done(ledger, DRAIN);
    let cpu = family_cpu(&roots).saturating_sub(cpu);
    let own = Usage::of(std::process::id()).cpu.saturating_sub(own);
    let last = ledger.entries().iter().map(|entry| entry.announced_at).max().unwrap_or(0);
    let done = ledger.sums().announced - before;
    measures.accepted.push(a_second(seen.accepted, load.counted));
    measures.whole.push(a_second(done, Duration::from_micros(last.saturating_sub(began))));
    measures.cpu.push(cpu.as_secs_f64() * 10_000.0 / float(done.max(1)));
    measures.wrong += seen.wrong + seen.refused;
    measures.unfinished += ledger.owed();
    ensure!(done > 0, "{} finished nothing", contender.kind.name());
    Ok(Machine::now().foreign_cores(&machine, cpu + own))
}

/// Waits until nothing is owed, for so long.
fn wait_until_done(ledger: &Ledger, limit: Duration) {
    let end = Instant::now() + limit;
    while ledger.owed() > 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn at_low_rate(target: &Target, ledger: &Arc<Ledger>, measures: &mut Measures) -> anyhow::Result<()> {
    let from = ledger.next();
    let load = Load {
        connections: 16,
        pace: Pace::Open { per_second: LOW_RATE },
        warm_up: WARM_UP,
        counted: Duration::from_secs(5),
    };
    let Seen { latencies, .. } = runtime()?.block_on(load::run(load, target, ledger, || {}))?;
    wait_until_done(ledger, DRAIN);
    let entries = ledger.entries();
    let announced = entries[from..].iter().filter(|entry| entry.announced_at > 0);
    let lags = announced.map(|entry| u32::try_from(entry.announced_at - entry.sent_at).unwrap_or(u32::MAX));
    measures.accept = Some(percentiles(latencies));
    measures.lag = Some(percentiles(lags.collect()));
    Ok(())
}

/// Calls one at a time and reads each result; says how many were there.
async fn read_back(target: &Target, ledger: &Arc<Ledger>) -> anyhow::Result<u32> {
    let mut wire = Wire::new(TcpStream::connect(target.server).await?);
    let mut found = 0;
    for _ in 0..READ_BACK {
        let name = one_call(&mut wire, target, ledger).await?;
        // Some keep the result only after the webhook.
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            wire.stream.write_all(&target.read_result(&name)).await?;
            let reply = wire.reply().await?;
            let text = String::from_utf8_lossy(reply.body);
            if reply.status == 200 && text.contains(crate::peer::FILLER) {
                found += 1;
                break;
            }
        }
    }
    Ok(found)
}

/// The task's name.
async fn one_call(wire: &mut Wire, target: &Target, ledger: &Arc<Ledger>) -> anyhow::Result<String> {
    let mut request = Vec::new();
    target.write_task(&mut request, ledger.call());
    wire.stream.write_all(&request).await?;
    let reply = wire.reply().await?;
    ensure!(reply.status == 202, "a call was answered {}", reply.status);
    let name = text_of(reply.body, "task_id").or_else(|| text_of(reply.body, "invocationId"));
    Ok(name.context("the answer names no task")?.to_owned())
}

/// Syncs a call, counted by the kernel while calls come one at a time and the upstream is silent.
fn syncs(
    contender: &Contender<'_>,
    target: &Target,
    ledger: &Arc<Ledger>,
    manners: &Manners,
    place: &Path,
) -> anyhow::Result<Option<f64>> {
    manners.set_delay(NEVER);
    let log = place.join("syncs");
    let pids = families(&contender.roots());
    let mut strace = Command::new("strace");
    strace.args(["-f", "-q", "-e", "trace=fsync,fdatasync,sync_file_range", "-o"]).arg(&log);
    for pid in &pids {
        strace.args(["-p", &pid.to_string()]);
    }
    let Ok(mut strace) = strace.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        return Ok(None);
    };
    let is_traced = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    };
    let end = Instant::now() + Duration::from_secs(10);
    while !pids.iter().all(is_traced) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let count = || said().lines().filter(|line| line.contains("sync(") && !line.contains("resumed")).count();
    let before = count();
    runtime()?.block_on(async {
        let mut wire = Wire::new(TcpStream::connect(target.server).await?);
        for _ in 0..SYNCED_CALLS {
            one_call(&mut wire, target, ledger).await?;
        }
        anyhow::Ok(())
    })?;
    let counted = count() - before;
    Command::new("kill").args(["-s", "INT", &strace.id().to_string()]).status()?;
    strace.wait()?;
    manners.set_delay(Duration::ZERO);
    Ok(Some(float(u64::try_from(counted)?) / f64::from(SYNCED_CALLS)))
}

/// One contender through its kills, left running afterwards.
struct Survivor<'a> {
    contender: Contender<'a>,
    ledger: Arc<Ledger>,
    killed: Killed,
    _place: TempDir,
}

/// Kills one after the other, and lets all settle at the same time: some take a minute.
fn kill_everybody(options: &Options, comparison: &mut Comparison) -> anyhow::Result<()> {
    let mut survivors = Vec::new();
    for (kind, _) in &comparison.measures {
        eprintln!("kills: {} …", kind.name());
        survivors.push(kill_often(options, *kind)?);
    }
    eprintln!("settling …");
    let owed = |survivors: &[Survivor<'_>]| survivors.iter().map(|one| one.ledger.owed()).sum::<u64>();
    let mut last = (owed(&survivors), Instant::now());
    while last.0 > 0 && last.1.elapsed() < Duration::from_secs(options.settle) {
        std::thread::sleep(Duration::from_millis(50));
        let now = owed(&survivors);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    // Repeats of what was delivered already.
    std::thread::sleep(Duration::from_secs(2));
    for (survivor, (_, measures)) in survivors.into_iter().zip(&mut comparison.measures) {
        let account = survivor.ledger.account(0);
        measures.kills = Killed { account, left: survivor.contender.left(), ..survivor.killed };
    }
    Ok(())
}

fn kill_often(options: &Options, kind: Kind) -> anyhow::Result<Survivor<'_>> {
    let place = place(&options.dir)?;
    let ledger = Arc::new(Ledger::default());
    let peers = Peers::start(&ledger)?;
    let mut contender = Contender::new(kind, &options.programs, place.path(), peers.upstream)?;
    let mut killed = Killed::default();
    contender.start()?;
    for _ in 0..options.kills {
        let target = Target::new(contender.front, peers.receiver).speaking(contender.dialect());
        runtime()?.block_on(first_call(&target, &ledger))?;
        runtime()?.block_on(live(&mut contender, &target, &ledger))?;
        killed.count += 1;
        let began = Instant::now();
        contender.start()?;
        killed.slowest_start = killed.slowest_start.max(began.elapsed());
    }
    Ok(Survivor { contender, ledger, killed, _place: place })
}

/// Calls until a random moment, and then until nobody answers.
async fn live(contender: &mut Contender<'_>, target: &Target, ledger: &Arc<Ledger>) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    for _ in 0..KILL_CONNECTIONS {
        connections.spawn(call_on(target.clone(), Arc::clone(ledger)));
    }
    tokio::time::sleep(LIFE_MAX.mul_f64(rand::random_range(0.2..1.0))).await;
    contender.kill()?;
    connections.join_all().await;
    Ok(())
}

async fn call_on(target: Target, ledger: Arc<Ledger>) -> Option<()> {
    let mut wire = Wire::new(TcpStream::connect(target.server).await.ok()?);
    let mut request = Vec::new();
    loop {
        let number = ledger.call();
        target.write_task(&mut request, number);
        if let (202, Some(task)) = load::exchange(&mut wire, &request).await.ok()? {
            ledger.accepted(number, task);
        }
        tokio::time::sleep(KILL_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    fn the_script_explains_itself_without_installing_anything() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/run");
        let output =
            Command::new(script).arg("--help").env("PEERS_BIN", "/nowhere").output().expect("bash is here");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for option in ["--list", "--only", "PEERS_DIR"] {
            assert!(said.contains(option), "{option} is not in {said}");
        }
    }
}
