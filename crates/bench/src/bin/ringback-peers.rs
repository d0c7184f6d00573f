//! Compares Ringback with other programs that can do its work. `crates/bench/peers/run` calls it.

use std::path::PathBuf;

use clap::Parser;
use ringback_bench::beside::{self, Kind, Options, Programs};
use ringback_bench::noop::Role;

/// Gives the same work to Ringback and to others, and prints one table in Markdown.
#[derive(Parser)]
struct Args {
    /// Who takes part; everybody by default.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// Counted seconds of each load.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Connections that call.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// How often each is killed; 0 leaves the kills out.
    #[arg(long, default_value_t = 5)]
    kills: u32,
    /// Seconds without progress after the last kill before a task counts as not done.
    #[arg(long, default_value_t = 75)]
    settle: u64,
    /// Only says who would take part, with versions.
    #[arg(long)]
    list: bool,
    /// Also writes the table to this file.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Where everybody keeps data; the system's temporary directory if not set.
    #[arg(long)]
    dir: Option<PathBuf>,
    #[arg(long)]
    ringback: Option<PathBuf>,
    /// The directory with the services and their `node_modules`.
    #[arg(long, default_value = ".")]
    services: PathBuf,
    #[arg(long, default_value = "node")]
    node: PathBuf,
    #[arg(long, default_value = "restate-server")]
    restate: PathBuf,
    #[arg(long, default_value = "redis-server")]
    redis: PathBuf,
    /// The directory with `initdb` and `postgres`.
    #[arg(long, default_value = "/usr/lib/postgresql/15/bin")]
    postgres: PathBuf,
    #[command(subcommand)]
    role: Option<Role>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(role) = args.role {
        return role.run();
    }
    let options = Options {
        programs: Programs {
            ringback: ringback_bench::node::program(args.ringback)?,
            services: args.services,
            node: args.node,
            restate: args.restate,
            redis: args.redis,
            postgres: args.postgres,
        },
        kinds: if args.only.is_empty() { Kind::ALL.to_vec() } else { args.only },
        rounds: args.rounds,
        seconds: args.seconds,
        connections: args.connections,
        kills: args.kills,
        settle: args.settle,
        dir: args.dir.unwrap_or_else(std::env::temp_dir),
    };
    if args.list {
        for &kind in &options.kinds {
            println!("{}: {}. {}", kind.name(), beside::versions(&options, kind), kind.durability());
        }
        return Ok(());
    }
    let comparison = beside::run(&options)?;
    let table = beside::markdown(&options, &comparison);
    println!("{table}");
    if let Some(path) = args.markdown {
        std::fs::write(path, table)?;
    }
    Ok(())
}
