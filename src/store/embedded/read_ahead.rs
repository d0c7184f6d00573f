//! The requests of claimed tasks, read together before the worker takes them.
//!
//! A worker that reads a request itself does so while it has a place at the upstream, and wakes a reader
//! for each. Its invariant: what was claimed reaches the ready queue, read or not.

use std::sync::Arc;

use rusqlite::Connection;

use super::read::small_requests;
use super::reader::Readers;
use crate::store::{CARRIED_BYTES, Lane, ReadyTask, Request};

/// So many are read before the worker sees the first of them.
const TOGETHER: usize = 64;

/// Claimed tasks on their way to the ready queue, where they go at the latest when this is dropped.
pub(super) struct ReadAhead {
    lane: Arc<Lane>,
    tasks: Vec<ReadyTask>,
}

impl ReadAhead {
    pub fn new(lane: Arc<Lane>, tasks: Vec<ReadyTask>) -> Self {
        lane.ready.expect(tasks.len());
        Self { lane, tasks }
    }

    pub fn start(self, readers: &Readers) {
        readers.try_start(Box::new(move |connection| self.read(connection)));
    }

    fn read(mut self, connection: &Connection) {
        while !self.tasks.is_empty() {
            let together = self.tasks.len().min(TOGETHER);
            let tasks = self.tasks[..together].iter().map(|task| task.seq);
            match small_requests(connection, tasks, CARRIED_BYTES) {
                Ok(requests) => {
                    for (task, request) in self.tasks.iter_mut().zip(requests) {
                        task.request = request.map(Box::new).map(Request::Stored);
                    }
                }
                // The worker asks again, and does what is to be done if that fails too.
                Err(error) => return tracing::error!(error = %error, "a read failed"),
            }
            self.lane.ready.push_expected(self.tasks.drain(..together));
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.lane.ready.push_expected(self.tasks.drain(..));
    }
}
