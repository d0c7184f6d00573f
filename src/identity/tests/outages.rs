//! Every way in which whoever is asked can be of no help: nobody is let in, and no token is called bad.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::{FetchError, Identity, Rejection};
use super::asked::{Answer, Service, active, introspection};
use super::{NOW, config, identify, outcome};
use crate::config::{IdentityConfig, IdentityMode};

fn by_upstream() -> IdentityConfig {
    IdentityConfig {
        path: Some("/me".to_owned()),
        pointer: Some("/results/0/credentials_id".to_owned()),
        ..config(IdentityMode::Upstream)
    }
}

fn revalidated() -> IdentityConfig {
    IdentityConfig { path: Some("/me".to_owned()), revalidate: true, ..config(IdentityMode::Opaque) }
}

/// The answer a healthy service of either kind gives.
fn healthy() -> Value {
    let mut said = active(60);
    said["results"] = json!([{"credentials_id": "c-1"}]);
    said
}

/// Nothing comes of it now, and nothing of it is remembered when the service is well again.
async fn is_an_outage(config: &IdentityConfig, answer: Answer) {
    let named = format!("{:?}: {answer:?}", config.mode);
    let service =
        Service::new(move |_, number| if number == 1 { answer.clone() } else { Ok((200, healthy())) });
    let identity: Identity = service.identity(config);
    assert_eq!(identify(&identity, "t", NOW).await, Err(Rejection::Unavailable), "{named}");
    assert!(!["401", "503"].contains(&outcome(&identity, "t", NOW).await.as_str()), "{named}");
    assert_eq!(service.count(), 2, "{named}");
}

#[tokio::test]
async fn no_answer_at_all_is_an_outage_to_whoever_asks() {
    for config in [introspection(), by_upstream(), revalidated()] {
        for failure in [FetchError::Unreachable, FetchError::TimedOut, FetchError::TooLarge] {
            is_an_outage(&config, Err(failure)).await;
        }
    }
}

#[tokio::test]
async fn an_upstreams_status_other_than_200_401_and_403_is_an_outage() {
    for status in [100, 201, 204, 206, 301, 302, 307, 400, 402, 404, 407, 410, 418, 429, 500, 502, 503, 504] {
        is_an_outage(&by_upstream(), Ok((status, healthy()))).await;
    }
    // Without a pointer every 2xx says that the token is good.
    for status in [302, 400, 404, 429, 500, 503] {
        is_an_outage(&revalidated(), Ok((status, healthy()))).await;
    }
}

#[tokio::test]
async fn an_upstreams_document_without_a_fit_name_at_the_pointer_is_an_outage() {
    let named = |id: Value| json!({"results": [{"credentials_id": id}]});
    let long = "x".repeat(257);
    for said in [
        json!("john"),
        json!([{"credentials_id": "john"}]),
        json!({}),
        json!({"results": {}}),
        json!({"results": []}),
        json!({"results": ["credentials_id"]}),
        json!({"results": [{"other": "john"}]}),
        named(Value::Null),
        named(json!(true)),
        named(json!(1.5)),
        named(json!("")),
        named(json!(long)),
        named(json!(["john"])),
        named(json!({"id": "john"})),
    ] {
        is_an_outage(&by_upstream(), Ok((200, said))).await;
    }
}

#[tokio::test]
async fn an_issuers_answer_that_does_not_say_whether_the_token_is_active_is_an_outage() {
    for said in [
        json!({}),
        json!([{"active": true, "sub": "john"}]),
        json!({"sub": "john"}),
        json!({"active": null, "sub": "john"}),
        json!({"active": "true", "sub": "john"}),
        json!({"active": "false"}),
        json!({"active": 1, "sub": "john"}),
        json!({"active": 0}),
        json!({"active": [true], "sub": "john"}),
        json!({"active": {"active": true}, "sub": "john"}),
        json!({"Active": true, "sub": "john"}),
    ] {
        is_an_outage(&introspection(), Ok((200, said))).await;
    }
    for status in [201, 204, 302, 400, 401, 403, 404, 429, 500, 503] {
        is_an_outage(&introspection(), Ok((status, healthy()))).await;
        is_an_outage(&introspection(), Ok((status, json!({"active": false})))).await;
    }
}

#[tokio::test]
async fn an_issuers_date_that_is_none_is_an_outage() {
    for name in ["exp", "nbf"] {
        for date in
            [json!("1800000060"), json!("soon"), json!(-1), json!(1e300), json!(true), json!([]), json!({})]
        {
            is_an_outage(&introspection(), Ok((200, json!({"active": true, "sub": "john", name: date}))))
                .await;
        }
    }
}

/// The largest number there is is a date like any other, and the configured time is what ends the belief.
#[tokio::test]
async fn a_token_that_ends_after_all_time_is_believed_no_longer_than_configured() {
    let said = json!({"active": true, "sub": "john", "exp": u64::MAX});
    let service = Service::new(move |_, _| Ok((200, said.clone())));
    let identity = service.identity(&introspection());
    assert_eq!(outcome(&identity, "t", NOW).await, "john");
    assert_eq!(outcome(&identity, "t", NOW.after(Duration::from_mins(1))).await, "john");
    assert_eq!(service.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_ends_is_given_up_after_the_configured_time() {
    for config in [introspection(), by_upstream(), revalidated()] {
        let service = Service::closed(|_, _| Ok((200, healthy())));
        let identity = Arc::new(service.identity(&config));
        let began = tokio::time::Instant::now();
        assert_eq!(outcome(&identity, "t", NOW).await, "503");
        assert_eq!(began.elapsed(), config.timeout);
        service.gate.add_permits(1);
        assert_ne!(outcome(&identity, "t", NOW).await, "503", "the next one is asked anew");
    }
}

#[tokio::test]
async fn what_was_known_before_an_outage_is_believed_through_it_and_no_longer() {
    for config in [introspection(), by_upstream(), revalidated()] {
        let service =
            Service::new(
                |_, number| {
                    if number == 1 { Ok((200, healthy())) } else { Err(FetchError::Unreachable) }
                },
            );
        let identity = service.identity(&config);
        let id = outcome(&identity, "t", NOW).await;
        assert_eq!(outcome(&identity, "t", NOW.after(Duration::from_secs(59))).await, id);
        assert_eq!(outcome(&identity, "other", NOW).await, "503");
        assert_eq!(outcome(&identity, "t", NOW.after(Duration::from_mins(1))).await, "503");
    }
}
