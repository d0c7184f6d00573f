use http::Method;
use proptest::prelude::*;

use super::*;

const SAFE: Safety = Safety::Repeatable;
const UNSAFE: Safety = Safety::Unsafe;

fn answered(status: u16) -> Exchange {
    Exchange::Answered { status, retry_after: None }
}

fn verdict(exchange: Exchange, safety: Safety) -> Outcome {
    judge(exchange, safety, &TransientStatuses::default()).0
}

fn failure(exchange: Exchange, safety: Safety) -> Failure {
    judge(exchange, safety, &TransientStatuses::default()).1
}

fn policy(delays: &[u64], jitter: f64) -> RetryPolicy {
    let delays = delays.iter().map(|&ms| Duration::from_millis(ms)).collect();
    RetryPolicy { backoff: Backoff::new(delays, jitter), statuses: TransientStatuses::default() }
}

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn attempted(exchange: Exchange) -> Attempted {
    Attempted { number: 1, safety: SAFE, deadline: Timestamp::MAX, exchange }
}

fn decided(attempted: &Attempted, policy: &RetryPolicy) -> Decision {
    decide(attempted, policy, NOW, NOW, 0.5).1
}

// The outcome table, a row a test.

#[test]
fn two_hundreds_succeed_for_safe_and_unsafe_calls() {
    for status in 200..300 {
        for safety in [SAFE, UNSAFE] {
            assert_eq!(verdict(answered(status), safety), Outcome::Success, "{status}");
        }
    }
}

#[test]
fn redirects_are_fatal_and_named() {
    for status in 300..400 {
        for safety in [SAFE, UNSAFE] {
            assert_eq!(verdict(answered(status), safety), Outcome::Fatal, "{status}");
            let failure = failure(answered(status), safety);
            assert_eq!(failure.code, FailureCode::UpstreamRedirected);
            assert_eq!(failure.reason, Reason::NotTransient);
        }
    }
}

#[test]
fn safe_calls_are_retried_after_exactly_the_transient_statuses() {
    let transient: Vec<u16> =
        (400..600).filter(|&status| verdict(answered(status), SAFE) == Outcome::Transient).collect();
    let mut expected = vec![408, 425, 429, 500, 502, 503, 504];
    expected.extend(520..=529);
    assert_eq!(transient, expected);
}

#[test]
fn unsafe_calls_are_retried_after_exactly_the_statuses_that_say_not_done() {
    let transient: Vec<u16> =
        (100..600).filter(|&status| verdict(answered(status), UNSAFE) == Outcome::Transient).collect();
    assert_eq!(transient, [408, 425, 429, 503]);
}

#[test]
fn every_other_answer_is_fatal() {
    for status in [100, 101, 199, 400, 401, 403, 404, 409, 418, 422, 499, 501, 505, 519, 530, 599, 600, 999] {
        for safety in [SAFE, UNSAFE] {
            assert_eq!(verdict(answered(status), safety), Outcome::Fatal, "{status}");
            let failure = failure(answered(status), safety);
            assert_eq!(
                (failure.code, failure.effect_unknown),
                (FailureCode::UpstreamError, false),
                "{status}"
            );
        }
    }
}

#[test]
fn calls_that_were_not_sent_are_retried_also_when_unsafe() {
    for safety in [SAFE, UNSAFE] {
        let exchange = Exchange::NotSent(NotSent::Unreachable);
        assert_eq!(verdict(exchange, safety), Outcome::Transient);
        let failure = failure(exchange, safety);
        assert_eq!((failure.code, failure.effect_unknown), (FailureCode::UpstreamUnreachable, false));
    }
}

#[test]
fn safe_calls_are_retried_when_sent_and_not_answered() {
    for (why, code) in
        [(NoAnswer::Timeout, FailureCode::UpstreamTimeout), (NoAnswer::Broken, FailureCode::UpstreamError)]
    {
        assert_eq!(verdict(Exchange::NoAnswer(why), SAFE), Outcome::Transient);
        assert_eq!(failure(Exchange::NoAnswer(why), SAFE).code, code);
    }
}

#[test]
fn an_unsafe_call_sent_and_not_answered_ends_with_its_outcome_unknown() {
    for why in [NoAnswer::Timeout, NoAnswer::Broken] {
        assert_eq!(verdict(Exchange::NoAnswer(why), UNSAFE), Outcome::Fatal);
        let expected = Failure {
            code: FailureCode::OutcomeUnknown,
            reason: Reason::NotRepeatable,
            effect_unknown: true,
        };
        assert_eq!(failure(Exchange::NoAnswer(why), UNSAFE), expected);
    }
}

#[test]
fn an_unsafe_call_answered_500_502_or_504_ends_with_that_answer_and_its_effect_unknown() {
    for status in [500, 502, 504] {
        assert_eq!(verdict(answered(status), UNSAFE), Outcome::Fatal);
        let expected =
            Failure { code: FailureCode::UpstreamError, reason: Reason::NotRepeatable, effect_unknown: true };
        assert_eq!(failure(answered(status), UNSAFE), expected);
        assert!(!failure(answered(status), SAFE).effect_unknown);
    }
}

#[test]
fn what_is_configured_as_transient_does_not_change_what_is_known_of_the_effect() {
    let only_503: TransientStatuses = serde_json::from_str("[503]").unwrap();
    let (outcome, failure) = judge(answered(500), UNSAFE, &only_503);
    assert_eq!(outcome, Outcome::Fatal);
    assert_eq!((failure.reason, failure.effect_unknown), (Reason::NotTransient, true));
}

#[test]
fn a_result_too_large_is_fatal() {
    for safety in [SAFE, UNSAFE] {
        let exchange = Exchange::TooLarge { status: 200 };
        assert_eq!(verdict(exchange, safety), Outcome::Fatal);
        assert_eq!(failure(exchange, safety).code, FailureCode::ResultTooLarge);
    }
}

#[test]
fn an_error_page_too_large_is_judged_by_its_status() {
    assert_eq!(verdict(Exchange::TooLarge { status: 503 }, SAFE), Outcome::Transient);
    assert_eq!(verdict(Exchange::TooLarge { status: 404 }, SAFE), Outcome::Fatal);
    assert_eq!(failure(Exchange::TooLarge { status: 404 }, SAFE).code, FailureCode::UpstreamError);
}

#[test]
fn the_upstreams_promise_decides_which_calls_are_repeatable() {
    use Idempotency::{Always, Key, None};
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
        assert_eq!(None.safety(&method, false), SAFE, "{method}");
    }
    for method in [Method::POST, Method::PATCH, Method::from_bytes(b"LINK").unwrap()] {
        for (promise, has_key, safety) in [
            (None, false, UNSAFE),
            (None, true, UNSAFE),
            (Key, false, UNSAFE),
            (Key, true, SAFE),
            (Always, false, SAFE),
            (Always, true, SAFE),
        ] {
            assert_eq!(promise.safety(&method, has_key), safety, "{method} {promise:?} {has_key}");
        }
    }
}

// When to try again.

#[test]
fn a_retry_follows_the_schedule() {
    let policy = policy(&[200, 1000], 0.25);
    let first = attempted(answered(503));
    assert_eq!(decided(&first, &policy), Decision::Retry { due_at: Timestamp(NOW.0 + 200) });
    let second = Attempted { number: 2, ..first };
    assert_eq!(decided(&second, &policy), Decision::Retry { due_at: Timestamp(NOW.0 + 1000) });
}

#[test]
fn after_the_last_retry_a_task_fails_with_its_last_answer() {
    let last = Attempted { number: 3, ..attempted(answered(503)) };
    let Decision::Fail(failure) = decided(&last, &policy(&[1, 1], 0.0)) else { panic!("retried") };
    assert_eq!((failure.code, failure.reason), (FailureCode::UpstreamError, Reason::RetriesExhausted));
}

#[test]
fn a_retry_waits_as_long_as_the_upstream_asked() {
    let policy = policy(&[200], 0.0);
    for retry_after in [RetryAfter::Delay(Duration::from_secs(2)), RetryAfter::At(Timestamp(NOW.0 + 2000))] {
        let asked = Exchange::Answered { status: 429, retry_after: Some(retry_after) };
        assert_eq!(decided(&attempted(asked), &policy), Decision::Retry { due_at: Timestamp(NOW.0 + 2000) });
    }
}

#[test]
fn a_shorter_wish_than_the_schedule_changes_nothing() {
    for retry_after in [RetryAfter::Delay(Duration::ZERO), RetryAfter::At(Timestamp(0))] {
        let asked = Exchange::Answered { status: 503, retry_after: Some(retry_after) };
        let decision = decided(&attempted(asked), &policy(&[200], 0.0));
        assert_eq!(decision, Decision::Retry { due_at: Timestamp(NOW.0 + 200) });
    }
}

#[test]
fn a_wish_beyond_the_deadline_ends_the_task_now() {
    let asked = Exchange::Answered { status: 429, retry_after: Some(RetryAfter::Delay(Duration::MAX)) };
    let late = Attempted { deadline: NOW.after(Duration::from_mins(50)), ..attempted(asked) };
    let Decision::Fail(failure) = decided(&late, &policy(&[200], 0.0)) else { panic!("retried") };
    assert_eq!((failure.code, failure.reason), (FailureCode::UpstreamError, Reason::DeadlineExceeded));
}

#[test]
fn a_retry_due_at_the_deadline_is_not_made() {
    for (deadline, retried) in [(200, false), (201, true)] {
        let attempted = Attempted { deadline: Timestamp(NOW.0 + deadline), ..attempted(answered(503)) };
        let decision = decided(&attempted, &policy(&[200], 0.0));
        assert_eq!(matches!(decision, Decision::Retry { .. }), retried, "{deadline}");
    }
}

#[test]
fn a_wish_is_believed_for_a_day_at_most() {
    let asked = Exchange::Answered { status: 503, retry_after: Some(RetryAfter::Delay(Duration::MAX)) };
    let decision = decided(&attempted(asked), &policy(&[200], 0.0));
    assert_eq!(decision, Decision::Retry { due_at: NOW.after(Duration::from_hours(24)) });
}

#[test]
fn a_date_is_compared_with_the_wall_clock_and_waited_by_the_steady_one() {
    let wall = Timestamp(NOW.0 + 3_600_000);
    let asked = RetryAfter::At(Timestamp(wall.0 + 5000));
    let exchange = Exchange::Answered { status: 503, retry_after: Some(asked) };
    let (_, decision) = decide(&attempted(exchange), &policy(&[1], 0.0), NOW, wall, 0.0);
    assert_eq!(decision, Decision::Retry { due_at: Timestamp(NOW.0 + 5000) });
}

#[test]
fn both_forms_of_retry_after_are_read_and_nothing_else() {
    for (text, expected) in [
        ("120", Some(RetryAfter::Delay(Duration::from_mins(2)))),
        (" 0 ", Some(RetryAfter::Delay(Duration::ZERO))),
        ("99999999999999999999999", Some(RetryAfter::Delay(Duration::from_secs(u64::MAX)))),
        ("Tue, 14 Nov 2023 22:13:20 GMT", Some(RetryAfter::At(NOW))),
        ("Tuesday, 14-Nov-23 22:13:20 GMT", Some(RetryAfter::At(NOW))),
        ("Tue Nov 14 22:13:20 2023", Some(RetryAfter::At(NOW))),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1s", None),
        ("soon", None),
        ("2023-11-14T22:13:20Z", None),
    ] {
        assert_eq!(RetryAfter::parse(text.as_bytes()), expected, "{text}");
    }
    assert_eq!(RetryAfter::parse(b"\xff"), None);
}

#[test]
fn only_error_statuses_can_be_configured_as_transient() {
    for good in ["[]", "[400, \"500-599\"]", "[\"503\"]", "[\"520 - 529\"]"] {
        assert!(serde_json::from_str::<TransientStatuses>(good).is_ok(), "{good}");
    }
    for bad in ["[200]", "[399]", "[600]", "[\"529-520\"]", "[\"500-600\"]", "[\"x\"]", "[\"-\"]", "503"] {
        assert!(serde_json::from_str::<TransientStatuses>(bad).is_err(), "{bad}");
    }
    let some: TransientStatuses = serde_json::from_str("[409, \"520-522\"]").unwrap();
    let held: Vec<u16> = (100..=600).filter(|&status| some.contains(status)).collect();
    assert_eq!(held, [409, 520, 521, 522]);
}

fn any_retry_after() -> impl Strategy<Value = Option<RetryAfter>> {
    prop_oneof![
        Just(None),
        (0u64..200_000).prop_map(|seconds| Some(RetryAfter::Delay(Duration::from_secs(seconds)))),
        (-10_000_000i64..200_000_000).prop_map(|ms| Some(RetryAfter::At(Timestamp(NOW.0 + ms)))),
        Just(Some(RetryAfter::Delay(Duration::from_secs(u64::MAX)))),
        Just(Some(RetryAfter::At(Timestamp::MAX))),
    ]
}

fn any_exchange() -> impl Strategy<Value = Exchange> {
    prop_oneof![
        Just(Exchange::NotSent(NotSent::Unreachable)),
        Just(Exchange::NoAnswer(NoAnswer::Timeout)),
        Just(Exchange::NoAnswer(NoAnswer::Broken)),
        (100u16..1000).prop_map(|status| Exchange::TooLarge { status }),
        (100u16..1000, any_retry_after())
            .prop_map(|(status, retry_after)| Exchange::Answered { status, retry_after }),
    ]
}

fn any_safety() -> impl Strategy<Value = Safety> {
    prop_oneof![Just(SAFE), Just(UNSAFE)]
}

proptest! {
    #[test]
    fn nothing_is_called_earlier_than_the_upstream_asked_nor_past_the_deadline(
        exchange in any_exchange(),
        safety in any_safety(),
        number in 1u32..9,
        delays in proptest::collection::vec(0u64..100_000_000, 0..9),
        jitter in 0.0f64..=1.0,
        chance in 0.0f64..1.0,
        deadline in 0i64..100_000_000,
    ) {
        let deadline = Timestamp(NOW.0 + deadline);
        let attempted = Attempted { number, safety, deadline, exchange };
        let (outcome, decision) = decide(&attempted, &policy(&delays, jitter), NOW, NOW, chance);
        match decision {
            Decision::Retry { due_at } => {
                prop_assert_eq!(outcome, Outcome::Transient);
                prop_assert!(due_at >= NOW);
                prop_assert!(due_at < deadline);
                if let Exchange::Answered { retry_after: Some(asked), .. } = exchange {
                    prop_assert!(NOW.until(due_at) >= asked.wait(NOW).min(RETRY_AFTER_MAX));
                }
            }
            Decision::Succeed => prop_assert_eq!(outcome, Outcome::Success),
            Decision::Fail(_) => prop_assert_ne!(outcome, Outcome::Success),
        }
    }

    #[test]
    fn attempts_are_bounded_by_the_schedule(
        exchange in any_exchange(),
        safety in any_safety(),
        delays in proptest::collection::vec(0u64..1000, 0..9),
        chance in 0.0f64..1.0,
    ) {
        let policy = policy(&delays, 0.25);
        let last = (1..50).find(|&number| {
            let attempted = Attempted { number, safety, deadline: Timestamp::MAX, exchange };
            !matches!(decide(&attempted, &policy, NOW, NOW, chance).1, Decision::Retry { .. })
        });
        prop_assert!(last.is_some_and(|last| last as usize <= delays.len() + 1));
    }

    #[test]
    fn an_unsafe_call_is_repeated_only_where_it_is_known_to_be_undone(exchange in any_exchange()) {
        if verdict(exchange, UNSAFE) == Outcome::Transient {
            let undone = match exchange {
                Exchange::NotSent(_) => true,
                Exchange::NoAnswer(_) => false,
                Exchange::Answered { status, .. } | Exchange::TooLarge { status } => {
                    REFUSED_UNDONE.contains(&status)
                }
            };
            prop_assert!(undone);
        }
    }

    #[test]
    fn no_retry_after_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = RetryAfter::parse(&bytes).map(|after| after.wait(NOW));
    }
}
