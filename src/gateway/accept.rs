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

/// Whether an error is to be told as a problem (RFC 9457): named, and wanted no less than plain JSON.
#[must_use]
pub fn wants_problem(headers: &HeaderMap) -> bool {
    names_problem(ranges(headers))
}

/// As [`wants_problem`], of a head that never became a request.
#[must_use]
pub fn wants_problem_in<'h>(lines: impl Iterator<Item = &'h str>) -> bool {
    names_problem(ranges_of(lines))
}

/// Plain JSON is wanted as much as the most specific range says that it matches (RFC 9110, 12.5.1).
fn names_problem<'h>(ranges: impl Iterator<Item = (&'h str, &'h str)>) -> bool {
    let mut problem: Option<f32> = None;
    let mut json: [Option<f32>; 3] = [None; 3];
    for (kind, parameters) in ranges {
        let matching =
            [JSON, "application/*", "*/*"].iter().position(|range| kind.eq_ignore_ascii_case(range));
        let wanted = match matching {
            Some(index) => &mut json[index],
            None if kind.eq_ignore_ascii_case(PROBLEM) => &mut problem,
            None => continue,
        };
        *wanted = Some(wanted.unwrap_or(0.0).max(weight(parameters)));
    }
    let json = json.into_iter().flatten().next().unwrap_or(0.0);
    problem.is_some_and(|problem| problem > 0.0 && problem >= json)
}

/// The media ranges and their parameters, in order.
fn ranges(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    ranges_of(headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok()))
}

fn ranges_of<'h>(lines: impl Iterator<Item = &'h str>) -> impl Iterator<Item = (&'h str, &'h str)> {
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
            &["application/problem+json, application/*, */*"],
            &["application/problem+json;q=0.5, application/*;q=0.5"],
            &["application/problem+json;q=0.5, application/json;q=0.1, application/*, */*"],
            &["application/json;q=0, application/problem+json;q=0.001"],
            &["application/problem+json;q=0.2, application/problem+json;q=0.9, application/json;q=0.5"],
            &["text/html", "APPLICATION/PROBLEM+JSON"],
            &["application/problem+json; charset=utf-8 ; Q=0.9, text/html"],
            &["application/json;q=x, application/problem+json;q=0.1"],
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
            &["application/problem+json;q=0.5, */*"],
            &["application/problem+json;q=0.5, application/*;q=0.6, */*;q=0.1"],
            &["*/*;q=0, application/json, application/problem+json;q=0.9"],
            &["application/problem+json;q=x"],
            &["application/problem+json;q=1.1"],
            &["application/unknown"],
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
