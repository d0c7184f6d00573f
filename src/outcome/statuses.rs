//! The set of upstream statuses worth another attempt, as configured: `[408, "520-529"]`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A set of error statuses. Only 400 to 599 can be in it: success and redirects are never retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransientStatuses(Vec<(u16, u16)>);

impl TransientStatuses {
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|&(first, last)| (first..=last).contains(&status))
    }
}

impl<'de> Deserialize<'de> for TransientStatuses {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            One(u16),
            Text(String),
        }
        let mut ranges = Vec::new();
        for written in Vec::<Written>::deserialize(from)? {
            let range = match &written {
                Written::One(status) => Some((*status, *status)),
                Written::Text(text) => {
                    let (first, last) = text.split_once('-').unwrap_or((text, text));
                    first.trim().parse().ok().zip(last.trim().parse().ok())
                }
            };
            match range {
                Some((first, last)) if (400..=599).contains(&first) && (first..=599).contains(&last) => {
                    ranges.push((first, last));
                }
                _ => {
                    return Err(D::Error::custom(
                        "each status is one of 400 to 599 or a range such as \"520-529\"",
                    ));
                }
            }
        }
        Ok(Self(ranges))
    }
}

impl Default for TransientStatuses {
    /// The answers that are commonly about now, not about the call.
    fn default() -> Self {
        Self(vec![(408, 408), (425, 425), (429, 429), (500, 500), (502, 504), (520, 529)])
    }
}
