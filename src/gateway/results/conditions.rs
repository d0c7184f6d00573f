//! Whether a client has what it asks for already (RFC 9110, 13). Pure.
//!
//! A result never changes, so its validators are strong ones. A validator that cannot be read never
//! matches.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, header};

/// What the conditions of a call come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Send,
    NotModified,
    Failed,
}

/// Judges the conditions of a `GET` or `HEAD` in the order of RFC 9110, 13.2.2, against the header
/// section of the answer it would get.
#[must_use]
pub fn judge(request: &HeaderMap, answer: &HeaderMap) -> Verdict {
    let tag = answer.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    let modified = date(answer, &header::LAST_MODIFIED);
    if request.contains_key(header::IF_MATCH) {
        if !names(request, &header::IF_MATCH, tag, strongly_equal) {
            return Verdict::Failed;
        }
    } else if let (Some(limit), Some(modified)) = (date(request, &header::IF_UNMODIFIED_SINCE), modified)
        && modified > limit
    {
        return Verdict::Failed;
    }
    let had = if request.contains_key(header::IF_NONE_MATCH) {
        names(request, &header::IF_NONE_MATCH, tag, weakly_equal)
    } else {
        let since = date(request, &header::IF_MODIFIED_SINCE);
        since.zip(modified).is_some_and(|(since, modified)| modified <= since)
    };
    if had { Verdict::NotModified } else { Verdict::Send }
}

/// Whether `Range` may be honoured: without `If-Range`, or if that names exactly this answer.
#[must_use]
pub fn range_applies(request: &HeaderMap, answer: &HeaderMap) -> bool {
    let Some(validator) = request.get(header::IF_RANGE) else { return true };
    let Ok(validator) = validator.to_str() else { return false };
    let validator = validator.trim();
    if validator.starts_with(['"', 'W']) && validator.ends_with('"') {
        let tag = answer.get(header::ETAG).and_then(|tag| tag.to_str().ok());
        return tag.is_some_and(|tag| strongly_equal(validator, tag));
    }
    let wanted = httpdate::parse_http_date(validator).ok();
    wanted.is_some() && wanted == date(answer, &header::LAST_MODIFIED)
}

/// Whether a list of tags has one equal to `tag`, or is `*`.
fn names(headers: &HeaderMap, name: &HeaderName, tag: Option<&str>, equal: fn(&str, &str) -> bool) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.into_iter().any(|line| {
        line.trim() == "*" || tag.is_some_and(|tag| tags(line).any(|candidate| equal(candidate, tag)))
    })
}

/// The entity tags of a list. A tag can hold commas, so they are read quote by quote.
fn tags(mut line: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let start = line.find('"')?;
        let end = start + 1 + line[start + 1..].find('"')?;
        let weak = start >= 2 && line.as_bytes()[..start].ends_with(b"W/");
        let tag = &line[if weak { start - 2 } else { start }..=end];
        line = &line[end + 1..];
        Some(tag)
    })
}

fn strongly_equal(one: &str, other: &str) -> bool {
    one == other && !one.starts_with("W/")
}

fn weakly_equal(one: &str, other: &str) -> bool {
    one.strip_prefix("W/").unwrap_or(one) == other.strip_prefix("W/").unwrap_or(other)
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EARLY: &str = "Sat, 29 Oct 1994 19:43:31 GMT";
    const LATE: &str = "Sun, 30 Oct 1994 19:43:31 GMT";

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn verdict(request: &[(HeaderName, &str)]) -> Verdict {
        judge(&headers(request), &headers(&[(header::ETAG, "\"a,b\""), (header::LAST_MODIFIED, EARLY)]))
    }

    #[test]
    fn a_client_that_has_it_is_told_so() {
        for value in ["\"a,b\"", "*", "\"x\", \"a,b\"", "W/\"a,b\"", "\"x\",W/\"a,b\" "] {
            assert_eq!(verdict(&[(header::IF_NONE_MATCH, value)]), Verdict::NotModified, "{value}");
        }
        for value in [EARLY, LATE] {
            assert_eq!(verdict(&[(header::IF_MODIFIED_SINCE, value)]), Verdict::NotModified, "{value}");
        }
    }

    #[test]
    fn a_client_that_has_another_or_speaks_unclearly_gets_it() {
        for value in ["\"x\"", "a,b", "\"a,b", "", "\"a\",\"b\""] {
            assert_eq!(verdict(&[(header::IF_NONE_MATCH, value)]), Verdict::Send, "{value}");
        }
        for value in ["Fri, 28 Oct 1994 19:43:31 GMT", "yesterday", ""] {
            assert_eq!(verdict(&[(header::IF_MODIFIED_SINCE, value)]), Verdict::Send, "{value}");
        }
        let both = [(header::IF_NONE_MATCH, "\"x\""), (header::IF_MODIFIED_SINCE, LATE)];
        assert_eq!(verdict(&both), Verdict::Send, "the tag decides alone");
    }

    #[test]
    fn a_condition_that_does_not_hold_fails() {
        for value in ["\"x\"", "W/\"a,b\"", "nonsense"] {
            assert_eq!(verdict(&[(header::IF_MATCH, value)]), Verdict::Failed, "{value}");
        }
        for value in ["*", "\"a,b\""] {
            assert_eq!(verdict(&[(header::IF_MATCH, value)]), Verdict::Send, "{value}");
        }
        let before = "Fri, 28 Oct 1994 19:43:31 GMT";
        assert_eq!(verdict(&[(header::IF_UNMODIFIED_SINCE, before)]), Verdict::Failed);
        assert_eq!(verdict(&[(header::IF_UNMODIFIED_SINCE, LATE)]), Verdict::Send);
    }

    #[test]
    fn a_range_applies_to_exactly_the_answer_it_was_meant_for() {
        let answer = headers(&[(header::ETAG, "\"v1\""), (header::LAST_MODIFIED, EARLY)]);
        let applies = |value| range_applies(&headers(&[(header::IF_RANGE, value)]), &answer);
        assert!(range_applies(&HeaderMap::new(), &answer));
        assert!(applies("\"v1\"") && applies(EARLY));
        for value in ["\"v2\"", "W/\"v1\"", LATE, "v1", ""] {
            assert!(!applies(value), "{value}");
        }
        let weak = headers(&[(header::ETAG, "W/\"v1\"")]);
        assert!(!range_applies(&headers(&[(header::IF_RANGE, "W/\"v1\"")]), &weak));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(value in "([ -~]|\"|W/){0,20}") {
            for name in [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE] {
                let _ = verdict(&[(name, &value)]);
            }
            let _ = range_applies(&headers(&[(header::IF_RANGE, &value)]), &headers(&[(header::ETAG, "\"a\"")]));
        }

        #[test]
        fn a_tag_is_found_among_any_others(others in prop::collection::vec("[a-z,]{0,4}", 0..4), at: prop::sample::Index, weak: bool) {
            let mut list: Vec<String> = others.iter().map(|tag| format!("\"{tag}\"")).collect();
            let tag = format!("{}\"a,b\"", if weak { "W/" } else { "" });
            list.insert(at.index(list.len() + 1), tag);
            prop_assert_eq!(verdict(&[(header::IF_NONE_MATCH, &list.join(", "))]), Verdict::NotModified);
        }
    }
}
