//! Measures a Ringback node against the budget it promises.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use ringback_bench::bench::{Bench, Options};
use ringback_bench::noop::Role;

/// Measures a node: how fast it accepts and finishes, and what it needs for that.
#[derive(Parser)]
struct Args {
    /// Counted seconds of each load.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Also writes the numbers as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The node's program; by default the one beside this program.
    #[arg(long)]
    ringback: Option<PathBuf>,
    /// Tasks queued for memory and restart, at least.
    #[arg(long, default_value_t = 100_000)]
    queued: u64,
    /// Finished tasks kept for the growth phase.
    #[arg(long, default_value_t = 1_000_000)]
    finished: u64,
    /// Calls a second of the retention phase.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// Seconds to wait for a quiet machine before each load, at most.
    #[arg(long, default_value_t = 0)]
    quiet: u64,
    /// Phases to run: accept, life, slow, idle, growth, retention. All by default.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Directory for the data of nodes.
    #[arg(long)]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(role) = args.role {
        role.run()?;
        return Ok(ExitCode::SUCCESS);
    }
    let ringback = ringback_bench::node::program(args.ringback)?;
    let bench = Bench::new(Options {
        ringback,
        seconds: args.seconds,
        queued: args.queued,
        finished: args.finished,
        rate: args.rate,
        quiet: args.quiet,
        only: args.only,
        dir: args.dir,
    })?;
    let report = bench.run()?;
    let met = report.judge();
    if let Some(path) = args.json {
        std::fs::write(&path, format!("{:#}\n", report.to_json()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    // The table has said which gate.
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
