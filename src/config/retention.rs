//! `[retention]`: how long finished work is kept.

use std::time::Duration;

use serde::Deserialize;

use super::units;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// Counted from the end of the task; afterwards 410.
    #[serde(deserialize_with = "units::duration")]
    pub results: Duration,
    /// Counted from acceptance; afterwards nothing is left and the answer is 404.
    #[serde(deserialize_with = "units::duration")]
    pub tasks: Duration,
    /// Counted from acceptance; afterwards the key is as good as new.
    #[serde(deserialize_with = "units::duration")]
    pub idempotency_keys: Duration,
}
