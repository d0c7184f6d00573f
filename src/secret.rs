//! Text that must never reach a log, an error or a page: tokens, header values, webhook queries.
//!
//! `Secret` has no `Debug` and no `Display`, so printing one by accident does not compile.
//! The bytes are wiped when it is dropped.

use zeroize::Zeroizing;

/// A secret string. [`Secret::expose`] is the only way in; each call is a place to review.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for sending or sealing, never for printing.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}
