//! Accepting while nothing is finished; then what the queue costs, and how a node starts with it.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{Bench, Measured};
use crate::load::Pace;
use crate::node::Node;
use crate::report::{Section, a_second, float, megabytes};

/// Longer than the phases: the upstream does not answer.
const NEVER: Duration = Duration::from_mins(10);

impl Bench {
    pub(super) fn accept_and_restart(&mut self) -> anyhow::Result<()> {
        let dir = self.fresh_dir()?;
        let setup = self.setup(&dir, 64);
        self.peers.manners.set_delay(NEVER);
        let from = self.ledger.next();
        let node = setup.start()?;
        self.idle_memory(&node);
        for (connections, gate) in [(256, 0.4), (64, 0.35)] {
            let noop = self.noop(connections)?;
            let measured = self.load_node(&node, connections, Pace::Closed)?;
            let ratio = measured.accepted_a_second() / noop.max(1.0);
            self.accepted(connections, &measured, ratio);
            self.report.at_least(&format!("accept × no-op, {connections} connections"), ratio, gate);
        }
        while self.ledger.sums().accepted < self.options.queued {
            let before = self.ledger.sums().accepted;
            self.load_node(&node, 256, Pace::Closed)?;
            ensure!(self.ledger.sums().accepted > before, "the node takes no more calls");
        }
        let mut section = Section::new("queue");
        let queued = self.ledger.owed();
        section.note("queued", queued);
        Self::note_disk(&mut section, &node, queued);
        let rss = megabytes(node.usage().rss);
        self.report.at_most(&format!("RSS MB with {queued} queued"), rss, 100.0);
        self.report.add(section);

        self.peers.manners.set_delay(Duration::ZERO);
        node.kill()?;
        self.peers.manners.watch();
        let killed_at = self.ledger.now();
        let node = setup.start()?;
        self.restarted(&node, killed_at, from);
        node.stop()?;
        Ok(())
    }

    fn idle_memory(&mut self, node: &Node) {
        let mut section = Section::new("idle node");
        let rss = megabytes(node.usage().rss);
        section.number("RSS MB", rss);
        section.number("anonymous MB", megabytes(node.usage().anonymous));
        self.report.at_most("RSS MB idle", rss, 40.0);
        self.report.add(section);
    }

    fn accepted(&mut self, connections: usize, measured: &Measured, ratio: f64) {
        let mut section = Section::new(&format!("accept only, {connections} connections"));
        Self::note_accepts(&mut section, measured);
        section.number("× no-op", ratio);
        section.number("CPU s per 10,000", measured.cpu_per_10k(measured.seen.accepted));
        measured.note_machine(&mut section);
        self.report.add(section);
    }

    /// From the kill to the first call, and how fast the backlog goes.
    fn restarted(&mut self, node: &Node, killed_at: u64, from: usize) {
        let mut section = Section::new("restart");
        let listening = self.ledger.now() - killed_at;
        let start = Instant::now();
        while self.peers.manners.first_call().is_none() && start.elapsed() < Duration::from_mins(1) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let first = self.peers.manners.first_call().map_or(NEVER, |at| Duration::from_micros(at - killed_at));
        let owed = self.ledger.owed();
        let before = node.usage().cpu;
        section.note("queued", owed);
        section.number("listening after s", Duration::from_micros(listening).as_secs_f64());
        section.number("first call after s", first.as_secs_f64());
        let took = self.settle(Duration::from_mins(15));
        let finished = owed - self.ledger.owed();
        section.number("backlog finished/s", a_second(finished, took));
        let cpu = node.usage().cpu.saturating_sub(before).as_secs_f64();
        section.number("CPU s per 10,000", cpu * 10_000.0 / float(finished.max(1)));
        self.account(&mut section, from);
        self.report.at_most(&format!("restart with {owed} queued: first call, s"), first.as_secs_f64(), 2.0);
        self.report.add(section);
    }
}
