//! Measures what a good client notices of hostile ones, and what it costs to wait.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use ringback_bench::report::Report;
use ringback_bench::{hostile, node, waiters};

/// Measures a good client alone and beside hostile ones, and many that wait for one task.
#[derive(Parser)]
struct Args {
    /// Hostile clients; a fifth each has slow heads, slow bodies, endless bodies, huge heads, and never
    /// reads; a fourth of each over HTTP/2. 0 leaves them out.
    #[arg(long, default_value_t = 1_000)]
    clients: usize,
    /// How often the good client is measured beside them.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Counted seconds of each measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Calls a second of the good client.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Milliseconds between two acts of a hostile client.
    #[arg(long, default_value_t = 100)]
    beat_ms: u64,
    /// Clients that wait for one task at once. 0 leaves them out.
    #[arg(long, default_value_t = 10_000)]
    waiters: usize,
    /// Also writes the numbers as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The node's program; by default the one beside this program.
    #[arg(long)]
    ringback: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let ringback = node::program(args.ringback)?;
    let mut report = Report::default();
    if args.clients > 0 {
        let options = hostile::Options {
            ringback: ringback.clone(),
            clients: args.clients,
            rounds: args.rounds,
            seconds: args.seconds,
            rate: args.rate,
            beat: Duration::from_millis(args.beat_ms),
        };
        hostile::run(&options, &mut report)?;
    }
    if args.waiters > 0 {
        waiters::run(&waiters::Options { ringback, waiters: args.waiters }, &mut report)?;
    }
    let met = report.judge();
    if let Some(path) = args.json {
        std::fs::write(&path, format!("{:#}\n", report.to_json()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    // The table has said which gate.
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
