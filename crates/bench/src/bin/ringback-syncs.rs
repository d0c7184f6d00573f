//! Proves with strace that every 202 of a node follows the sync of its task.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ringback_bench::syncs::{self, Options};

/// Runs a node under strace and checks that no 202 left before its task was on the disk.
#[derive(Parser)]
struct Args {
    /// Seconds of each of the two parts.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Connections of the second part.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// The node's program; by default the one beside this program.
    #[arg(long)]
    ringback: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let parts = syncs::run(&Options {
        ringback: ringback_bench::node::program(args.ringback)?,
        seconds: args.seconds,
        connections: args.connections,
    })?;
    let mut code = ExitCode::SUCCESS;
    for part in parts {
        let verdict = if part.is_good() { "good" } else { "BROKEN" };
        println!(
            "{:<20} {:>7} 202s, {:>4} before their sync; {:>6} commits, {:>6} syncs of the WAL: {verdict}",
            part.name, part.verdict.answers, part.verdict.unsynced, part.commits, part.verdict.syncs
        );
        if !part.is_good() {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}
