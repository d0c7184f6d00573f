//! Which of our own representations a client takes (RFC 9110, 12.5.1). Pure.
//!
//! A representation that not every client understands goes only to those that name it. Invariant: an
//! `Accept` that is malformed or names nothing of ours gets what a client without one gets; nobody is
//! refused for one.

use http::{HeaderMap, header};

pub const EVENT_STREAM: &str = "text/event-stream";
pub const PROBLEM: &str = "application/problem+json";
const JSON: &str = "application/json";

/// Whether a stream of events is what the client wants most: named, with no other type before it.
#[must_use]
pub fn wants_events(headers: &HeaderMap) -> bool {
    // The first of the best: of equal ones a client writes the one it means first.
    let mut best: Option<(f32, bool)> = None;
    for (kind, parameters) in ranges(headers) {
        let quality = weight(parameters);
        if quality > 0.0 && best.is_none_or(|(other, _)| quality > other) {
            best = Some((quality, kind.eq_ignore_ascii_case(EVENT_STREAM)));
        }
    }
    best.is_some_and(|(_, is_events)| is_events)
}

/// Whether an error is to be told as a problem (RFC 9457): named, and not below plain JSON.
#[must_use]
pub fn wants_problem(headers: &HeaderMap) -> bool {
    let quality_of = |name: &str| {
        let named = ranges(headers).filter(|(kind, _)| kind.eq_ignore_ascii_case(name));
        named
            .map(|(_, parameters)| weight(parameters))
            .fold(None, |best: Option<f32>, quality| Some(best.map_or(quality, |best| best.max(quality))))
    };
    quality_of(PROBLEM)
        .is_some_and(|quality| quality > 0.0 && quality_of(JSON).is_none_or(|json| quality >= json))
}

/// The media ranges and their parameters, in order.
fn ranges(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|range| {
        let (kind, parameters) = range.split_once(';').unwrap_or((range, ""));
        (kind.trim(), parameters)
    })
}

/// One that cannot be read weighs nothing.
fn weight(parameters: &str) -> f32 {
    let named = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
    });
    let Some(value) = named else { return 1.0 };
    value.parse().ok().filter(|quality| (0.0..=1.0).contains(quality)).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accept(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (header::ACCEPT, line.parse().unwrap())).collect()
    }

    #[test]
    fn events_go_to_those_who_want_them_most() {
        for lines in [
            &["text/event-stream"][..],
            &["Text/Event-Stream; charset=utf-8"],
            &["text/event-stream, application/json"],
            &["application/json;q=0.9", "text/event-stream"],
            &["text/event-stream;q=0.2, */*;q=0.1"],
        ] {
            assert!(wants_events(&accept(lines)), "{lines:?}");
        }
        for lines in [
            &[][..],
            &[""],
            &["*/*"],
            &["text/*"],
            &["text/event-stream;q=0"],
            &["text/event-stream;q=2"],
            &["text/event-stream;q=x"],
            &["application/json, text/event-stream;q=0.9"],
            &["application/unknown"],
            &["text/event-streams"],
            &["*/*, text/event-stream"],
        ] {
            assert!(!wants_events(&accept(lines)), "{lines:?}");
        }
    }

    #[test]
    fn problems_go_to_those_who_name_them() {
        for lines in [
            &["application/problem+json"][..],
            &["application/json, application/problem+json"],
            &["application/problem+json;q=0.5, */*"],
            &["text/html", "APPLICATION/PROBLEM+JSON"],
        ] {
            assert!(wants_problem(&accept(lines)), "{lines:?}");
        }
        for lines in [
            &[][..],
            &["*/*"],
            &["application/*"],
            &["application/json"],
            &["application/problem+json;q=0"],
            &["application/problem+xml"],
            &["application/json, application/problem+json;q=0.9"],
        ] {
            assert!(!wants_problem(&accept(lines)), "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(line in "([ -~]|text/event-stream|;q=|application/problem\\+json){0,10}") {
            let headers = accept(&[&line]);
            let _ = (wants_events(&headers), wants_problem(&headers));
        }
    }
}
