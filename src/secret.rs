//! Text that must never reach a log, an error or a page: tokens, header values, webhook queries.
//!
//! `Secret` has no `Debug` and no `Display`, so printing one by accident does not compile.
//! The bytes are wiped when it is dropped.

use zeroize::{ZeroizeOnDrop, Zeroizing};

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

/// The key behind `opaque` credentials ids. Made once and kept by the store: with another key every
/// caller would lose sight of the tasks made before. Cannot be printed.
#[derive(Clone, ZeroizeOnDrop)]
pub struct FingerprintKey([u8; 32]);

impl FingerprintKey {
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key itself, for computing with it.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}
