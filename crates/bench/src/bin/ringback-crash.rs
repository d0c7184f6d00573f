//! Kills a loaded node with SIGKILL, again and again, and accounts for every task it accepted.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ringback_bench::crash::{self, Options};

/// Kills a loaded node again and again and accounts for every 202 it ever answered.
#[derive(Parser)]
struct Args {
    /// How often the node is killed.
    #[arg(long, default_value_t = 50)]
    kills: u32,
    /// Connections that call.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// The longest life of a node under load, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    life_ms: u64,
    /// Pause of a connection between two calls, in milliseconds.
    #[arg(long, default_value_t = 2)]
    pause_ms: u64,
    /// The node's program; by default the one beside this program.
    #[arg(long)]
    ringback: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let reckoning = crash::run(&Options {
        ringback: ringback_bench::node::program(args.ringback)?,
        kills: args.kills,
        connections: args.connections,
        life: Duration::from_millis(args.life_ms),
        pause: Duration::from_millis(args.pause_ms),
    })?;
    println!("{:#}", serde_json::to_value(&reckoning)?);
    anyhow::ensure!(reckoning.is_clean(), "a promise was broken");
    Ok(())
}
