//! What a webhook URI's query asks the inbox to do: `fail`, `status`, `delay`. Pure.

use std::time::Duration;

use axum::extract::Query;
use http::{StatusCode, Uri};

const DELAY_MAX: Duration = Duration::from_mins(5);

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Orders {
    /// How many tries of each webhook are refused first.
    fail: u32,
    status: StatusCode,
    pub(super) delay: Duration,
}

impl Orders {
    /// Other parameters are ignored: they are the receiver's own.
    ///
    /// # Errors
    /// A sentence, when an order cannot be understood.
    pub(super) fn parse(uri: &Uri) -> Result<Self, String> {
        let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(uri).unwrap_or_default();
        let mut orders = Self { fail: 0, status: StatusCode::OK, delay: Duration::ZERO };
        for (name, value) in parameters {
            match name.as_str() {
                "fail" => {
                    orders.fail = value.parse().map_err(|_| "'fail' must be a whole number, such as 2.")?;
                }
                "status" => orders.status = status(&value).ok_or("'status' must be from 200 to 599.")?,
                "delay" => {
                    orders.delay =
                        delay(&value).ok_or("'delay' must be like 500ms, 2s or 2, at most 300s.")?;
                }
                _ => {}
            }
        }
        Ok(orders)
    }

    /// The answer to a webhook's `attempt`-th try, from 1.
    pub(super) fn status(&self, attempt: u32) -> StatusCode {
        if attempt <= self.fail { StatusCode::SERVICE_UNAVAILABLE } else { self.status }
    }
}

fn status(text: &str) -> Option<StatusCode> {
    text.parse()
        .ok()
        .filter(|number| (200..600).contains(number))
        .and_then(|number| StatusCode::from_u16(number).ok())
}

fn delay(text: &str) -> Option<Duration> {
    let delay = match text.strip_suffix("ms") {
        Some(millis) => Duration::from_millis(millis.parse().ok()?),
        None => Duration::from_secs(text.strip_suffix('s').unwrap_or(text).parse().ok()?),
    };
    (delay <= DELAY_MAX).then_some(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(query: &str) -> Result<Orders, String> {
        Orders::parse(&format!("/hook?{query}").parse().unwrap())
    }

    #[test]
    fn the_first_tries_fail_and_the_others_get_the_status() {
        let orders = orders("token=s3cret&fail=2&status=202").unwrap();
        assert_eq!([1, 2, 3, 4].map(|attempt| orders.status(attempt).as_u16()), [503, 503, 202, 202]);
    }

    #[test]
    fn a_delay_is_seconds_unless_it_says_milliseconds() {
        for (text, millis) in [("3", 3000), ("2s", 2000), ("500ms", 500), ("300", 300_000)] {
            assert_eq!(
                orders(&format!("delay={text}")).unwrap().delay,
                Duration::from_millis(millis),
                "{text}"
            );
        }
    }

    #[test]
    fn an_order_nobody_understands_is_refused_with_a_sentence() {
        for query in [
            "fail=some",
            "fail=-1",
            "status=99",
            "status=100",
            "status=600",
            "delay=soon",
            "delay=301",
            "delay=",
        ] {
            assert!(orders(query).unwrap_err().contains("must be"), "{query}");
        }
        assert_eq!(orders("other=fail"), orders(""));
    }
}
