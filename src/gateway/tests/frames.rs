//! HTTP/2 by hand: frames and header blocks as bytes, whatever the rules say about them.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::soon;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// RFC 9113, 4.1.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Each field a literal with a new name, neither indexed nor compressed (RFC 7541, 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            text_of(text, &mut bytes);
        }
    }
    bytes
}

/// A string literal (RFC 7541, 5.2).
pub fn text_of(text: &str, bytes: &mut Vec<u8>) {
    let mut length = text.len();
    if length < 127 {
        bytes.push(u8::try_from(length).unwrap());
    } else {
        bytes.push(127);
        length -= 127;
        while length >= 128 {
            bytes.push(u8::try_from(length % 128).unwrap() | 128);
            length /= 128;
        }
        bytes.push(u8::try_from(length).unwrap());
    }
    bytes.extend(text.as_bytes());
}

/// A whole header section.
pub fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(fields))
}

/// How the node's side of a stream, or of its connection, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Answer { status: u16, body: String },
    Reset(u32),
    GoAway(u32),
    Closed,
}

/// A client that has said the preface and nothing else.
pub struct Client(TcpStream);

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let mut client = Self(TcpStream::connect(address).await.unwrap());
        client.try_send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        client
    }

    /// With room for so many bytes of each answer, and no more ever.
    pub async fn with_room(address: SocketAddr, bytes: u32) -> Self {
        let mut client = Self(TcpStream::connect(address).await.unwrap());
        // SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113, 6.5.2).
        let setting = [&4_u16.to_be_bytes()[..], &bytes.to_be_bytes()].concat();
        client.try_send(&[PREFACE, &frame(SETTINGS, 0, 0, &setting)].concat()).await;
        client
    }

    /// Whether the node still took the bytes.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        soon(self.0.write_all(bytes)).await.is_ok()
    }

    /// `None`: the connection ended.
    async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        soon(self.0.read_exact(&mut head)).await.ok()?;
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        soon(self.0.read_exact(&mut payload)).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some((head[3], head[4], stream, payload))
    }

    /// Waits for the end of a stream, and says what a good client says meanwhile.
    pub async fn heard(&mut self, stream: u32) -> Heard {
        self.hear(stream, true).await
    }

    /// The same without a word: in the middle of a head there can be none.
    pub async fn heard_in_silence(&mut self, stream: u32) -> Heard {
        self.hear(stream, false).await
    }

    async fn hear(&mut self, stream: u32, speaks: bool) -> Heard {
        let (mut status, mut body) = (0, Vec::new());
        while let Some((kind, flags, about, payload)) = self.next().await {
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match kind {
                SETTINGS | PING if flags & ACK == 0 && speaks => {
                    let payload = if kind == PING { &payload[..] } else { &[] };
                    self.try_send(&frame(kind, ACK, 0, payload)).await;
                }
                GOAWAY if code(4) != 0 => return Heard::GoAway(code(4)),
                RST_STREAM if about == stream => return Heard::Reset(code(0)),
                HEADERS if about == stream && status == 0 => status = status_in(&payload),
                DATA if about == stream => body.extend_from_slice(&payload),
                _ => {}
            }
            if about == stream && matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                return Heard::Answer { status, body: String::from_utf8(body).unwrap() };
            }
        }
        Heard::Closed
    }
}

/// The status at the beginning of a header block: an entry of the static table, or three digits, which
/// Huffman's code gives five bits (0 to 2) or six (RFC 7541, appendices A and B).
fn status_in(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    if let Some(status) = block[0].checked_sub(0x88).and_then(|entry| INDEXED.get(usize::from(entry))) {
        return *status;
    }
    let (length, text) = (usize::from(block[1] & 0x7f), &block[2..]);
    let mut digits = 0;
    if block[1] & 0x80 == 0 {
        return std::str::from_utf8(&text[..length]).unwrap().parse().unwrap();
    }
    let bits = text[..length].iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    let (mut left, mut found) = (8 * length, 0);
    while found < 3 {
        let five = u16::try_from(bits >> (left - 5) & 0x1f).unwrap();
        let digit = if five < 3 {
            left -= 5;
            five
        } else {
            left -= 6;
            u16::try_from(bits >> left & 0x3f).unwrap() - 0x19 + 3
        };
        (digits, found) = (digits * 10 + digit, found + 1);
    }
    digits
}

#[test]
fn a_status_is_read_however_it_is_written() {
    for (block, status) in [
        (&[0x88][..], 200),
        (&[0x8c], 400),
        (&[0x48, 3, b'2', b'0', b'2'], 202),
        // RFC 7541, C.6.1 and C.6.2.
        (&[0x48, 0x82, 0x64, 0x02], 302),
        (&[0x48, 0x83, 0x64, 0x0e, 0xff], 307),
    ] {
        assert_eq!(status_in(block), status);
    }
}
