//! Amounts of money as whole hundredths, so that they add up; JSON shows them as plain numbers.

use serde::{Serialize, Serializer};

/// Hundredths of the currency. Below zero: money that leaves an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Money(pub(crate) i64);

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[expect(clippy::cast_precision_loss, reason = "a person's money is far below 2^53 hundredths")]
        let units = self.0 as f64 / 100.0;
        serializer.serialize_f64(units)
    }
}

impl std::ops::Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl std::ops::Sub for Money {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl std::ops::Neg for Money {
    type Output = Self;

    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl std::iter::Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self(0), |sum, amount| sum + amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_reads_as_a_number_with_its_cents() {
        for (hundredths, json) in [(0, "0.0"), (1, "0.01"), (-1205, "-12.05"), (123_456_789, "1234567.89")] {
            assert_eq!(serde_json::to_string(&Money(hundredths)).unwrap(), json);
        }
    }
}
