//! Plans that once broke a promise, as they were shrunk.

use super::plan::{Api, Call, Does, Event, Fate, Happens, Hears, House, Plan, Receipt};
use super::run;
use crate::outcome::Idempotency;

fn call(number: u32, at: i64, after: u64) -> Call {
    Call {
        number,
        at,
        api: 0,
        post: false,
        key: None,
        host: None,
        long: false,
        watched: false,
        upstream: vec![Fate { after, what: Does::Answers(200) }],
        receiver: vec![Receipt { after: 0, what: Hears::Well }],
    }
}

fn house() -> House {
    House {
        retry_delays: Vec::new(),
        webhook_delays: vec![30_000],
        jitter: 0.0,
        deadline: 200_000_000,
        apis: vec![Api { idempotency: Idempotency::None, concurrency: 8 }],
        webhook_concurrency: 1,
        per_host: 2,
        ready: 2,
        max_queued: 1_000,
        keeps: None,
        troubles: Vec::new(),
    }
}

/// Its request was read and its cancellation written at one instant; then it was sent.
#[test]
fn a_call_never_leaves_after_its_cancellation_is_written() {
    let plan = Plan {
        seed: 34,
        house: house(),
        calls: vec![call(20, 3_815, 1_925), call(8, 4_546, 3)],
        events: vec![
            Event { at: 3_853, what: Happens::Drain },
            Event { at: 5_550, what: Happens::Cancel(8) },
        ],
    };
    assert_eq!(run(&plan), None);
}

/// Claimed just before the end, its request was still being read when everything else was given back.
#[test]
fn a_drained_node_holds_no_lease_on_a_task_whose_request_is_being_read() {
    let apis = [(Idempotency::Key, 2), (Idempotency::Always, 1), (Idempotency::None, 32)];
    let plan = Plan {
        seed: 128,
        house: House {
            retry_delays: vec![1],
            webhook_delays: Vec::new(),
            deadline: 40,
            apis: apis.map(|(idempotency, concurrency)| Api { idempotency, concurrency }).to_vec(),
            ready: 64,
            ..house()
        },
        calls: vec![
            Call {
                upstream: vec![Fate { after: 2, what: Does::TooLarge(200) }],
                receiver: vec![Receipt { after: 49, what: Hears::Well }],
                ..call(48, 15, 2)
            },
            Call {
                upstream: vec![Fate { after: 309, what: Does::Unreachable }],
                receiver: vec![Receipt { after: 289, what: Hears::Status(500) }],
                ..call(7, 16, 309)
            },
        ],
        events: vec![Event { at: 92, what: Happens::Crash(0) }, Event { at: 94, what: Happens::Drain }],
    };
    assert_eq!(run(&plan), None);
}
