//! Reading HTTP/1.1 calls off a socket, exactly as they came.

use std::io;

use bytes::{Buf as _, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;

/// One call as a peer received it.
#[derive(Clone, Debug)]
pub struct Received {
    pub at: Instant,
    pub method: String,
    /// Path and query, byte for byte.
    pub target: String,
    /// In order, names as spelt.
    pub headers: Vec<(String, String)>,
    pub trailers: Vec<(String, String)>,
    /// Empty when the peer only counts.
    pub body: Vec<u8>,
}

impl Received {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A header that came at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "the header {name} came {} times", values.len());
        values.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {:?}", self.body))
    }
}

/// The read side of one connection.
pub struct Wire {
    buffer: BytesMut,
}

/// How a body is delimited.
enum Framing {
    Length(u64),
    Chunked,
}

impl Wire {
    pub fn new() -> Self {
        Self { buffer: BytesMut::new() }
    }

    /// Reads what there is, at least a byte; 0 at the end.
    async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        self.buffer.reserve(256 << 10);
        from.read_buf(&mut self.buffer).await
    }

    /// The head of the next call; `None` when the other side ended between calls.
    pub async fn head(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Received>> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if self.fill(from).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        };
        let head = self.buffer.split_to(end + 4);
        let head = String::from_utf8_lossy(&head[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let mut request = lines.next().unwrap_or_default().split(' ');
        let mut word = || request.next().unwrap_or_default().to_owned();
        Ok(Some(Received {
            at: Instant::now(),
            method: word(),
            target: word(),
            headers: lines.filter_map(field).collect(),
            trailers: Vec::new(),
            body: Vec::new(),
        }))
    }

    /// Reads the body of `call` piece by piece.
    pub async fn body(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        call: &mut Received,
        mut piece: impl FnMut(&mut Received, &[u8]),
    ) -> io::Result<()> {
        let chunked =
            call.all("transfer-encoding").iter().any(|coding| coding.eq_ignore_ascii_case("chunked"));
        let framing = if chunked {
            Framing::Chunked
        } else {
            Framing::Length(call.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0))
        };
        match framing {
            Framing::Length(length) => self.exactly(from, length, |bytes| piece(call, bytes)).await,
            Framing::Chunked => loop {
                let line = self.line(from).await?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
                if size == 0 {
                    return self.trailers(from, call).await;
                }
                self.exactly(from, size, |bytes| piece(call, bytes)).await?;
                self.line(from).await?;
            },
        }
    }

    async fn trailers(&mut self, from: &mut (impl AsyncRead + Unpin), call: &mut Received) -> io::Result<()> {
        loop {
            let line = self.line(from).await?;
            if line.is_empty() {
                return Ok(());
            }
            call.trailers.extend(field(&line));
        }
    }

    async fn exactly(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        length: u64,
        mut piece: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            if self.buffer.is_empty() && self.fill(from).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let here = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            piece(&self.buffer[..here]);
            self.buffer.advance(here);
            left -= here as u64;
        }
        Ok(())
    }

    async fn line(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line = self.buffer.split_to(end + 2);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.fill(from).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Returns when the other side has ended; bytes that come before are kept.
    pub async fn until_end(&mut self, from: &mut (impl AsyncRead + Unpin)) {
        while matches!(self.fill(from).await, Ok(count) if count > 0) {}
    }

    /// What was read beyond the last call.
    pub fn rest(&mut self) -> BytesMut {
        self.buffer.split()
    }
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_owned(), value.trim().to_owned()))
}
