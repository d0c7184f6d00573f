//! Where every made-up thing comes from: a name is hashed to a seed, a seed to ids and dice.
//!
//! The same label under the same user always gives the same value, on every machine and in every run.

use aws_lc_rs::digest;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

#[derive(Clone, Copy)]
pub(crate) struct Seed([u8; 32]);

impl Seed {
    pub(crate) fn of_user(user: &str) -> Self {
        Self::hash(&[b"ringback sandbox user", user.as_bytes()])
    }

    /// The seed of one thing of this seed's owner.
    pub(crate) fn child(&self, label: &str) -> Self {
        Self::hash(&[&self.0, label.as_bytes()])
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first `digits` (at most 64) lower-case hex digits.
    pub(crate) fn hex(&self, digits: usize) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let nibbles = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        nibbles.take(digits).map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
    }

    pub(crate) fn dice(&self) -> Dice {
        Dice(Xoshiro256PlusPlus::from_seed(self.0))
    }

    fn hash(parts: &[&[u8]]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in parts {
            context.update(part);
        }
        let mut seed = [0; 32];
        seed.copy_from_slice(context.finish().as_ref());
        Self(seed)
    }
}

/// Chance that repeats. Only the generator's raw output is used: `rand` promises that it never
/// changes, and does not promise so for its ranges and distributions.
pub(crate) struct Dice(Xoshiro256PlusPlus);

impl Dice {
    /// A whole number from `low` to `high`, both included; `low` when the range is empty.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = u64::try_from(high.saturating_sub(low)).unwrap_or(0).saturating_add(1);
        let offset = rand::Rng::next_u64(&mut self.0) % span;
        low.saturating_add(i64::try_from(offset).unwrap_or(0))
    }

    /// True `permille` times in a thousand.
    pub(crate) fn chance(&mut self, permille: i64) -> bool {
        self.between(0, 999) < permille
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let last = i64::try_from(choices.len()).unwrap_or(i64::MAX) - 1;
        choices[usize::try_from(self.between(0, last)).unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_values_for_ever() {
        let seed = Seed::of_user("john").child("a label");
        assert_eq!(seed.hex(16), "918685a18a5da4b4");
        let mut dice = seed.dice();
        assert_eq!([dice.between(1, 6), dice.between(1, 6), dice.between(1, 6)], [1, 6, 6]);
        assert_eq!(dice.between(5, 5), 5);
    }
}
