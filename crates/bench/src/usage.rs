//! What a process and the machine used, as the kernel counts it.

use std::fs;
use std::time::{Duration, Instant};

/// Clock ticks a second in `/proc`, on every Linux of today.
const TICKS: u32 = 100;

/// A process, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu: Duration,
    /// Bytes resident, and bytes of it that no file backs.
    pub rss: u64,
    pub anonymous: u64,
    /// The most bytes that ever were resident.
    pub peak: u64,
    /// Bytes it caused to be written to disk.
    pub written: u64,
}

impl Usage {
    /// Zeros for a process that is gone.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let (status, io) = (read("status"), read("io"));
        Self {
            cpu: cpu_of(&read("stat")),
            rss: number_after(&status, "VmRSS:") * 1024,
            anonymous: number_after(&status, "RssAnon:") * 1024,
            peak: number_after(&status, "VmHWM:") * 1024,
            written: number_after(&io, "write_bytes:"),
        }
    }
}

fn number_after(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// From the third on: those behind the name, which may hold spaces.
fn fields_of(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit(')').next().unwrap_or_default().split_whitespace()
}

/// User and system time: fields 14 and 15.
fn cpu_of(stat: &str) -> Duration {
    let ticks: u32 = fields_of(stat).skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    Duration::from_secs(1) * ticks / TICKS
}

/// These processes and all their descendants, parents first.
#[must_use]
pub fn families(roots: &[u32]) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents: Vec<(u32, u32)> = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, fields_of(&stat).nth(1)?.parse().ok()?))
        })
        .collect();
    let mut family = roots.to_vec();
    let mut seen = 0;
    while let Some(&parent) = family.get(seen) {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| pid));
        seen += 1;
    }
    family
}

/// CPU time of a family, of its members that have ended too.
#[must_use]
pub fn family_cpu(roots: &[u32]) -> Duration {
    let ticks = |pid: &u32| -> u32 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        fields_of(&stat).skip(11).take(4).filter_map(|field| field.parse::<u32>().ok()).sum()
    };
    Duration::from_secs(1) * families(roots).iter().map(ticks).sum::<u32>() / TICKS
}

/// Bytes of memory of a family; what several of them share counts once.
#[must_use]
pub fn family_memory(roots: &[u32]) -> u64 {
    let memory = |pid: &u32| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        number_after(&rollup, "Pss:") * 1024
    };
    families(roots).iter().map(memory).sum()
}

/// The whole machine, at one moment.
#[derive(Clone, Copy)]
pub struct Machine {
    busy: Duration,
    at: Instant,
}

impl Machine {
    #[must_use]
    pub fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let fields: Vec<u64> =
            line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        // user, nice, system, irq, softirq, steal; not idle and iowait.
        let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|&index| fields.get(index)).sum();
        Self { busy: Duration::from_millis(busy * 1000 / u64::from(TICKS)), at: Instant::now() }
    }

    /// Cores busy since `earlier` with anything but `ours`.
    #[must_use]
    pub fn foreign_cores(&self, earlier: &Self, ours: Duration) -> f64 {
        let span = self.at.duration_since(earlier.at).as_secs_f64().max(0.001);
        let busy = self.busy.saturating_sub(earlier.busy);
        busy.saturating_sub(ours).as_secs_f64() / span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_name_with_spaces() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 3 0 100 1000 10";
        assert_eq!(cpu_of(stat), Duration::from_secs(2));
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(Usage::of(std::process::id()).rss > 0);
    }
}
