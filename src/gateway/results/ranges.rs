//! Which bytes of a result a client wants (RFC 9110, 14). Pure.
//!
//! Invariant: what comes back is the whole, or slices of it, or the news that there are none; a
//! `Range` that is malformed, of another unit, or greedy is as good as none.

use std::ops::Range;

/// More ranges than this in one call are ignored (RFC 9110, 14.2 allows it): each costs a read.
const MOST: usize = 16;

/// What of a representation to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Whole,
    /// At least one; none is empty; each within the length.
    Parts(Vec<Range<u64>>),
    /// Well said, but nothing is there.
    Unsatisfiable,
}

/// What a `Range` field asks for of a representation of `length` bytes.
#[must_use]
pub fn wanted(field: &str, length: u64) -> Wanted {
    let Some((unit, set)) = field.split_once('=') else { return Wanted::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Wanted::Whole;
    }
    let specs: Vec<&str> = set.split(',').map(str::trim).filter(|spec| !spec.is_empty()).collect();
    if specs.is_empty() || specs.len() > MOST {
        return Wanted::Whole;
    }
    let mut parts = Vec::with_capacity(specs.len());
    for spec in specs {
        match resolve(spec, length) {
            None => return Wanted::Whole,
            Some(part) if part.is_empty() => {}
            Some(part) => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Wanted::Unsatisfiable;
    }
    // Ranges that overlap can ask for the whole many times over.
    let asked = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.end - part.start));
    if parts.len() > 1 && asked > length { Wanted::Whole } else { Wanted::Parts(parts) }
}

/// The bytes of one range: empty where it lies beyond the end, `None` where it is malformed.
fn resolve(spec: &str, length: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        return Some(length.saturating_sub(number(last)?)..length);
    }
    let first = number(first)?;
    let end = if last.is_empty() { length } else { number(last)?.saturating_add(1) };
    // An end before the start makes the range malformed, not unsatisfiable. Numbers beyond counting
    // are all the same one.
    if !last.is_empty() && end <= first && first != u64::MAX {
        return None;
    }
    Some(first.min(length)..end.min(length))
}

/// More than can be counted is as many as can be.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_range_is_resolved_against_the_length() {
        for (field, part) in [
            ("bytes=0-4", 0..5),
            ("bytes=5-", 5..10),
            ("bytes=-3", 7..10),
            ("bytes=-99", 0..10),
            ("bytes=8-99", 8..10),
            ("bytes=9-9", 9..10),
            ("BYTES = 0-0", 0..1),
            ("bytes=0-99999999999999999999999", 0..10),
        ] {
            assert_eq!(wanted(field, 10), Wanted::Parts(vec![part]), "{field}");
        }
    }

    #[test]
    fn several_ranges_come_in_the_order_asked_for() {
        assert_eq!(wanted("bytes=5-6,0-0 , -1", 10), Wanted::Parts(vec![5..7, 0..1, 9..10]));
        assert_eq!(wanted("bytes=99-,5-6,0-0", 10), Wanted::Parts(vec![5..7, 0..1]), "the rest is not there");
    }

    #[test]
    fn what_is_not_there_is_unsatisfiable() {
        for field in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99-100,11-"] {
            assert_eq!(wanted(field, 10), Wanted::Unsatisfiable, "{field}");
        }
        assert_eq!(wanted("bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(wanted("bytes=-5", 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn what_is_malformed_foreign_or_greedy_is_ignored() {
        let many = format!("bytes={}", "0-0,".repeat(MOST + 1));
        for field in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=,",
            "bytes=a-b",
            "bytes=1",
            "bytes=5-4",
            "bytes=+1-2",
            "bytes=1--2",
            "bytes=0-1,x",
            "items=0-1",
            "bytes=0-,0-",
            "bytes=0-5,5-9",
            &many,
        ] {
            assert_eq!(wanted(field, 10), Wanted::Whole, "{field}");
        }
    }

    proptest! {
        #[test]
        fn parts_are_never_empty_out_of_bounds_or_more_than_the_whole(
            field in "(bytes=)?([0-9]{0,3}-[0-9]{0,3},?){0,20}",
            length in 0u64..500,
        ) {
            if let Wanted::Parts(parts) = wanted(&field, length) {
                prop_assert!(!parts.is_empty());
                prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
                prop_assert!(parts.iter().map(|part| part.end - part.start).sum::<u64>() <= length);
            }
        }

        #[test]
        fn a_range_is_the_slice_its_numbers_name(first in 0usize..300, more in 0usize..300, length in 1usize..200) {
            let last = first + more;
            let whole: Vec<usize> = (0..length).collect();
            let slice: Vec<usize> = whole.iter().copied().filter(|at| (first..=last).contains(at)).collect();
            let found = match wanted(&format!("bytes={first}-{last}"), length as u64) {
                Wanted::Parts(parts) => parts.into_iter().flatten().map(|at| usize::try_from(at).unwrap()).collect(),
                Wanted::Unsatisfiable => Vec::new(),
                Wanted::Whole => return Err(TestCaseError::fail("a good range was ignored")),
            };
            prop_assert_eq!(found, slice);
        }

        #[test]
        fn any_text_is_read_without_harm(field in "[ -~]{0,30}", length: u64) {
            let _ = wanted(&field, length);
            let _ = wanted(&format!("bytes={field}"), length);
        }
    }
}
