//! Speed with many finished tasks kept, beside the same node's speed with none.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use rusqlite::{Connection, OpenFlags};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{Bench, CONCURRENCY};
use crate::load::{self, Pace};
use crate::node::{Node, Setup};
use crate::report::{Section, a_second, float, megabytes};
use crate::wire::Wire;

impl Bench {
    pub(super) fn growth(&mut self) -> anyhow::Result<()> {
        let dir = self.fresh_dir()?;
        let setup = self.setup(&dir, CONCURRENCY);
        let node = setup.start()?;
        let empty = self.life(&node, "growth: none finished", 256, Pace::Closed)?;
        node.stop()?;
        let finished = self.options.finished;
        let mut section = Section::new("growth: preload");
        let before = std::fs::metadata(setup.database())?.len();
        let began = Instant::now();
        let sample = self.preload(&setup)?;
        let added = std::fs::metadata(setup.database())?.len().saturating_sub(before);
        section.note("finished tasks", finished);
        section.number("tasks/s", a_second(finished, began.elapsed()));
        section.number("store MB", megabytes(added));
        section.number("bytes a task", float(added) / float(finished));
        let began = Instant::now();
        let node = setup.start()?;
        section.number("start s", began.elapsed().as_secs_f64());
        let opened = open_results(&node, &sample)?;
        section.note("of them opened", format!("{opened} of {}", sample.len()));
        self.report.add(section);
        self.report.at_least(
            "growth: preloaded results that open",
            float(opened),
            float(sample.len() as u64),
        );
        let grown = self.life(&node, "growth: many finished", 256, Pace::Closed)?;
        node.stop()?;
        let ratio = grown.completed_a_second() / empty.completed_a_second().max(1.0);
        self.report.at_least(&format!("growth: speed with {finished} finished"), ratio, 0.8);
        Ok(())
    }

    /// Fills the data directory of the stopped node with tasks of the same caller; returns the names of a few.
    fn preload(&self, setup: &Setup) -> anyhow::Result<Vec<String>> {
        let program = self.options.ringback.with_file_name("ringback-preload");
        let output = Command::new(&program)
            .args(["--upstream", "bench", "--finished", &self.options.finished.to_string()])
            .args(["--credentials-id", &caller(&setup.database())?, "--data-dir"])
            .arg(setup.database().parent().context("the database is in no directory")?)
            .stderr(std::process::Stdio::inherit())
            .output()
            .with_context(|| format!("{} cannot be run", program.display()))?;
        ensure!(output.status.success(), "preloading failed");
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }
}

/// Whose tasks are in the store.
fn caller(database: &Path) -> anyhow::Result<String> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(connection.query_row("SELECT credentials_id FROM task LIMIT 1", [], |row| row.get(0))?)
}

/// How many of these results the node opens.
fn open_results(node: &Node, tasks: &[String]) -> anyhow::Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut wire = Wire::new(TcpStream::connect(node.gateway).await?);
        let mut opened = 0;
        for task in tasks {
            wire.stream.write_all(&load::read_result(task)).await?;
            let reply = wire.reply().await?;
            opened += u64::from(reply.status == 200 && reply.body.starts_with(b"{\"results\":"));
        }
        Ok(opened)
    })
}
