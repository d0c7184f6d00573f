//! HTTP/1.1 messages with a `Content-Length`, read with as little work as possible.
//!
//! The tools share the machine with what they measure, so each microsecond here is taken from it.

use std::io;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

const MAX_LINES: usize = 32;

/// A connection and what was read ahead on it.
pub struct Wire {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of the message handed out last.
    taken: usize,
}

/// What the peers look at in a call.
pub struct Call<'a> {
    /// The number at the end of the path.
    pub number: Option<usize>,
    pub is_post: bool,
    pub webhook_id: Option<&'a str>,
    pub webhook_timestamp: Option<&'a str>,
    pub webhook_signature: Option<&'a str>,
    pub body: &'a [u8],
}

/// What the generator looks at in an answer.
pub struct Reply<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

struct Head {
    head: usize,
    body: usize,
}

impl Wire {
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        // Small messages must not wait for an acknowledgement; where that cannot be set, they do.
        let _ = stream.set_nodelay(true);
        Self { stream, buffer: Vec::with_capacity(4096), taken: 0 }
    }

    /// The next call; `None` when the other side is done.
    ///
    /// # Errors
    /// The connection broke, or this is not HTTP.
    pub async fn call(&mut self) -> io::Result<Option<Call<'_>>> {
        self.drop_taken();
        let Some(Head { head, body }) = self.message(request_head).await? else { return Ok(None) };
        let mut lines = [httparse::EMPTY_HEADER; MAX_LINES];
        let mut request = httparse::Request::new(&mut lines);
        request.parse(&self.buffer[..head]).map_err(not_http)?;
        let path = request.path.unwrap_or("");
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let is_post = request.method == Some("POST");
        let webhook_id = field(request.headers, "webhook-id");
        let webhook_timestamp = field(request.headers, "webhook-timestamp");
        let webhook_signature = field(request.headers, "webhook-signature");
        self.taken = head + body;
        Ok(Some(Call {
            number: path.rsplit('/').next().and_then(|number| number.parse().ok()),
            is_post,
            webhook_id,
            webhook_timestamp,
            webhook_signature,
            body: &self.buffer[head..self.taken],
        }))
    }

    /// The next answer.
    ///
    /// # Errors
    /// The connection broke or ended, or this is not HTTP.
    pub async fn reply(&mut self) -> io::Result<Reply<'_>> {
        self.drop_taken();
        let message = self.message(response_head).await?;
        let Head { head, body } = message.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut lines = [httparse::EMPTY_HEADER; MAX_LINES];
        let mut response = httparse::Response::new(&mut lines);
        response.parse(&self.buffer[..head]).map_err(not_http)?;
        let status = response.code.unwrap_or(0);
        self.taken = head + body;
        Ok(Reply { status, body: &self.buffer[head..self.taken] })
    }

    /// Waits until the other side goes away.
    pub async fn gone(&mut self) {
        while self.stream.read_buf(&mut self.buffer).await.is_ok_and(|count| count > 0) {}
    }

    fn drop_taken(&mut self) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
    }

    async fn message(&mut self, parse: fn(&[u8]) -> io::Result<Option<Head>>) -> io::Result<Option<Head>> {
        loop {
            if let Some(message) = parse(&self.buffer)?
                && self.buffer.len() >= message.head + message.body
            {
                return Ok(Some(message));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }
}

fn request_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_LINES];
    let mut request = httparse::Request::new(&mut lines);
    let status = request.parse(bytes).map_err(not_http)?;
    Ok(whole(status, request.headers))
}

fn response_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_LINES];
    let mut response = httparse::Response::new(&mut lines);
    let status = response.parse(bytes).map_err(not_http)?;
    Ok(whole(status, response.headers))
}

fn whole(status: httparse::Status<usize>, lines: &[httparse::Header<'_>]) -> Option<Head> {
    let httparse::Status::Complete(head) = status else { return None };
    let body = field(lines, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    Some(Head { head, body })
}

fn field<'a>(lines: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let line = lines.iter().find(|line| line.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(line.value).ok()
}

fn not_http(error: httparse::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The text behind `"name":"` in JSON whose values hold no escapes.
#[must_use]
pub fn text_of<'a>(json: &'a [u8], name: &str) -> Option<&'a str> {
    let json = std::str::from_utf8(json).ok()?;
    let mut rest = json;
    loop {
        rest = &rest[rest.find(name)? + name.len()..];
        if let Some(value) =
            rest.strip_prefix("\":").map(str::trim_start).and_then(|value| value.strip_prefix('"'))
        {
            return value.split('"').next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_by_its_name() {
        let json = br#"{"results_uri":"http://a/task_id","status": "Queued","task_id":"x-1"}"#;
        assert_eq!(text_of(json, "task_id"), Some("x-1"));
        assert_eq!(text_of(json, "status"), Some("Queued"));
        assert_eq!(text_of(json, "error"), None);
    }
}
