//! The measurements, one phase a function; each has a node with fresh data.
//!
//! What is compared is measured in turns within one run, because the machine drifts: a phase says how
//! many cores others kept busy while it ran.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tempfile::TempDir;

use crate::ledger::{Ledger, Sums};
use crate::load::{self, Load, Pace, Seen, Target};
use crate::node::{Node, Setup};
use crate::noop::Noop;
use crate::peer::Peers;
use crate::report::{Percentiles, Report, Section, a_second, float, megabytes, per};
use crate::usage::{Machine, Usage};

mod finish;
mod growth;
mod queue;
mod retention;

/// What to measure, and how long.
pub struct Options {
    pub ringback: PathBuf,
    /// Counted seconds of each load.
    pub seconds: u64,
    /// Tasks queued for memory and restart.
    pub queued: u64,
    /// Finished tasks kept for growth; 0 leaves the phase out.
    pub finished: u64,
    /// Calls a second of the retention phase.
    pub rate: u64,
    /// Seconds to wait for a quiet machine before each load.
    pub quiet: u64,
    /// Phases to run; empty for all.
    pub only: Vec<String>,
    /// Where nodes keep their data; the system's temporary directory if not set.
    pub dir: Option<PathBuf>,
}

pub struct Bench {
    options: Options,
    ledger: Arc<Ledger>,
    peers: Peers,
    report: Report,
}

const WARM_UP: Duration = Duration::from_secs(1);

/// Above it a machine is not quiet.
const QUIET_CORES: f64 = 0.2;

/// Work in flight: enough for the machine's rate times what its own queues add.
const CONCURRENCY: u32 = 512;

/// One edge of the counted time.
#[derive(Clone, Copy)]
struct Edge {
    at: Instant,
    sums: Sums,
    server: Usage,
    tools: Usage,
    machine: Machine,
}

/// A load and what it did.
struct Measured {
    seen: Seen,
    from: Edge,
    to: Edge,
}

impl Measured {
    fn span(&self) -> Duration {
        self.to.at.duration_since(self.from.at)
    }

    fn cpu(&self) -> f64 {
        self.to.server.cpu.saturating_sub(self.from.server.cpu).as_secs_f64()
    }

    fn accepted_a_second(&self) -> f64 {
        a_second(self.seen.accepted, self.span())
    }

    fn completed(&self) -> u64 {
        self.to.sums.announced - self.from.sums.announced
    }

    fn completed_a_second(&self) -> f64 {
        a_second(self.completed(), self.span())
    }

    /// CPU seconds of the server for 10,000 of `count`.
    fn cpu_per_10k(&self, count: u64) -> f64 {
        if count == 0 { 0.0 } else { self.cpu() * 10_000.0 / float(count) }
    }

    fn note_machine(&self, section: &mut Section) {
        let tools = self.to.tools.cpu.saturating_sub(self.from.tools.cpu);
        let server = self.to.server.cpu.saturating_sub(self.from.server.cpu);
        section.number("server cores", per_span(server, self.span()));
        section.number("tool cores", per_span(tools, self.span()));
        section.number("foreign cores", self.to.machine.foreign_cores(&self.from.machine, tools + server));
    }
}

fn per_span(cpu: Duration, span: Duration) -> f64 {
    cpu.as_secs_f64() / span.as_secs_f64().max(0.001)
}

impl Bench {
    /// # Errors
    /// The peers do not start.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        let ledger = Arc::new(Ledger::default());
        let peers = Peers::start(&ledger)?;
        Ok(Self { options, ledger, peers, report: Report::default() })
    }

    /// Runs every phase asked for.
    ///
    /// # Errors
    /// A node does not start, or a phase cannot go on.
    pub fn run(mut self) -> anyhow::Result<Report> {
        if self.wants("accept") {
            self.accept_and_restart()?;
        }
        if self.wants("life") {
            self.whole_life()?;
        }
        if self.wants("slow") {
            self.slow_upstream()?;
        }
        if self.wants("idle") {
            self.idle()?;
        }
        if self.wants("growth") && self.options.finished > 0 {
            self.growth()?;
        }
        if self.wants("retention") {
            self.retention()?;
        }
        Ok(self.report)
    }

    fn wants(&self, phase: &str) -> bool {
        self.options.only.is_empty() || self.options.only.iter().any(|only| only == phase)
    }

    fn setup(&self, dir: &TempDir, concurrency: u32) -> Setup {
        Setup::new(&self.options.ringback, dir.path(), self.peers.upstream, concurrency)
    }

    fn fresh_dir(&self) -> std::io::Result<TempDir> {
        match &self.options.dir {
            Some(dir) => tempfile::tempdir_in(dir),
            None => tempfile::tempdir(),
        }
    }

    fn counted(&self) -> Duration {
        Duration::from_secs(self.options.seconds)
    }

    fn target(&self, node: &Node) -> Target {
        Target::new(node.gateway, self.peers.receiver)
    }

    /// Loads a server and takes its measure at both edges.
    fn load(
        &self,
        pid: u32,
        target: &Target,
        ledger: &Arc<Ledger>,
        connections: usize,
        pace: Pace,
    ) -> anyhow::Result<Measured> {
        self.wait_for_quiet();
        let load = Load { connections, pace, warm_up: WARM_UP, counted: self.counted() };
        let mut edges = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let seen = runtime.block_on(load::run(load, target, ledger, || {
            edges.push(Edge {
                at: Instant::now(),
                sums: self.ledger.sums(),
                server: Usage::of(pid),
                tools: Usage::of(std::process::id()),
                machine: Machine::now(),
            });
        }))?;
        ensure!(edges.len() == 2, "the load did not run to its end");
        Ok(Measured { seen, from: edges[0], to: edges[1] })
    }

    fn load_node(&self, node: &Node, connections: usize, pace: Pace) -> anyhow::Result<Measured> {
        self.load(node.pid(), &self.target(node), &self.ledger, connections, pace)
    }

    /// The no-op server under the same load, in calls a second.
    fn noop(&mut self, connections: usize) -> anyhow::Result<f64> {
        let noop = Noop::start()?;
        let target = Target::new(noop.address, self.peers.receiver);
        let forgotten = Arc::new(Ledger::default());
        let measured = self.load(noop.pid(), &target, &forgotten, connections, Pace::Closed)?;
        let rate = measured.accepted_a_second();
        let mut section = Section::new(&format!("no-op, {connections} connections"));
        section.number("calls/s", rate);
        section.latencies("answer", measured.seen.latencies.clone());
        section.number("CPU s per 10,000", measured.cpu_per_10k(measured.seen.accepted));
        measured.note_machine(&mut section);
        self.report.add(section);
        Ok(rate)
    }

    /// Waits until nobody else uses the machine, for as long as allowed.
    fn wait_for_quiet(&self) {
        let end = Instant::now() + Duration::from_secs(self.options.quiet);
        while Instant::now() < end {
            let before = (Machine::now(), Usage::of(std::process::id()).cpu);
            std::thread::sleep(Duration::from_millis(500));
            let ours = Usage::of(std::process::id()).cpu.saturating_sub(before.1);
            if Machine::now().foreign_cores(&before.0, ours) < QUIET_CORES {
                return;
            }
        }
    }

    /// Waits until everything accepted is announced, and says how long that took.
    fn settle(&self, limit: Duration) -> Duration {
        let start = Instant::now();
        let mut last = (self.ledger.owed(), Instant::now());
        while self.ledger.owed() > 0 && start.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(20));
            let owed = self.ledger.owed();
            if owed != last.0 {
                last = (owed, Instant::now());
            } else if last.1.elapsed() > Duration::from_secs(45) {
                break;
            }
        }
        start.elapsed()
    }

    /// Notes what became of every call from `from` on.
    fn account(&mut self, section: &mut Section, from: usize) {
        let account = self.ledger.account(from);
        section.note("accepted in all", account.accepted);
        section.note("lost", account.lost);
        section.note("announced as another task", account.mixed_up);
        section.note("failed", account.failed);
        section.note("repeated webhooks", account.repeated_webhooks);
        section.note("repeated upstream calls", account.repeated_calls);
        self.report.at_most("accepted tasks lost", float(account.lost + account.mixed_up), 0.0);
    }

    fn note_accepts(section: &mut Section, measured: &Measured) -> Percentiles {
        section.number("accepted/s", measured.accepted_a_second());
        section.number("refused/s", a_second(measured.seen.refused, measured.span()));
        section.note("wrong answers", measured.seen.wrong);
        section.latencies("accept", measured.seen.latencies.clone())
    }

    /// Bytes and syncs a task of a whole run of the node.
    fn note_disk(section: &mut Section, node: &Node, tasks: u64) {
        section.number("bytes written a task", per(node.usage().written, float(tasks)));
        section.number("syncs a task", per(node.commits(), float(tasks)));
        section.number("RSS MB", megabytes(node.usage().rss));
        section.number("anonymous MB", megabytes(node.usage().anonymous));
    }
}
