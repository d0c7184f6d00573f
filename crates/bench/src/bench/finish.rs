//! Whole lives: sustained, pushed far past capacity, behind a slow upstream, and one at a time.

use std::time::Duration;

use super::{Bench, CONCURRENCY, Measured};
use crate::load::Pace;
use crate::node::Node;
use crate::report::{Section, a_second, float};

/// How long whatever was accepted may take to be announced.
const SETTLE: Duration = Duration::from_mins(5);

const SLOW: Duration = Duration::from_millis(200);

/// Calls a second of the idle phase.
const IDLE_RATE: f64 = 200.0;

impl Bench {
    pub(super) fn whole_life(&mut self) -> anyhow::Result<()> {
        let noop = self.noop(256)?;
        let dir = self.fresh_dir()?;
        let node = self.setup(&dir, CONCURRENCY).start()?;
        let mut peak = 0.0_f64;
        for connections in [64, 256] {
            let measured = self.life(
                &node,
                &format!("whole life, {connections} connections"),
                connections,
                Pace::Closed,
            )?;
            let rate = sustained(&measured);
            peak = peak.max(rate);
            if connections == 256 {
                self.report.at_least("whole lives/s", rate, 10_000.0);
                self.report.at_least("whole lives × no-op", rate / noop.max(1.0), 0.10);
                let cpu = measured.cpu_per_10k(measured.completed());
                self.report.at_most("CPU s per 10,000 whole lives", cpu, 1.1);
            }
        }
        let measured = self.life(&node, "overload, 1024 connections", 1024, Pace::Closed)?;
        self.report.at_least("overload, 1024 connections: × peak", measured.completed_a_second() / peak, 0.9);
        let pace = Pace::Open { per_second: 10.0 * peak };
        let measured = self.life(&node, "overload, 10 × open loop", 1024, pace)?;
        self.report.at_least("overload, 10 × open loop: × peak", measured.completed_a_second() / peak, 0.9);
        node.stop()?;
        Ok(())
    }

    /// One load of whole lives, and the reckoning.
    pub(super) fn life(
        &mut self,
        node: &Node,
        name: &str,
        connections: usize,
        pace: Pace,
    ) -> anyhow::Result<Measured> {
        let from = self.ledger.next();
        let commits = node.commits();
        let written = node.usage().written;
        let measured = self.load_node(node, connections, pace)?;
        let mut section = Section::new(name);
        Self::note_accepts(&mut section, &measured);
        section.number("completed/s", measured.completed_a_second());
        section.number("CPU s per 10,000", measured.cpu_per_10k(measured.completed()));
        section.latencies("call to webhook", self.lags(from));
        let took = self.settle(SETTLE);
        section.number("all finished after s", took.as_secs_f64());
        let accepted = self.ledger.account(from).accepted.max(1);
        section.number("syncs a task", float(node.commits() - commits) / float(accepted));
        section.number("bytes written a task", float(node.usage().written - written) / float(accepted));
        section.number("RSS MB", crate::report::megabytes(node.usage().rss));
        measured.note_machine(&mut section);
        self.account(&mut section, from);
        self.report.add(section);
        Ok(measured)
    }

    /// Microseconds from sending a call to its webhook.
    fn lags(&self, from: usize) -> Vec<u32> {
        let entries = self.ledger.entries();
        let announced = entries[from..].iter().filter(|entry| entry.announced_at > 0);
        announced.map(|entry| u32::try_from(entry.announced_at - entry.sent_at).unwrap_or(u32::MAX)).collect()
    }

    /// Accepting must not wait for the upstream, and the upstream must not wait for accepting.
    pub(super) fn slow_upstream(&mut self) -> anyhow::Result<()> {
        let dir = self.fresh_dir()?;
        let node = self.setup(&dir, CONCURRENCY).start()?;
        let from = self.ledger.next();
        self.peers.manners.set_delay(SLOW);
        let measured = self.load_node(&node, 256, Pace::Closed)?;
        let possible = f64::from(CONCURRENCY) / SLOW.as_secs_f64();
        let mut section = Section::new("slow upstream, 200 ms, 256 connections");
        Self::note_accepts(&mut section, &measured);
        let called = measured.to.sums.called - measured.from.sums.called;
        section.number("upstream calls/s", a_second(called, measured.span()));
        section.number("completed/s", measured.completed_a_second());
        section.number("the upstream allows/s", possible);
        measured.note_machine(&mut section);
        self.peers.manners.set_delay(Duration::ZERO);
        let took = self.settle(SETTLE);
        section.number("all finished after s", took.as_secs_f64());
        self.account(&mut section, from);
        self.report.add(section);
        self.report.at_least("slow upstream: accepted/s", measured.accepted_a_second(), 25_000.0);
        let share = measured.completed_a_second() / possible;
        self.report.at_least("slow upstream: completed × what it allows", share, 0.9);
        node.stop()?;
        Ok(())
    }

    pub(super) fn idle(&mut self) -> anyhow::Result<()> {
        let dir = self.fresh_dir()?;
        let node = self.setup(&dir, CONCURRENCY).start()?;
        let from = self.ledger.next();
        let pace = Pace::Open { per_second: IDLE_RATE };
        let measured = self.load_node(&node, 16, pace)?;
        let mut section = Section::new("idle node, 200 calls/s");
        Self::note_accepts(&mut section, &measured);
        self.settle(SETTLE);
        let lag = section.latencies("call to webhook", self.lags(from));
        measured.note_machine(&mut section);
        self.account(&mut section, from);
        self.report.add(section);
        self.report.at_most("idle: call to webhook p99, ms", lag.p99, 5.0);
        node.stop()?;
        Ok(())
    }
}

/// Finishing cannot be sustained faster than accepting, nor the other way round.
fn sustained(measured: &Measured) -> f64 {
    measured.completed_a_second().min(measured.accepted_a_second())
}
