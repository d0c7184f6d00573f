//! An upstream that reads as strictly as RFC 9112 can be read, and remembers.
//!
//! Whatever a lenient server could understand in another way is not a call to it but a fault.

use std::sync::{Arc, Mutex};

use tokio::io::AsyncReadExt as _;

use super::support::{Raw, Scripted, soon, upstream};

/// What has come: each whole call as its head in lower case and its body, or why it has two readings.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<Result<String, String>>>>);

impl Seen {
    /// What has come since the last time.
    pub fn take(&self) -> Vec<Result<String, String>> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn push(&self, call: Result<String, String>) {
        self.0.lock().unwrap().push(call);
    }
}

pub async fn strict() -> (Scripted, Seen) {
    let seen = Seen::default();
    let remembers = seen.clone();
    let scripted = upstream(move |client| serve(client, remembers.clone())).await;
    (scripted, seen)
}

async fn serve(mut client: Raw, seen: Seen) {
    let mut bytes = Vec::new();
    loop {
        match first_call(&bytes) {
            Ok(None) => {
                if soon(client.stream.read_buf(&mut bytes)).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            Ok(Some((call, length))) => {
                bytes.drain(..length);
                seen.push(Ok(call));
                client.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
            Err(why) => return seen.push(Err(format!("{why}: {}", String::from_utf8_lossy(&bytes)))),
        }
    }
}

/// The first call and how many bytes it has; `None` while it is not whole.
fn first_call(bytes: &[u8]) -> Result<Option<(String, usize)>, &'static str> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "not text")?;
    let mut lines = head.split("\r\n");
    let parts: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err("no request line") };
    if !is_token(method) || !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("no good request line");
    }
    let (mut hosts, mut lengths, mut codings) = (0, Vec::new(), Vec::new());
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or("a line without a colon")?;
        if !is_token(name) || value.chars().any(char::is_control) || value != value.trim() {
            return Err("no good field");
        }
        match &*name.to_ascii_lowercase() {
            "host" => hosts += 1,
            "content-length" => lengths.push(value),
            "transfer-encoding" => codings.push(value),
            _ => {}
        }
    }
    let body = match (hosts, &lengths[..], &codings[..]) {
        (1, [], []) => Some((String::new(), 0)),
        (1, [length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let length: usize = length.parse().map_err(|_| "no length")?;
            bytes.get(end + 4..end + 4 + length).map(|body| (lossy(body), length))
        }
        (1, [], ["chunked"]) => chunks(&bytes[end + 4..])?,
        _ => return Err("no one host or no one length"),
    };
    Ok(body.map(|(body, length)| (format!("{}\n{body}", head.to_ascii_lowercase()), end + 4 + length)))
}

/// A body of chunks without extensions, and its trailers.
fn chunks(bytes: &[u8]) -> Result<Option<(String, usize)>, &'static str> {
    let (mut body, mut at) = (String::new(), 0);
    loop {
        let Some(size) = line(&bytes[at..]) else { return Ok(None) };
        at += size.len() + 2;
        let size = std::str::from_utf8(size).ok().filter(|size| size.bytes().all(|b| b.is_ascii_hexdigit()));
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok()).ok_or("no size of a chunk")?;
        if size == 0 {
            while let Some(trailer) = line(&bytes[at..]) {
                at += trailer.len() + 2;
                if trailer.is_empty() {
                    return Ok(Some((body, at)));
                }
                body = format!("{body}\n{}", lossy(trailer));
            }
            return Ok(None);
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err("a chunk without its end");
        }
        body += &lossy(&chunk[..size]);
        at += size + 2;
    }
}

fn line(bytes: &[u8]) -> Option<&[u8]> {
    bytes.windows(2).position(|window| window == b"\r\n").map(|end| &bytes[..end])
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.!~".contains(&byte))
}

#[test]
fn the_strict_upstream_takes_nothing_with_two_readings() {
    for good in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\na: b\r\n\r\n",
    ] {
        let (_, length) = first_call(good.as_bytes()).unwrap().unwrap();
        assert_eq!(length, good.len());
        assert!(first_call(&good.as_bytes()[..good.len() - 1]).unwrap().is_none());
    }
    for bad in [
        "GET / HTTP/1.1\r\nhost: a\nx: b\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx : a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n x: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nxyz\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;a\r\nx\r\n0\r\n\r\n",
    ] {
        assert!(first_call(bad.as_bytes()).is_err(), "{bad:?}");
    }
}
