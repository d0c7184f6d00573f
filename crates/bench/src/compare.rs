//! Builds beside each other, in many short turns.
//!
//! A machine that is shared changes its speed within seconds, so two long measurements one after the other
//! compare two moments. Here all nodes run at once and are loaded in turns, the no-op among them, each turn
//! too short for the machine to change much; what is compared are medians of the quotients within a round.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tempfile::TempDir;

use crate::ledger::Ledger;
use crate::load::{self, Load, Pace, Target};
use crate::node::{Node, Setup};
use crate::noop::Noop;
use crate::peer::Peers;
use crate::report::{a_second, per};
use crate::usage::Usage;

const WARM_UP: Duration = Duration::from_millis(250);
const COUNTED: Duration = Duration::from_millis(600);

/// As in the other measurements.
const CONCURRENCY: u32 = 512;

/// An upstream this slow answers nothing during a run.
const NEVER: Duration = Duration::from_hours(1);

/// How long what is left of a turn may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// Whole lives, to the webhook.
    Lives,
    /// 202s, while the upstream is silent.
    Accepts,
}

pub struct Options {
    /// Programs of nodes; the others are compared with the first.
    pub builds: Vec<PathBuf>,
    pub work: Work,
    pub connections: usize,
    pub rounds: usize,
}

/// Medians over all rounds.
pub struct Line {
    pub name: String,
    pub a_second: f64,
    pub cpu_per_10k: f64,
    /// Quotients within a round: with the no-op, and with the first build.
    pub rate_of_noop: f64,
    pub cpu_of_noop: f64,
    pub rate_of_first: f64,
    pub cpu_of_first: f64,
}

/// One turn.
#[derive(Clone, Copy)]
struct Turn {
    a_second: f64,
    cpu_per_10k: f64,
}

impl Turn {
    fn rate(&self) -> f64 {
        self.a_second
    }

    fn cpu(&self) -> f64 {
        self.cpu_per_10k
    }
}

/// A server under load.
struct Contender {
    name: String,
    pid: u32,
    target: Target,
    ledger: Arc<Ledger>,
    work: Work,
}

impl Contender {
    fn turn(&self, connections: usize) -> anyhow::Result<Turn> {
        let load = Load { connections, pace: Pace::Closed, warm_up: WARM_UP, counted: COUNTED };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut edges = Vec::new();
        let seen = runtime.block_on(load::run(load, &self.target, &self.ledger, || {
            edges.push((Instant::now(), Usage::of(self.pid).cpu, self.ledger.sums().announced));
        }))?;
        let (from, to) = (edges[0], edges[1]);
        let count = match self.work {
            Work::Lives => to.2 - from.2,
            Work::Accepts => seen.accepted,
        };
        ensure!(count > 0 && seen.wrong == 0, "{} did not answer as it should", self.name);
        let end = Instant::now() + PATIENCE;
        while self.work == Work::Lives && self.ledger.owed() > 0 {
            ensure!(Instant::now() < end, "{} does not finish what it accepted", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
        let cpu = to.1.saturating_sub(from.1).as_secs_f64();
        Ok(Turn { a_second: a_second(count, to.0 - from.0), cpu_per_10k: cpu / per(count, 10_000.0) })
    }
}

/// Loads all in turns. The no-op comes first.
///
/// # Errors
/// A node does not start, or does not do its work.
pub fn run(options: &Options) -> anyhow::Result<Vec<Line>> {
    ensure!(!options.builds.is_empty() && options.rounds > 0, "name at least one build and one round");
    let ledger = Arc::new(Ledger::default());
    let peers = Peers::start(&ledger)?;
    if options.work == Work::Accepts {
        peers.manners.set_delay(NEVER);
    }
    let noop = Noop::start()?;
    let mut contenders = vec![Contender {
        name: String::from("no-op"),
        pid: noop.pid(),
        target: Target::new(noop.address, peers.receiver),
        ledger: Arc::default(),
        work: Work::Accepts,
    }];
    let nodes: Vec<(Node, TempDir)> = options
        .builds
        .iter()
        .map(|build| {
            let dir = TempDir::new()?;
            Ok((Setup::new(build, dir.path(), peers.upstream, CONCURRENCY).start()?, dir))
        })
        .collect::<anyhow::Result<_>>()?;
    contenders.extend(options.builds.iter().zip(&nodes).map(|(build, (node, _))| Contender {
        name: build.display().to_string(),
        pid: node.pid(),
        target: Target::new(node.gateway, peers.receiver),
        ledger: Arc::clone(&ledger),
        work: options.work,
    }));
    let mut turns = vec![Vec::new(); contenders.len()];
    for round in 0..options.rounds {
        for turn in 0..contenders.len() {
            // Another one begins each round, so that none always comes after the same.
            let who = (round + turn) % contenders.len();
            turns[who].push(contenders[who].turn(options.connections)?);
        }
    }
    let names = contenders.iter().map(|contender| contender.name.clone());
    Ok(names.zip(&turns).map(|(name, own)| line(name, own, &turns[0], &turns[1])).collect())
}

fn line(name: String, own: &[Turn], noop: &[Turn], first: &[Turn]) -> Line {
    let quotients = |others: &[Turn], of: fn(&Turn) -> f64| {
        median(own.iter().zip(others).map(|(own, other)| of(own) / of(other)).collect())
    };
    Line {
        name,
        a_second: median(own.iter().map(Turn::rate).collect()),
        cpu_per_10k: median(own.iter().map(Turn::cpu).collect()),
        rate_of_noop: quotients(noop, Turn::rate),
        cpu_of_noop: quotients(noop, Turn::cpu),
        rate_of_first: quotients(first, Turn::rate),
        cpu_of_first: quotients(first, Turn::cpu),
    }
}

/// The middle one, of two the greater. 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_taken_within_a_round() {
        // The machine is half as fast in the second and third round.
        let turns = |rates: [f64; 3]| rates.map(|a_second| Turn { a_second, cpu_per_10k: 1.0 / a_second });
        let (noop, first, other) =
            (turns([100.0, 50.0, 50.0]), turns([10.0, 5.0, 5.0]), turns([12.0, 6.0, 6.0]));
        let line = line(String::from("other"), &other, &noop, &first);
        assert!((line.rate_of_noop - 0.12).abs() < 1e-9 && (line.rate_of_first - 1.2).abs() < 1e-9);
        assert!((line.cpu_of_first - 1.0 / 1.2).abs() < 1e-9 && (line.a_second - 6.0).abs() < 1e-9);
    }
}
