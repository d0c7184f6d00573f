//! Server-sent events as they come in (WHATWG HTML, 9.2.6), as far as Ringback sends them. Pure.

use serde_json::Value;

use crate::cli::screen::printable;

/// A line longer than this is none of Ringback's.
const LONGEST: usize = 64 * 1024;

/// These bytes are no stream of Ringback's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEvents;

/// Bytes of a stream, cut into events.
#[derive(Default)]
pub struct Events {
    pending: Vec<u8>,
    name: String,
    data: String,
}

/// How far a task is, for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    pub status: String,
    /// Attempts begun, where they are known.
    pub attempts: Option<u64>,
    pub next_try_at: Option<String>,
}

impl Stage {
    #[must_use]
    pub fn of(status: &str) -> Self {
        Self { status: printable(status).into_owned(), ..Self::default() }
    }

    #[must_use]
    pub fn is_final(&self) -> bool {
        ["Succeeded", "Failed"].contains(&self.status.as_str())
    }

    #[must_use]
    pub fn describe(&self) -> String {
        match (self.attempts, &self.next_try_at) {
            (Some(attempts), Some(at)) => {
                // The time of day is enough; RFC 3339 has it at this place.
                let time = at.get(11..19).unwrap_or(at);
                format!("{} after attempt {attempts}, the next one at {time}Z", self.status)
            }
            (Some(attempts), None) if attempts > 0 => format!("{}, attempt {attempts}", self.status),
            _ => self.status.clone(),
        }
    }
}

impl Events {
    /// The stages that these bytes complete.
    ///
    /// # Errors
    /// A line or an event is longer than any of Ringback's.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Stage>, NoEvents> {
        let mut stages = Vec::new();
        self.pending.extend_from_slice(bytes);
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            stages.extend(self.line(line.trim_end_matches(['\r', '\n'])));
        }
        if self.pending.len() + self.data.len() > LONGEST { Err(NoEvents) } else { Ok(stages) }
    }

    fn line(&mut self, line: &str) -> Option<Stage> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            return (name == "status").then(|| stage(&data)).flatten();
        }
        match line.split_once(':') {
            Some(("event", value)) => value.trim_start().clone_into(&mut self.name),
            Some(("data", value)) => self.data.push_str(value.trim_start()),
            // Comments are signs of life; other fields are for clients that come back.
            _ => {}
        }
        None
    }
}

fn stage(data: &str) -> Option<Stage> {
    let data: Value = serde_json::from_str(data).ok()?;
    Some(Stage {
        status: printable(data["status"].as_str()?).into_owned(),
        attempts: data["attempts"].as_u64(),
        next_try_at: data["next_try_at"].as_str().map(|at| printable(at).into_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "id: 2\nevent: status\ndata: {\"status\":\"Queued\",\"attempts\":1,\
        \"next_try_at\":\"2026-11-23T08:00:01.000Z\"}\n\n: still here\n\nid: 3\r\nevent: status\r\n\
        data: {\"status\":\"Running\",\"attempts\":2,\"next_try_at\":null}\r\n\r\nevent: end\ndata: {}\n\n";

    #[test]
    fn events_are_whole_wherever_the_stream_is_cut() {
        let mut whole = Events::default();
        let expected = whole.push(STREAM.as_bytes()).unwrap();
        assert_eq!(
            expected.iter().map(Stage::describe).collect::<Vec<_>>(),
            ["Queued after attempt 1, the next one at 08:00:01Z", "Running, attempt 2"]
        );
        for size in 1..40 {
            let mut events = Events::default();
            let stages: Vec<_> =
                STREAM.as_bytes().chunks(size).flat_map(|piece| events.push(piece).unwrap()).collect();
            assert_eq!(stages, expected, "{size}");
        }
    }

    #[test]
    fn a_stream_without_an_end_of_line_is_given_up() {
        let mut events = Events::default();
        let given_up = (0..100).any(|_| events.push(&[b'x'; 1_000]).is_err());
        assert!(given_up);
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        assert_eq!(Stage::of("Queued").describe(), "Queued");
        assert_eq!(Stage { attempts: Some(0), ..Stage::of("Queued") }.describe(), "Queued");
    }
}
