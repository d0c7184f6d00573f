//! What a scripted peer does with one call: bytes to send, gates to wait at, ways to break off.

use bytes::Bytes;
use tokio::sync::watch;

/// Closed until the test opens it.
#[derive(Clone)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    pub fn closed() -> Self {
        Self(watch::Sender::new(false))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub async fn opened(&self) {
        let mut receiver = self.0.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = receiver.wait_for(|open| *open).await;
    }
}

/// One thing a peer does after it has read a call.
#[derive(Clone)]
pub enum Step {
    Send(Bytes),
    /// That many bytes of zero.
    Zeros(u64),
    Wait(Gate),
    /// Closes the connection.
    Cut,
    /// Closes it with a reset, so that what was sent may be lost too.
    Reset,
    /// Sends back whatever comes, until the other side ends.
    Echo,
}

/// The answer to one call.
#[derive(Clone)]
pub struct Reply {
    gate: Option<Gate>,
    status: u16,
    headers: Vec<(String, String)>,
    body: Content,
    close: Option<Step>,
}

#[derive(Clone)]
enum Content {
    None,
    Whole(Bytes),
    /// Declares `Content-Length`, sends only the first bytes, then breaks off.
    Broken(Bytes, usize),
    Zeros(u64),
    Chunks(Vec<(Option<Gate>, Bytes)>, Vec<(String, String)>),
    /// Sent instead of an answer.
    Raw(Vec<Step>),
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { gate: None, status, headers: Vec::new(), body: Content::Whole(Bytes::new()), close: None }
    }

    /// 200 with a text.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::new(200).header("content-type", "text/plain").body(body)
    }

    pub fn json(status: u16, body: &str) -> Self {
        Self::new(status).header("content-type", "application/json").body(body.to_owned())
    }

    /// Closes the connection without a byte of an answer.
    pub fn cut() -> Self {
        Self::steps(vec![Step::Cut])
    }

    /// Resets the connection without a byte of an answer.
    pub fn reset() -> Self {
        Self::steps(vec![Step::Reset])
    }

    /// Never answers.
    pub fn silence() -> Self {
        Self::steps(vec![Step::Wait(Gate::closed())])
    }

    pub fn steps(steps: Vec<Step>) -> Self {
        Self { body: Content::Raw(steps), ..Self::new(0) }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Content::Whole(body.into());
        self
    }

    /// Without body and without `Content-Length`, as 204 and 304 are.
    pub fn bodyless(mut self) -> Self {
        self.body = Content::None;
        self
    }

    pub fn zeros(mut self, count: u64) -> Self {
        self.body = Content::Zeros(count);
        self
    }

    /// Declares the whole body and closes the connection after its first `sent` bytes.
    pub fn broken_after(mut self, body: impl Into<Bytes>, sent: usize) -> Self {
        self.body = Content::Broken(body.into(), sent);
        self
    }

    /// `Transfer-Encoding: chunked`, a chunk a piece; a piece with a gate waits for it.
    pub fn chunks(mut self, pieces: Vec<(Option<Gate>, &'static str)>) -> Self {
        let pieces = pieces.into_iter().map(|(gate, piece)| (gate, Bytes::from_static(piece.as_bytes())));
        self.body = Content::Chunks(pieces.collect(), Vec::new());
        self
    }

    /// A trailer field; only after [`Reply::chunks`].
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        let Content::Chunks(_, trailers) = &mut self.body else {
            panic!("only chunked bodies have trailers")
        };
        trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Answers only when the gate is open.
    pub fn behind(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// Closes the connection after the answer and says so.
    pub fn closing(mut self) -> Self {
        self.close = Some(Step::Cut);
        self.header("connection", "close")
    }

    /// The steps that make this answer to a call of `method`.
    pub fn into_steps(self, method: &str) -> Vec<Step> {
        let mut steps: Vec<Step> = self.gate.into_iter().map(Step::Wait).collect();
        if let Content::Raw(raw) = self.body {
            steps.extend(raw);
            return steps;
        }
        let mut head = format!("HTTP/1.1 {} Scripted\r\n{}", self.status, fields(&self.headers));
        let length = match &self.body {
            Content::Whole(body) | Content::Broken(body, _) => Some(body.len() as u64),
            Content::Zeros(count) => Some(*count),
            Content::None | Content::Chunks(..) | Content::Raw(_) => None,
        };
        if let Some(length) = length {
            head.extend(["content-length: ", &length.to_string(), "\r\n"]);
        }
        if matches!(self.body, Content::Chunks(..)) {
            head.push_str("transfer-encoding: chunked\r\n");
        }
        head.push_str("\r\n");
        steps.push(Step::Send(head.into()));
        if method != "HEAD" {
            steps.extend(content(self.body));
        }
        steps.extend(self.close);
        steps
    }
}

fn fields(fields: &[(String, String)]) -> String {
    fields.iter().flat_map(|(name, value)| [name.as_str(), ": ", value.as_str(), "\r\n"]).collect()
}

fn content(body: Content) -> Vec<Step> {
    match body {
        Content::None | Content::Raw(_) => Vec::new(),
        Content::Whole(body) => vec![Step::Send(body)],
        Content::Broken(body, sent) => vec![Step::Send(body.slice(..sent)), Step::Cut],
        Content::Zeros(count) => vec![Step::Zeros(count)],
        Content::Chunks(pieces, trailers) => {
            let mut steps = Vec::new();
            for (gate, piece) in pieces {
                steps.extend(gate.map(Step::Wait));
                let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
                chunk.extend_from_slice(&piece);
                chunk.extend_from_slice(b"\r\n");
                steps.push(Step::Send(chunk.into()));
            }
            steps.push(Step::Send(format!("0\r\n{}\r\n", fields(&trailers)).into()));
            steps
        }
    }
}
