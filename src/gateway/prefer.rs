//! What a client would rather have (RFC 7240). Pure.
//!
//! Invariant: a preference that is malformed, unknown or repeated changes nothing; nobody is refused for
//! one.

use http::HeaderMap;

use super::hop;

/// Of the preferences of a call, those that are for us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// `respond-async`: a task rather than a wait.
    pub respond_async: bool,
    /// `wait`, in seconds, as asked for.
    pub wait: Option<u64>,
}

impl Preferences {
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let lines = headers.get_all("prefer").iter().filter_map(|line| line.to_str().ok());
        Self::read(lines)
    }

    fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        let (mut seen_async, mut seen_wait) = (false, false);
        for member in lines.flat_map(hop::members) {
            let (name, value) = name_and_value(member);
            // Of a preference that is there more than once the first one counts (RFC 7240, 2).
            if name.eq_ignore_ascii_case("respond-async") {
                found.respond_async |= !seen_async && value.is_empty();
                seen_async = true;
            } else if name.eq_ignore_ascii_case("wait") {
                if !seen_wait {
                    found.wait = seconds(value);
                }
                seen_wait = true;
            }
        }
        found
    }
}

/// A preference without its parameters; a quoted value without its quotes, an empty one as none.
fn name_and_value(member: &str) -> (&str, &str) {
    let preference = member.split(';').next().unwrap_or_default();
    let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
    let value = value.trim();
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    (name.trim(), unquoted.unwrap_or(value))
}

/// `delta-seconds`; more than can be counted is as many as can be.
fn seconds(value: &str) -> Option<u64> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| value.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(lines: &[&str]) -> (bool, Option<u64>) {
        let Preferences { respond_async, wait } = Preferences::read(lines.iter().copied());
        (respond_async, wait)
    }

    #[test]
    fn both_preferences_are_understood_in_every_spelling() {
        assert_eq!(read(&["respond-async, wait=10"]), (true, Some(10)));
        assert_eq!(read(&["Wait = 5 ; x=y", "RESPOND-ASYNC;a=\"b,c\""]), (true, Some(5)));
        assert_eq!(read(&["handling=lenient,,respond-async=\"\" , wait=\"7\""]), (true, Some(7)));
        assert_eq!(read(&["wait=99999999999999999999999"]), (false, Some(u64::MAX)));
        assert_eq!(read(&["wait=0"]), (false, Some(0)));
    }

    #[test]
    fn malformed_and_foreign_preferences_are_ignored() {
        for line in [
            "",
            ",;=",
            "wait",
            "wait=",
            "wait=-1",
            "wait=1.5",
            "wait=+1",
            "wait=1s",
            "wait=\"1",
            "waiting=3",
            "respond-async=1",
            "respond-asynchronously",
            "note=\"respond-async, wait=1\"",
            "note=\"\\\", wait=1\"",
        ] {
            assert_eq!(read(&[line]), (false, None), "{line}");
        }
    }

    #[test]
    fn the_first_of_several_counts() {
        assert_eq!(read(&["wait=1, wait=2", "wait=3"]), (false, Some(1)));
        assert_eq!(read(&["wait=x, wait=2"]), (false, None));
        assert_eq!(read(&["respond-async=no, respond-async"]), (false, None));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(lines in prop::collection::vec("([ -~]|wait|respond-async|[=,;\"]){0,12}", 0..4)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let _ = read(&lines);
        }

        #[test]
        fn any_number_of_seconds_comes_back_among_any_others(
            wait: u32,
            before in "([a-u]{1,5}(=[a-z]{1,3})?,){0,3}",
            after in "(,[a-u]{1,5}(;[a-z]{1,3})?){0,3}",
        ) {
            prop_assert_eq!(read(&[&format!("{before}wait={wait}{after}")]), (false, Some(u64::from(wait))));
        }
    }
}
