//! What a trace of `strace -f -y` says: pure.
//!
//! Lines stand in the order in which strace saw things happen. A call of the system that something
//! else came in between has two lines; it began at the first and ended at the second.

use std::collections::HashMap;

/// What a trace showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// 202s, and those of them that left before a sync that followed their write had ended.
    pub answers: u64,
    pub unsynced: u64,
    /// Of the WAL.
    pub syncs: u64,
}

/// One call of the system.
struct Event<'a> {
    name: &'a str,
    /// What the descriptor is: a path, or the number of a socket.
    file: &'a str,
    text: String,
    began: usize,
    ended: usize,
}

/// Judges a whole trace.
#[must_use]
pub fn judge(trace: &str) -> Verdict {
    let events = events(trace);
    let is_wal = |event: &&Event<'_>| event.file.ends_with("-wal");
    let writes: Vec<&Event<'_>> =
        events.iter().filter(|event| event.name == "pwrite64").filter(is_wal).collect();
    let syncs: Vec<&Event<'_>> =
        events.iter().filter(|event| matches!(event.name, "fsync" | "fdatasync")).filter(is_wal).collect();
    let mut verdict = Verdict { syncs: syncs.len() as u64, ..Verdict::default() };
    // Since when a socket's last call waits for its answer.
    let mut waiting: HashMap<&str, usize> = HashMap::new();
    for event in &events {
        match event.name {
            "read" | "recvfrom" if event.text.contains("async=true") => {
                waiting.insert(event.file, event.ended);
            }
            "write" | "writev" | "sendto" | "sendmsg" if event.text.contains("HTTP/1.1 202") => {
                verdict.answers += 1;
                // The first writes and syncs that can hold this call: later ones end later.
                let synced = waiting
                    .remove(event.file)
                    .and_then(|read| first_after(&writes, read))
                    .and_then(|write| first_after(&syncs, write.ended))
                    .is_some_and(|sync| sync.ended < event.began);
                verdict.unsynced += u64::from(!synced);
            }
            _ => {}
        }
    }
    verdict
}

/// The first that began after `line`; they are in the order of their beginnings.
fn first_after<'a>(events: &[&'a Event<'a>], line: usize) -> Option<&'a Event<'a>> {
    events.get(events.partition_point(|event| event.began <= line)).copied()
}

/// In the order in which they began, those that failed left out.
fn events(trace: &str) -> Vec<Event<'_>> {
    let mut events = Vec::new();
    let mut unfinished: HashMap<&str, (usize, &str)> = HashMap::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, line)) = line.split_once(' ') else { continue };
        let line = line.trim_start();
        if let Some(rest) = line.strip_prefix("<... ") {
            let Some((began, first)) = unfinished.remove(thread) else { continue };
            let rest = rest.split_once("resumed>").map_or("", |(_, rest)| rest);
            events.extend(event(first, rest, began, number));
        } else if let Some(first) = line.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (number, first));
        } else {
            events.extend(event(line, "", number, number));
        }
    }
    events.sort_by_key(|event| event.began);
    events
}

fn event<'a>(first: &'a str, rest: &str, began: usize, ended: usize) -> Option<Event<'a>> {
    let (name, arguments) = first.split_once('(')?;
    let (_, file) = arguments.split_once('<')?;
    // A socket is `socket:[…]` or an address with its own `->`.
    let (file, arguments) = file.split_once(">,").or_else(|| file.split_once('>'))?;
    let text = format!("{arguments}{rest}");
    let (_, returned) = text.rsplit_once(" = ")?;
    if returned.starts_with('-') {
        return None;
    }
    Some(Event { name, file, text, began, ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str =
        r#"7 recvfrom(9<socket:[1]>, "GET /bench/items/0?async=true&webho"..., 8192, 0, NULL, NULL) = 900"#;
    const WRITE: &str = r#"8 pwrite64(5</d/ringback.db-wal>, "xx"..., 8216, 32) = 8216"#;
    const SYNC: &str = "8 fdatasync(5</d/ringback.db-wal>) = 0";
    const ANSWER: &str =
        r#"7 writev(9<socket:[1]>, [{iov_base="HTTP/1.1 202 Accepted\r\nLo"..., iov_len=500}], 2) = 700"#;

    fn verdict(lines: &[&str]) -> (u64, u64) {
        let verdict = judge(&lines.join("\n"));
        (verdict.answers, verdict.unsynced)
    }

    #[test]
    fn an_answer_after_the_sync_of_its_write_is_good() {
        assert_eq!(verdict(&[CALL, WRITE, SYNC, ANSWER]), (1, 0));
    }

    #[test]
    fn an_answer_without_a_sync_is_seen() {
        assert_eq!(verdict(&[CALL, WRITE, ANSWER]), (1, 1));
        assert_eq!(verdict(&[CALL, WRITE, ANSWER, SYNC]), (1, 1));
    }

    #[test]
    fn a_sync_of_earlier_work_does_not_count() {
        assert_eq!(verdict(&[WRITE, SYNC, CALL, WRITE, ANSWER]), (1, 1));
        assert_eq!(verdict(&[WRITE, CALL, SYNC, WRITE, ANSWER]), (1, 1));
        let db = "8 fdatasync(4</d/ringback.db>) = 0";
        assert_eq!(verdict(&[CALL, WRITE, db, ANSWER]), (1, 1));
        let failed = "8 fdatasync(5</d/ringback.db-wal>) = -1 EIO (Input/output error)";
        assert_eq!(verdict(&[CALL, WRITE, failed, ANSWER]), (1, 1));
    }

    #[test]
    fn a_sync_counts_from_its_end() {
        let (begins, ends) =
            ("8 fdatasync(5</d/ringback.db-wal> <unfinished ...>", "8 <... fdatasync resumed>) = 0");
        assert_eq!(verdict(&[CALL, WRITE, begins, ANSWER, ends]), (1, 1));
        assert_eq!(verdict(&[CALL, WRITE, begins, ends, ANSWER]), (1, 0));
        let (reads, read) = (
            "7 recvfrom(9<socket:[1]>,  <unfinished ...>",
            r#"7 <... recvfrom resumed>"GET /bench/items/0?async=true&webho"..., 8192, 0, NULL, NULL) = 900"#,
        );
        assert_eq!(verdict(&[reads, WRITE, read, SYNC, ANSWER]), (1, 1));
    }
}
