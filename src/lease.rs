//! The exclusive right to work on something, and its fence.
//!
//! The embedded store has one owner, so a lease lives as long as the node: opening the store gives
//! every lease back. The token still fences each settle: a lease that was given back and taken anew
//! has another token, and an outcome under the old one is dropped.

/// A random fence, never 0: 0 is how the store writes "nobody".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseToken(i64);

impl LeaseToken {
    #[must_use]
    pub fn from_random(random: u64) -> Self {
        let bits = i64::from_ne_bytes(random.to_ne_bytes());
        Self(if bits == 0 { 1 } else { bits })
    }

    /// The token of a stored lease; `None` for nobody's.
    #[must_use]
    pub fn from_stored(stored: i64) -> Option<Self> {
        (stored != 0).then_some(Self(stored))
    }

    #[must_use]
    pub fn as_i64(self) -> i64 {
        self.0
    }
}
