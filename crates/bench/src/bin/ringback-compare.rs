//! Compares builds of the node on a machine whose speed changes.

use std::path::PathBuf;

use clap::Parser;
use ringback_bench::compare::{self, Options, Work};
use ringback_bench::noop::Role;

/// Loads nodes of several builds, and the server that does nothing, in many short turns.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    /// Programs of nodes; the others are compared with the first. By default the one beside this program.
    builds: Vec<PathBuf>,
    /// What is counted.
    #[arg(long, value_enum, default_value = "lives")]
    work: Work,
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// Turns of each; below 20 a difference of 10 % is no finding.
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    #[command(subcommand)]
    role: Option<Role>,
}

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if let Some(role) = args.role {
        return role.run();
    }
    if args.builds.is_empty() {
        args.builds.push(ringback_bench::node::program(None)?);
    }
    let Args { builds, work, connections, rounds, .. } = args;
    let lines = compare::run(&Options { builds, work, connections, rounds })?;
    println!(
        "{:<40} {:>9} {:>9} {:>15} {:>15}",
        "medians", "a second", "CPU s for", "rate, of no-op", "CPU, of no-op"
    );
    println!("{:<40} {:>9} {:>9} {:>15} {:>15}", "", "", "10,000", "and of first", "and of first");
    for line in lines {
        println!(
            "{:<40} {:>9.0} {:>9.3} {:>7.3} {:>7.3} {:>7.2} {:>7.3}",
            line.name,
            line.a_second,
            line.cpu_per_10k,
            line.rate_of_noop,
            line.rate_of_first,
            line.cpu_of_noop,
            line.cpu_of_first
        );
    }
    Ok(())
}
