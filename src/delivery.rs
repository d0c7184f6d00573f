//! The durable duty to announce one result: what it says, and when it is tried again.
//!
//! Pure: no I/O, no clock, no randomness of its own. A webhook says that a result is there and
//! where, never the result itself.

use serde::Serialize;

use crate::backoff::Backoff;
use crate::clock::Timestamp;
use crate::id::TaskId;
use crate::task::FinalStatus;

/// No configuration makes a delivery try harder than this.
pub const MAX_RETRIES: u32 = 6;

/// What a webhook says.
pub struct Announcement<'task> {
    /// When the call was accepted, by the wall clock.
    pub requested_at: Timestamp,
    /// `public_url`, path and query, less our own parameters.
    pub request_uri: &'task str,
    /// `None` only where the identity mode has none to give.
    pub credentials_id: Option<&'task str>,
    pub task_id: TaskId,
    pub status: FinalStatus,
    pub results_uri: &'task str,
    /// Both `None` for a task that Succeeded.
    pub error_description: Option<&'task str>,
    pub error: Option<&'task str>,
}

impl Announcement<'_> {
    /// The JSON body: exactly eight fields in a fixed order, `null` where empty (contract.md).
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let fields = Fields {
            request_timestamp: self.requested_at.to_rfc3339(),
            request_uri: self.request_uri,
            credentials_id: self.credentials_id,
            task_id: self.task_id.to_string(),
            status: match self.status {
                FinalStatus::Succeeded => "Succeeded",
                FinalStatus::Failed => "Failed",
            },
            results_uri: self.results_uri,
            error_description: self.error_description,
            error: self.error,
        };
        serde_json::to_vec(&fields).expect("strings are JSON")
    }
}

#[derive(Serialize)]
struct Fields<'task> {
    request_timestamp: String,
    request_uri: &'task str,
    credentials_id: Option<&'task str>,
    task_id: String,
    status: &'static str,
    results_uri: &'task str,
    error_description: Option<&'task str>,
    error: Option<&'task str>,
}

/// What happens after a delivery attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryDecision {
    Delivered,
    Retry { due_at: Timestamp },
    GiveUp,
}

/// The decision after try number `tries` (from 1). `chance` is a random number in `0.0..1.0`.
#[must_use]
pub fn decide(
    tries: u32,
    delivered: bool,
    policy: &Backoff,
    now: Timestamp,
    chance: f64,
) -> DeliveryDecision {
    if delivered {
        return DeliveryDecision::Delivered;
    }
    match policy.delay(tries, chance).filter(|_| tries <= MAX_RETRIES) {
        Some(delay) => DeliveryDecision::Retry { due_at: now.after(delay) },
        None => DeliveryDecision::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    fn id() -> TaskId {
        "019a3f00-0000-7000-8000-000000000001".parse().unwrap()
    }

    fn announcement() -> Announcement<'static> {
        Announcement {
            requested_at: Timestamp(1_700_000_000_123),
            request_uri: "https://api.example/data/v1/accounts?from=2024-01-01",
            credentials_id: Some("jane"),
            task_id: id(),
            status: FinalStatus::Succeeded,
            results_uri: "https://api.example/data/v1/results/019a3f00-0000-7000-8000-000000000001",
            error_description: None,
            error: None,
        }
    }

    #[test]
    fn a_webhook_has_exactly_the_eight_fields_in_order() {
        assert_eq!(
            String::from_utf8(announcement().to_json()).unwrap(),
            "{\"request_timestamp\":\"2023-11-14T22:13:20.123Z\",\
             \"request_uri\":\"https://api.example/data/v1/accounts?from=2024-01-01\",\
             \"credentials_id\":\"jane\",\
             \"task_id\":\"019a3f00-0000-7000-8000-000000000001\",\
             \"status\":\"Succeeded\",\
             \"results_uri\":\"https://api.example/data/v1/results/019a3f00-0000-7000-8000-000000000001\",\
             \"error_description\":null,\"error\":null}"
        );
    }

    #[test]
    fn a_failed_task_is_announced_with_its_error() {
        let failed = Announcement {
            status: FinalStatus::Failed,
            credentials_id: None,
            error_description: Some("The provider said \"no\"."),
            error: Some("provider_error"),
            ..announcement()
        };
        let json: serde_json::Value = serde_json::from_slice(&failed.to_json()).unwrap();
        assert_eq!(json["status"], "Failed");
        assert_eq!(json["credentials_id"], serde_json::Value::Null);
        assert_eq!(json["error_description"], "The provider said \"no\".");
        assert_eq!(json["error"], "provider_error");
    }

    #[test]
    fn six_retries_then_it_is_given_up() {
        let policy = Backoff::new(vec![Duration::from_secs(1); 9], 0.0);
        let retried = (1..20).filter(|&tries| {
            decide(tries, false, &policy, Timestamp(0), 0.5)
                == DeliveryDecision::Retry { due_at: Timestamp(1000) }
        });
        assert_eq!(retried.collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(decide(7, false, &policy, Timestamp(0), 0.5), DeliveryDecision::GiveUp);
    }

    proptest! {
        #[test]
        fn a_delivered_webhook_is_never_sent_again(tries in 1u32..20, delays in 0usize..9, chance in 0.0f64..1.0) {
            let policy = Backoff::new(vec![Duration::from_secs(1); delays], 0.25);
            prop_assert_eq!(decide(tries, true, &policy, Timestamp(5), chance), DeliveryDecision::Delivered);
        }

        #[test]
        fn tries_are_bounded_by_the_schedule_and_by_six_retries(delays in 0usize..12, chance in 0.0f64..1.0) {
            let policy = Backoff::new(vec![Duration::from_secs(1); delays], 0.25);
            let tries = (1..100).find(|&tries| {
                decide(tries, false, &policy, Timestamp(5), chance) == DeliveryDecision::GiveUp
            });
            prop_assert_eq!(tries, Some(u32::try_from(delays.min(6)).unwrap() + 1));
        }

        #[test]
        fn a_retry_is_never_due_before_its_shortest_delay(
            ms in 0u64..100_000_000, jitter in 0.0f64..=1.0, chance in 0.0f64..1.0, now in 0i64..1 << 45,
        ) {
            let delay = Duration::from_millis(ms);
            let decision = decide(1, false, &Backoff::new(vec![delay], jitter), Timestamp(now), chance);
            let DeliveryDecision::Retry { due_at } = decision else { panic!("{decision:?}") };
            prop_assert!(due_at >= Timestamp(now).after(delay.mul_f64(1.0 - jitter).saturating_sub(Duration::from_millis(1))));
            prop_assert!(due_at <= Timestamp(now).after(delay.mul_f64(1.0 + jitter) + Duration::from_millis(1)));
        }
    }
}
