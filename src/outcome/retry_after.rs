//! `Retry-After` (RFC 9110, 10.2.3): seconds, or an HTTP date.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Timestamp;

/// An upstream's wish not to be called before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    Delay(Duration),
    At(Timestamp),
}

impl RetryAfter {
    /// `None` for anything that is neither form; such a header is ignored.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // More digits than fit are still "very long", not nonsense.
            return Some(Self::Delay(Duration::from_secs(text.parse().unwrap_or(u64::MAX))));
        }
        let since_epoch = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Self::At(Timestamp(i64::try_from(since_epoch.as_millis()).ok()?)))
    }

    /// How long to wait from `wall`; zero for a date that has passed.
    #[must_use]
    pub fn wait(self, wall: Timestamp) -> Duration {
        match self {
            Self::Delay(delay) => delay,
            Self::At(at) => wall.until(at),
        }
    }
}
