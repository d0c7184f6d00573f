//! Whose a path is: pure, and nothing is ever rewritten.
//!
//! A prefix matches whole segments, byte for byte, and the longest one wins. Invariant: a path that
//! a receiving server could resolve to somewhere else than where it was routed is refused, so the
//! prefix says truly which upstream and which part of it a call can reach.

use percent_encoding::percent_decode_str;

/// Whether some receiver could read a segment of `path` as `.` or `..` (RFC 3986, 5.2.4).
///
/// Escapes are decoded once. Encoded slashes and backslashes count as separators, and what follows
/// a `;` in a segment is ignored, because there are servers that read them so.
#[must_use]
pub fn has_dot_segment(path: &str) -> bool {
    let mut segment = Segment::default();
    for byte in percent_decode_str(path) {
        match byte {
            b'/' | b'\\' => {
                if segment.is_dots() {
                    return true;
                }
                segment = Segment::default();
            }
            b';' => segment.parameters = true,
            _ if segment.parameters => {}
            b'.' => segment.dots += 1,
            _ => segment.other = true,
        }
    }
    segment.is_dots()
}

#[derive(Default)]
struct Segment {
    dots: usize,
    other: bool,
    parameters: bool,
}

impl Segment {
    fn is_dots(&self) -> bool {
        !self.other && (self.dots == 1 || self.dots == 2)
    }
}

/// What of `path` is left behind `prefix`: empty, or starting with a slash. `None` when the prefix
/// does not match. A trailing slash of the prefix means nothing.
#[must_use]
pub fn behind<'a>(prefix: &str, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// The index of the longest prefix that matches.
pub fn longest<'a>(prefixes: impl IntoIterator<Item = &'a str>, path: &str) -> Option<usize> {
    if !path.starts_with('/') {
        return None;
    }
    prefixes
        .into_iter()
        .enumerate()
        .filter(|(_, prefix)| behind(prefix, path).is_some())
        .max_by_key(|(_, prefix)| prefix.trim_end_matches('/').len())
        .map(|(index, _)| index)
}

/// A path below the results of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultsPath<'a> {
    /// As the client wrote it; whether it is a task id at all is not judged here.
    pub id: &'a str,
    /// What follows `{id}/`, where anything does.
    pub below: Option<&'a str>,
}

/// The results path in `path`, where it has an id; without one the path is the upstream's.
#[must_use]
pub fn results<'a>(prefix: &str, results_path: &str, path: &'a str) -> Option<ResultsPath<'a>> {
    let rest = behind(results_path, behind(prefix, path)?)?.strip_prefix('/')?;
    let (id, below) = match rest.split_once('/') {
        Some((id, "")) => (id, None),
        Some((id, below)) => (id, Some(below)),
        None => (rest, None),
    };
    (!id.is_empty()).then_some(ResultsPath { id, below })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_segments_match_and_the_longest_prefix_wins() {
        let prefixes = ["/", "/data", "/data/v1", "/data/v1/cards/"];
        let index = |path| longest(prefixes, path);
        assert_eq!(index("/"), Some(0));
        assert_eq!(index("/database"), Some(0));
        assert_eq!(index("/data"), Some(1));
        assert_eq!(index("/data/v10"), Some(1));
        assert_eq!(index("/data/v1/accounts"), Some(2));
        assert_eq!(index("/data/v1/cards"), Some(3));
        assert_eq!(index("/data/v1/cards/x"), Some(3));
        assert_eq!(longest(["/data"], "/other"), None);
        assert_eq!(longest(["/"], "*"), None);
        assert_eq!(longest(["/data"], "/d%61ta"), None);
    }

    #[test]
    fn dot_segments_are_seen_in_every_spelling() {
        for path in [
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a/%2e%2e/b",
            "/a/.%2E",
            "/%2E./",
            "/a/%2e/b",
            "/a%2f..%2fb",
            "/a/..%2F",
            "/a/..%5cb",
            "/a\\..\\b",
            "/a/..;x=1/b",
            "/a/%2e%2e%3bx/b",
            "/a/.;/b",
        ] {
            assert!(has_dot_segment(path), "{path}");
        }
    }

    #[test]
    fn dots_inside_longer_segments_are_no_dot_segments() {
        for path in [
            "/",
            "",
            "/...",
            "/a.b/c",
            "/.well-known/jwks",
            "/..a",
            "/a..",
            "/%2e%2ea",
            "/a;..",
            "/x%252e/",
            "//",
        ] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }

    #[test]
    fn only_a_results_path_with_an_id_is_ours() {
        let of = |path| results("/data/v1", "/results", path);
        let found = |id, below| Some(ResultsPath { id, below });
        assert_eq!(of("/data/v1/results/7"), found("7", None));
        assert_eq!(of("/data/v1/results/7/"), found("7", None));
        assert_eq!(of("/data/v1/results/7/response"), found("7", Some("response")));
        assert_eq!(of("/data/v1/results/7//"), found("7", Some("/")));
        for path in [
            "/data/v1/results",
            "/data/v1/results/",
            "/data/v1/results//7",
            "/data/v1/resultsx/7",
            "/results/7",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
        assert_eq!(results("/", "/results", "/results/7"), found("7", None));
    }

    proptest! {
        #[test]
        fn what_is_behind_a_prefix_completes_it(prefix in "(/[a-z]{1,3}){0,3}", path in "(/[a-z]{0,3}){0,5}") {
            if let Some(rest) = behind(&prefix, &path) {
                prop_assert_eq!(format!("{prefix}{rest}"), path);
            }
        }

        #[test]
        fn a_dot_segment_between_any_others_is_found(
            before in "(/[a-z.]{1,4}){0,3}",
            dots in "(\\.|%2e|%2E){1,2}",
            open in "(/|\\\\|%2f|%5C)",
            after in "((/|%2F|%5c|;)[a-z]{0,4})?",
        ) {
            let path = format!("{before}{open}{dots}{after}");
            prop_assert!(has_dot_segment(&path), "{}", path);
        }

        #[test]
        fn paths_without_dots_have_no_dot_segment(path in "[^.%]{0,40}(%2[0-9a-d]|%5[0-9]){0,4}") {
            prop_assert!(!has_dot_segment(&path));
        }

        #[test]
        fn the_winner_matches_and_no_longer_prefix_does(
            prefixes in prop::collection::vec("(/[ab]{1,2}){0,3}", 0..6),
            path in "(/[ab]{1,2}){1,5}",
        ) {
            let winner = longest(prefixes.iter().map(String::as_str), &path);
            let longest_match =
                prefixes.iter().filter(|prefix| behind(prefix, &path).is_some()).map(String::len).max();
            prop_assert_eq!(winner.map(|index| prefixes[index].len()), longest_match);
        }
    }
}
