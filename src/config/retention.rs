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
    /// Bytes in use of the store's file; above it finished tasks go before their time. 0 means no limit.
    #[serde(deserialize_with = "units::bytes")]
    pub max_bytes: u64,
    /// Counted from the end of the task: so long its result is kept whatever `max_bytes` says, unless
    /// `results` is shorter.
    #[serde(deserialize_with = "units::duration")]
    pub results_at_least: Duration,
}
