//! Accepting while retention removes, beside accepting while it does not; and that the store stops growing.
//!
//! The load is constant. It runs twice on each node: first until removing keeps pace, then counted. With and
//! without take turns, and medians are compared, because the machine drifts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Bench, CONCURRENCY};
use crate::load::Pace;
use crate::node::{sample, scrape};
use crate::report::{Percentiles, Section, a_second, float, megabytes};

/// Every finished task takes about as much, with its answer of 2 KB.
const BYTES_A_TASK: u64 = 3_000;

/// The node's bodies and answers may be half as large.
const SMALLEST_BOUND: u64 = 2_000_000;

const ROUNDS: usize = 3;

const SAMPLE_EVERY: Duration = Duration::from_millis(250);

const CONNECTIONS: usize = 64;

/// How long whatever was accepted may take to be announced.
const SETTLE: Duration = Duration::from_mins(1);

/// What `/metrics` said at one instant.
#[derive(Clone, Copy, Default)]
struct Sample {
    at: Duration,
    file: u64,
    log: u64,
    removed: u64,
}

impl Bench {
    pub(super) fn retention(&mut self) -> anyhow::Result<()> {
        let bound = (self.options.rate * self.options.seconds * BYTES_A_TASK / 2).max(SMALLEST_BOUND);
        let by_age = String::from("results = \"2s\"\ntasks = \"2s\"\nidempotency_keys = \"2s\"");
        let by_size = format!("max_bytes = {bound}\nresults_at_least = \"500ms\"");
        for (name, retention) in [("age", by_age), ("size", by_size)] {
            let (mut without, mut with, mut growth) = (Vec::new(), Vec::new(), Vec::new());
            for round in 1..=ROUNDS {
                let (found, _) = self.kept(&format!("retention: not by {name}, round {round}"), "")?;
                without.push(found.p99);
                let (found, grown) =
                    self.kept(&format!("retention: by {name}, round {round}"), &retention)?;
                with.push(found.p99);
                growth.push(grown);
            }
            let ratio = median(with) / median(without).max(0.001);
            self.report.at_most(&format!("accept p99 while purging by {name}: × without"), ratio, 4.0);
            let what = format!("store file while purging by {name}: × its first half");
            self.report.at_most(&what, median(growth), 1.1);
        }
        Ok(())
    }

    /// Accepting under `retention`, and how the file grew from the first load to the end of the second.
    fn kept(&mut self, name: &str, retention: &str) -> anyhow::Result<(Percentiles, f64)> {
        let dir = self.fresh_dir()?;
        let mut setup = self.setup(&dir, CONCURRENCY);
        retention.clone_into(&mut setup.retention);
        let node = setup.start()?;
        let from = self.ledger.next();
        let pace = Pace::Open { per_second: float(self.options.rate) };
        let watching = Sampler::start(node.admin);
        self.load_node(&node, CONNECTIONS, pace)?;
        let half = watching.elapsed();
        let measured = self.load_node(&node, CONNECTIONS, pace)?;
        let samples = watching.stop();

        let mut section = Section::new(name);
        let found = Self::note_accepts(&mut section, &measured);
        section.number("completed/s", measured.completed_a_second());
        let (first, second): (Vec<Sample>, Vec<Sample>) = samples.iter().partition(|sample| sample.at < half);
        let largest = |samples: &[Sample]| samples.iter().map(|sample| sample.file).max().unwrap_or(0);
        let removed = |samples: &[Sample]| samples.last().map_or(0, |sample| sample.removed);
        let span = samples.last().map_or(Duration::ZERO, |last| last.at.saturating_sub(half));
        section.number("removed tasks/s", a_second(removed(&second).saturating_sub(removed(&first)), span));
        section.note("store file MB, over time", over_time(&samples));
        section.number(
            "write-ahead log MB, at most",
            megabytes(samples.iter().map(|s| s.log).max().unwrap_or(0)),
        );
        measured.note_machine(&mut section);
        self.settle(SETTLE);
        self.account(&mut section, from);
        self.report.add(section);
        node.stop()?;
        Ok((found, float(largest(&second)) / float(largest(&first)).max(1.0)))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A dozen sizes, evenly spread.
fn over_time(samples: &[Sample]) -> String {
    let step = (samples.len() / 12).max(1);
    let sizes = samples.iter().step_by(step).map(|sample| format!("{:.1}", megabytes(sample.file)));
    sizes.collect::<Vec<_>>().join(" ")
}

/// Reads the node's metrics now and then.
struct Sampler {
    began: Instant,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Sampler {
    fn start(admin: SocketAddr) -> Self {
        let (began, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                if let Ok(text) = scrape(admin) {
                    let bytes = |kind| sample(&text, &format!("ringback_store_bytes{{kind=\"{kind}\"}}"));
                    let removed = |reason| {
                        let name = "ringback_retention_removed_total";
                        sample(&text, &format!("{name}{{kind=\"tasks\",reason=\"{reason}\"}}"))
                    };
                    samples.push(Sample {
                        at: began.elapsed(),
                        file: bytes("live") + bytes("free"),
                        log: bytes("wal"),
                        removed: removed("age") + removed("size"),
                    });
                }
                std::thread::sleep(SAMPLE_EVERY);
            }
            samples
        });
        Self { began, stop, thread }
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn stop(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}
