//! As much of HTTP/2 as an attacker needs (RFC 9113, 4.1; RFC 7541, 6.2.2).

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest window.
const ALL: u32 = i32::MAX as u32;

#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// How a connection begins: with room for whatever the node will send.
#[must_use]
pub fn preface() -> Vec<u8> {
    // SETTINGS_INITIAL_WINDOW_SIZE.
    let window = [&4_u16.to_be_bytes()[..], &ALL.to_be_bytes()].concat();
    let more = (ALL - 65_535).to_be_bytes();
    [PREFACE, &frame(SETTINGS, 0, 0, &window), &frame(WINDOW_UPDATE, 0, 0, &more)].concat()
}

/// Fields of fewer than 127 bytes, each a literal with a new name.
#[must_use]
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            bytes.push(u8::try_from(text.len()).unwrap_or(0));
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}
