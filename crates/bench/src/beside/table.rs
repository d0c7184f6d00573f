//! The comparison in Markdown, with what a reader needs to judge it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Comparison, Kind, Measures, Options, READ_BACK, SYNCED_CALLS};
use crate::report::Percentiles;

/// What each contender consists of, as it says itself.
#[must_use]
pub fn versions(options: &Options, kind: Kind) -> String {
    let programs = &options.programs;
    let package = |name: &str| {
        let path = programs.services.join("node_modules").join(name).join("package.json");
        let text = fs::read_to_string(path).unwrap_or_default();
        let package: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        package["version"].as_str().unwrap_or("?").to_owned()
    };
    let node = || format!("Node.js {}", said(&programs.node, "--version").trim_start_matches('v'));
    match kind {
        Kind::Ringback => said(&programs.ringback, "--version"),
        Kind::Restate => format!(
            "restate-server {}, restate-sdk {}, {}",
            package("@restatedev/restate-server"),
            package("@restatedev/restate-sdk"),
            node()
        ),
        Kind::Bullmq => {
            let redis = said(&programs.redis, "--version");
            let redis = redis.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("?");
            format!("bullmq {}, ioredis {}, Redis {redis}, {}", package("bullmq"), package("ioredis"), node())
        }
        Kind::Graphile => {
            let postgres = said(&programs.postgres.join("postgres"), "--version");
            let postgres = postgres.split_whitespace().nth(2).unwrap_or("?");
            format!(
                "graphile-worker {}, pg {}, PostgreSQL {postgres}, {}",
                package("graphile-worker"),
                package("pg"),
                node()
            )
        }
    }
}

fn said(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    output.map_or_else(|_| "?".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The whole comparison.
#[must_use]
pub fn markdown(options: &Options, comparison: &Comparison) -> String {
    let mut out = String::new();
    write_all(&mut out, options, comparison).expect("memory can be written");
    out
}

fn write_all(out: &mut String, options: &Options, comparison: &Comparison) -> std::fmt::Result {
    writeln!(out, "<!-- written by crates/bench/peers/run; do not edit -->")?;
    writeln!(
        out,
        "{}; {}. {} rounds of {} counted seconds, {} connections; no-op on the same machine: {} calls/s; \
         others used up to {:.2} cores.\n",
        machine(),
        said(Path::new("date"), "-u"),
        options.rounds,
        options.seconds,
        options.connections,
        range(&comparison.noop, 0),
        comparison.foreign_cores,
    )?;
    writeln!(
        out,
        "| | accepted/s | whole tasks/s | CPU s per 10,000 | accept p50, p99 ms | call to webhook p50, p99 ms | \
         memory MB | syncs a call | results read back |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|")?;
    for (kind, measures) in &comparison.measures {
        let Measures { accepted, whole, cpu, accept, lag, memory, syncs, results, .. } = measures;
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {memory:.0} | {} | {results} of {READ_BACK} |",
            kind.name(),
            range(accepted, 0),
            range(whole, 0),
            range(cpu, 2),
            pair(*accept),
            pair(*lag),
            syncs.map_or_else(|| "not counted".to_owned(), |syncs| format!("{syncs:.2}")),
        )?;
    }
    write_kills(out, comparison)?;
    writeln!(out)?;
    for (kind, measures) in &comparison.measures {
        write!(
            out,
            "- **{}**: {}. On disk at the answer: {}.",
            kind.name(),
            versions(options, *kind),
            kind.durability()
        )?;
        if measures.wrong + measures.unfinished > 0 {
            write!(
                out,
                " Under full load {} calls were not answered with 202, and {} tasks were not finished in time.",
                measures.wrong, measures.unfinished
            )?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "\nSyncs are counted by the kernel while {SYNCED_CALLS} calls come one at a time and the upstream is silent. \
         Memory is of all processes, after the first load, what they share counted once."
    )
}

fn write_kills(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    if comparison.measures.iter().all(|(_, measures)| measures.kills.count == 0) {
        return Ok(());
    }
    writeln!(
        out,
        "\n| kill -9 of everything | kills | accepted | not announced in the end | … of them still waiting, given up \
         | repeated webhooks | repeated upstream calls | slowest start s |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|")?;
    for (kind, measures) in &comparison.measures {
        let killed = &measures.kills;
        let left = killed
            .left
            .map_or_else(|| "–".to_owned(), |(waiting, given_up)| format!("{waiting}, {given_up}"));
        writeln!(
            out,
            "| {} | {} | {} | {} | {left} | {} | {} | {:.1} |",
            kind.name(),
            killed.count,
            killed.account.accepted,
            killed.account.lost,
            killed.account.repeated_webhooks,
            killed.account.repeated_calls,
            killed.slowest_start.as_secs_f64(),
        )?;
    }
    Ok(())
}

/// One value, or the lowest and the highest of several.
fn range(values: &[f64], digits: usize) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    let (low, high) = (format!("{low:.digits$}"), format!("{high:.digits$}"));
    if low == high { low } else { format!("{low} to {high}") }
}

fn pair(found: Option<Percentiles>) -> String {
    found.map_or_else(|| "–".to_owned(), |found| format!("{:.1}, {:.1}", found.p50, found.p99))
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
    let model = model.trim_start_matches(['\t', ':', ' ']);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} × {model}, {}", said(Path::new("uname"), "-sr"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_agree_are_one_number() {
        assert_eq!(range(&[1000.2, 999.9], 0), "1000");
        assert_eq!(range(&[2.0, 1.5], 1), "1.5 to 2.0");
    }
}
