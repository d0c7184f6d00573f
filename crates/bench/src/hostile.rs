//! What a good client notices of a thousand hostile ones.
//!
//! One node, one good client at a constant rate, measured alone and beside the [`attack`] in turns, because
//! the machine drifts. The limits of the node are the defaults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;

use crate::ledger::Ledger;
use crate::load::{self, Load, Pace, Seen, Target};
use crate::node::{Node, Setup};
use crate::peer::Peers;
use crate::report::{Percentiles, Report, Section, float, megabytes, percentiles};
use crate::usage::{Machine, Usage};

mod attack;
mod frames;
mod upstream;

pub use attack::{Attack, Kind};
pub use upstream::Upstream;

/// When so many connect at once, and a fifth ask for what they never read, the buffers of their sockets are
/// filled first: that is over by then.
const WARM_UP: Duration = Duration::from_secs(3);
/// Connections of the good client.
const CONNECTIONS: usize = 8;
const CONCURRENCY: u32 = 64;
/// The most that hostile clients may cost: p99 beside them, as a multiple of p99 alone.
const MOST: f64 = 2.0;
/// No webhook of the good client takes longer.
const SETTLE: Duration = Duration::from_secs(20);

pub struct Options {
    pub ringback: PathBuf,
    /// Hostile clients, of five kinds.
    pub clients: usize,
    /// How often the good client is measured beside them; once more alone.
    pub rounds: u32,
    /// Counted seconds of each measurement.
    pub seconds: u64,
    /// Calls a second of the good client.
    pub rate: u32,
    /// Between two acts of a hostile client.
    pub beat: Duration,
}

/// What the good client noticed, all rounds together.
pub struct Outcome {
    pub alone: Percentiles,
    pub beside: Percentiles,
    pub accepted: u64,
    /// Its calls that got anything but a 202.
    pub spoilt: u64,
    /// Accepted and never announced.
    pub lost: u64,
    /// Connections of hostile clients that were open at the ends of the rounds, the fewest.
    pub open: usize,
    /// The most memory the node ever had resident, in bytes.
    pub peak: u64,
}

impl Outcome {
    /// p99 beside hostile clients, as a multiple of p99 alone.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        if self.alone.p99 > 0.0 { self.beside.p99 / self.alone.p99 } else { 0.0 }
    }
}

struct Measurement<'a> {
    options: &'a Options,
    node: Node,
    target: Target,
    ledger: Arc<Ledger>,
    report: &'a mut Report,
}

/// Measures in turns.
///
/// # Errors
/// The node does not start, or does not let anybody in.
pub fn run(options: &Options, report: &mut Report) -> anyhow::Result<Outcome> {
    let dir = tempfile::tempdir()?;
    let ledger = Arc::new(Ledger::default());
    let peers = Peers::start(&ledger)?;
    let upstream = Upstream::start()?;
    let setup = Setup {
        further: format!(
            "[[upstreams]]\nname = \"hostile\"\nprefix = \"/hostile\"\nurl = \"http://{}\"\n",
            upstream.address
        ),
        ..Setup::new(&options.ringback, dir.path(), peers.upstream, CONCURRENCY)
    };
    let node = setup.start()?;
    let target = Target::new(node.gateway, peers.receiver);
    let mut measurement = Measurement { options, node, target, ledger, report };
    let outcome = measurement.rounds()?;
    measurement.conclude(&outcome);
    Ok(outcome)
}

impl Measurement<'_> {
    fn rounds(&mut self) -> anyhow::Result<Outcome> {
        let Options { clients, rounds, beat, .. } = *self.options;
        let (mut alone, mut beside, mut open) = (Seen::default(), Seen::default(), usize::MAX);
        for round in 1..=rounds {
            let mut section = Section::new(&format!("alone, {round}"));
            self.measure(&mut section, &mut alone)?;
            self.report.add(section);
            let mut section = Section::new(&format!("beside {clients} hostile clients, {round}"));
            let attack = Attack::start(self.node.gateway, clients, beat)?;
            self.measure(&mut section, &mut beside)?;
            section.note("hostile connections open", attack.open());
            section.note("hostile connections made", attack.connections());
            open = open.min(attack.open());
            attack.stop()?;
            self.report.add(section);
        }
        let mut section = Section::new("alone again");
        self.measure(&mut section, &mut alone)?;
        self.report.add(section);
        self.settle();
        let lost = self.ledger.account(0);
        Ok(Outcome {
            accepted: alone.accepted + beside.accepted,
            spoilt: alone.refused + alone.wrong + beside.refused + beside.wrong,
            alone: percentiles(alone.latencies),
            beside: percentiles(beside.latencies),
            lost: lost.lost + lost.mixed_up,
            open,
            peak: self.node.usage().peak,
        })
    }

    /// One load of the good client; adds what it saw to `all`.
    fn measure(&self, section: &mut Section, all: &mut Seen) -> anyhow::Result<()> {
        let load = Load {
            connections: CONNECTIONS,
            pace: Pace::Open { per_second: f64::from(self.options.rate) },
            warm_up: WARM_UP,
            counted: Duration::from_secs(self.options.seconds),
        };
        let mut edges = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let pid = self.node.pid();
        let seen = runtime.block_on(load::run(load, &self.target, &self.ledger, || {
            edges.push((Machine::now(), Usage::of(pid), Usage::of(std::process::id())));
        }))?;
        ensure!(edges.len() == 2, "the load did not run to its end");
        let (from, to) = (&edges[0], &edges[1]);
        let (node, tools) = (to.1.cpu.saturating_sub(from.1.cpu), to.2.cpu.saturating_sub(from.2.cpu));
        let span = Duration::from_secs(self.options.seconds.max(1)).as_secs_f64();
        section.latencies("202", seen.latencies.clone());
        section.note("accepted", seen.accepted);
        section.note("refused or wrong", seen.refused + seen.wrong);
        section.number("RSS MB", megabytes(to.1.rss));
        section.number("server cores", node.as_secs_f64() / span);
        section.number("tool cores", tools.as_secs_f64() / span);
        section.number("foreign cores", to.0.foreign_cores(&from.0, node + tools));
        all.accepted += seen.accepted;
        all.refused += seen.refused;
        all.wrong += seen.wrong;
        all.latencies.extend(seen.latencies);
        Ok(())
    }

    /// Waits until everything accepted is announced.
    fn settle(&self) {
        let end = std::time::Instant::now() + SETTLE;
        while self.ledger.owed() > 0 && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn conclude(&mut self, outcome: &Outcome) {
        let mut section = Section::new("good client, all rounds");
        for (name, found) in [("alone", outcome.alone), ("beside", outcome.beside)] {
            section.number(&format!("{name} p50 ms"), found.p50);
            section.number(&format!("{name} p99 ms"), found.p99);
        }
        section.number("p99 beside × alone", outcome.ratio());
        section.number("peak RSS MB", megabytes(outcome.peak));
        self.report.add(section);
        self.report.at_most("p99 beside hostile clients × alone", outcome.ratio(), MOST);
        self.report.at_most("good calls refused or wrong", float(outcome.spoilt), 0.0);
        self.report.at_most("accepted tasks lost", float(outcome.lost), 0.0);
    }
}
