//! Whether a head is open on an HTTP/2 connection (RFC 9113, 4.1 and 4.3): a pure state machine over what the
//! client sends.
//!
//! The library tells of a call when its head is whole, and of a head that never ends it tells nothing.
//! Nothing is judged here: malformed frames are the library's business. Invariant: a head is open from the
//! first byte of its first frame to the last byte of its last one.

use super::PREFACE;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Bytes of a frame before its payload.
const FRAME_HEAD: usize = 9;

/// The frames of one client.
#[derive(Debug)]
pub struct Blocks {
    /// Bytes of the preface that have not come yet.
    preface: usize,
    head: [u8; FRAME_HEAD],
    /// So many bytes of it are there.
    known: usize,
    /// Bytes of the payload that have not come yet.
    payload: usize,
    /// The frame whose payload comes belongs to a head.
    of_head: bool,
    /// More frames of the same head must follow.
    unended: bool,
    begun: u64,
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            preface: PREFACE.len(),
            head: [0; FRAME_HEAD],
            known: 0,
            payload: 0,
            of_head: false,
            unended: false,
            begun: 0,
        }
    }
}

impl Blocks {
    /// Follows bytes that have come.
    pub fn follow(&mut self, mut bytes: &[u8]) {
        bytes = &bytes[take(&mut self.preface, bytes.len())..];
        while !bytes.is_empty() {
            if self.payload > 0 {
                bytes = &bytes[take(&mut self.payload, bytes.len())..];
                continue;
            }
            if self.known == 0 && !self.unended {
                self.begun += 1;
            }
            let count = (FRAME_HEAD - self.known).min(bytes.len());
            self.head[self.known..self.known + count].copy_from_slice(&bytes[..count]);
            self.known += count;
            bytes = &bytes[count..];
            if self.known == FRAME_HEAD {
                self.begin_frame();
            }
        }
    }

    /// The number of the head that is open; a frame whose kind is not known yet may be one.
    #[must_use]
    pub fn open(&self) -> Option<u64> {
        let is_open = self.unended || self.known > 0 || (self.of_head && self.payload > 0);
        is_open.then_some(self.begun)
    }

    fn begin_frame(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.known = 0;
        self.payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.of_head = matches!(kind, HEADERS | CONTINUATION);
        if self.of_head {
            self.unended = flags & END_HEADERS == 0;
        }
    }
}

/// Takes as many of `left` as `there` allows; how many.
fn take(left: &mut usize, there: usize) -> usize {
    let count = there.min(*left);
    *left -= count;
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATA: u8 = 0;

    fn frame(kind: u8, flags: u8, payload: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, payload, kind, flags, 0, 0, 0, 1];
        bytes.resize(FRAME_HEAD + usize::from(payload), 0xff);
        bytes
    }

    fn after(frames: &[&[u8]]) -> Option<u64> {
        let mut blocks = Blocks::default();
        blocks.follow(&[&[PREFACE], frames].concat().concat());
        blocks.open()
    }

    #[test]
    fn a_head_is_open_until_its_last_frame_is_whole() {
        let (begun, more) = (frame(HEADERS, 0, 5), frame(CONTINUATION, 0, 5));
        let last = frame(CONTINUATION, END_HEADERS, 5);
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[&begun]), Some(1));
        assert_eq!(after(&[&begun, &more]), Some(1));
        assert_eq!(after(&[&begun, &more, &more[..3]]), Some(1));
        assert_eq!(after(&[&begun, &last[..FRAME_HEAD + 4]]), Some(1));
        assert_eq!(after(&[&begun, &last]), None);
        assert_eq!(after(&[&frame(HEADERS, END_HEADERS, 0)]), None);
        assert_eq!(after(&[&begun, &last, &begun]), Some(2));
    }

    #[test]
    fn a_frame_of_another_kind_is_no_head_once_it_is_known() {
        let data = frame(DATA, 0, 5);
        assert_eq!(after(&[&data[..FRAME_HEAD - 1]]), Some(1));
        assert_eq!(after(&[&data[..FRAME_HEAD]]), None);
        assert_eq!(after(&[&data, &data]), None);
        // The flag of that number means nothing there.
        assert_eq!(after(&[&frame(HEADERS, 0, 1), &frame(DATA, END_HEADERS, 1)]), Some(1));
    }

    proptest! {
        #[test]
        fn how_the_bytes_arrive_changes_nothing(
            frames in prop::collection::vec((0u8..11, any::<u8>(), 0u8..20), 0..6),
            missing in 0usize..40,
            cut in any::<usize>(),
        ) {
            let mut bytes = PREFACE.to_vec();
            for (kind, flags, payload) in frames {
                bytes.extend(frame(kind, flags, payload));
            }
            bytes.truncate(bytes.len() - missing.min(bytes.len()));
            let (mut whole, mut cut_once, mut single) = (Blocks::default(), Blocks::default(), Blocks::default());
            whole.follow(&bytes);
            let (first, second) = bytes.split_at(cut % (bytes.len() + 1));
            cut_once.follow(first);
            cut_once.follow(second);
            for byte in &bytes {
                single.follow(&[*byte]);
            }
            prop_assert_eq!(whole.open(), cut_once.open());
            prop_assert_eq!(whole.open(), single.open());
        }
    }
}
