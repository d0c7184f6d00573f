//! What a webhook URI's query asks the inbox to do: `fail`, `status`, `delay`, `header`. Pure.

use std::time::Duration;

use axum::extract::Query;
use http::{HeaderName, HeaderValue, StatusCode, Uri, header};

const DELAY_MAX: Duration = Duration::from_mins(5);

/// The server's own: another value would break the answer.
const NOT_ORDERED: [HeaderName; 3] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Orders {
    /// How many tries of each webhook are refused first.
    fail: u32,
    status: StatusCode,
    pub(super) delay: Duration,
    /// Of the answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Orders {
    /// Other parameters are ignored: they are the receiver's own.
    ///
    /// # Errors
    /// A sentence, when an order cannot be understood.
    pub(super) fn parse(uri: &Uri) -> Result<Self, String> {
        let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(uri).unwrap_or_default();
        let mut orders = Self { fail: 0, status: StatusCode::OK, delay: Duration::ZERO, headers: Vec::new() };
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
                "header" => {
                    let sentence = "'header' must be like Content-Language:de, and not about the connection.";
                    orders.headers.push(header_of(&value).ok_or(sentence)?);
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

fn header_of(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    let name = name.parse().ok().filter(|name| !NOT_ORDERED.contains(name))?;
    Some((name, value.trim().parse().ok()?))
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
    fn a_header_is_a_name_and_a_value() {
        let headers = orders("header=Etag:%22a%22&header=X-Total:+7").unwrap().headers;
        let texts: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(texts, [("etag", b"\"a\"".as_slice()), ("x-total", b"7".as_slice())]);
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
            "header=etag",
            "header=two+words:1",
            "header=a:b%0Ac",
            "header=Content-Length:1",
        ] {
            assert!(orders(query).unwrap_err().contains("must be"), "{query}");
        }
        assert_eq!(orders("other=fail"), orders(""));
    }
}
