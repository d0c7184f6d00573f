//! The two parameters of ours in a query: found, judged and cut out.
//!
//! Invariant: every byte that is not part of one of them, or the `&` beside it, reaches the upstream
//! as it came. Whether a webhook URI may be called is not judged here.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::refusal::Refusal;

/// What the query asks of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    Proxy,
    /// With the webhook URI, percent-decoded once, where there is one.
    Task {
        webhook_uri: Option<String>,
    },
}

/// A query judged and cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut<'a> {
    pub mode: Mode,
    /// What is left; `None` where nothing is, so that no `?` is left either.
    pub query: Option<Cow<'a, str>>,
}

/// Judges `async` and `webhook_uri` and cuts them out. Names are compared after percent-decoding.
/// Without `async` the query is not touched.
///
/// # Errors
/// [`Refusal::Invalid`] naming the parameter: a value of `async` that is neither true nor false, either parameter
/// twice, or a webhook URI that is not percent-encoded UTF-8.
pub fn cut(query: Option<&str>) -> Result<Cut<'_>, Refusal> {
    judge(query, false)
}

/// As [`cut`], for a call that prefers to be made a task (`Prefer: respond-async`): where there is no
/// `async`, it is as if `async=true` were there.
///
/// # Errors
/// As [`cut`].
pub fn cut_preferring_a_task(query: Option<&str>) -> Result<Cut<'_>, Refusal> {
    judge(query, true)
}

fn judge(query: Option<&str>, prefers_a_task: bool) -> Result<Cut<'_>, Refusal> {
    let Some(text) = query else {
        let mode = if prefers_a_task { Mode::Task { webhook_uri: None } } else { Mode::Proxy };
        return Ok(Cut { mode, query: None });
    };
    let mut asynchronous = Found::default();
    let mut webhook_uri = Found::default();
    let mut others = false;
    for piece in pieces(text) {
        match ours(piece) {
            Some(Ours::Async) => asynchronous.add(value(piece)),
            Some(Ours::WebhookUri) => webhook_uri.add(value(piece)),
            None => others = true,
        }
    }
    let wish = asynchronous.once("async")?;
    if wish.is_none() && !prefers_a_task {
        return Ok(Cut { mode: Mode::Proxy, query: Some(Cow::Borrowed(text)) });
    }
    let webhook_uri = webhook_uri.once("webhook_uri")?;
    let mode = if wish.map_or(Ok(true), is_asynchronous)? {
        Mode::Task { webhook_uri: webhook_uri.map(decode).transpose()? }
    } else {
        Mode::Proxy
    };
    let left = others.then(|| without_ours(text)).flatten();
    Ok(Cut { mode, query: left.map(Cow::Owned) })
}

fn pieces(query: &str) -> impl Iterator<Item = &str> {
    let ends = memchr::memchr_iter(b'&', query.as_bytes()).chain([query.len()]);
    ends.scan(0, move |begin, end| Some(&query[std::mem::replace(begin, end + 1)..end]))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ours {
    Async,
    WebhookUri,
}

/// Occurrences of one parameter.
#[derive(Default)]
struct Found<'a> {
    value: Option<&'a str>,
    again: bool,
}

impl<'a> Found<'a> {
    fn add(&mut self, value: &'a str) {
        self.again = self.value.is_some();
        self.value = Some(value);
    }

    fn once(self, name: &str) -> Result<Option<&'a str>, Refusal> {
        if self.again {
            return Err(Refusal::Invalid(format!(
                "The parameter {name} is there more than once; send it once."
            )));
        }
        Ok(self.value)
    }
}

fn ours(piece: &str) -> Option<Ours> {
    let name = halves(piece).0;
    // Only an escaped name needs decoding, and few are.
    let is_escaped = name.bytes().any(|byte| byte == b'%');
    let name: Cow<[u8]> =
        if is_escaped { percent_decode_str(name).into() } else { Cow::Borrowed(name.as_bytes()) };
    match name.as_ref() {
        b"async" => Some(Ours::Async),
        b"webhook_uri" => Some(Ours::WebhookUri),
        _ => None,
    }
}

fn value(piece: &str) -> &str {
    halves(piece).1
}

/// What stands before the first `=` and behind it.
fn halves(piece: &str) -> (&str, &str) {
    let end = memchr::memchr(b'=', piece.as_bytes());
    end.map_or((piece, ""), |end| (&piece[..end], &piece[end + 1..]))
}

fn is_asynchronous(value: &str) -> Result<bool, Refusal> {
    let value = percent_decode_str(value).decode_utf8_lossy();
    if value.eq_ignore_ascii_case("true") {
        Ok(true)
    } else if value.eq_ignore_ascii_case("false") {
        Ok(false)
    } else {
        Err(Refusal::Invalid(String::from("The parameter async must be true or false.")))
    }
}

/// Decodes a webhook URI once; a `+` stays a `+`.
fn decode(value: &str) -> Result<String, Refusal> {
    let refusal = || {
        Refusal::Invalid(String::from(
            "The parameter webhook_uri must be percent-encoded UTF-8; encode the whole address once.",
        ))
    };
    let bytes = value.as_bytes();
    let escapes_are_whole = memchr::memchr_iter(b'%', bytes).all(|at| {
        let digits = bytes.get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if !escapes_are_whole {
        return Err(refusal());
    }
    percent_decode_str(value).decode_utf8().map(Cow::into_owned).map_err(|_| refusal())
}

fn without_ours(text: &str) -> Option<String> {
    let mut left = String::with_capacity(text.len());
    let mut first = true;
    for piece in pieces(text).filter(|piece| ours(piece).is_none()) {
        if !first {
            left.push('&');
        }
        first = false;
        left.push_str(piece);
    }
    (!left.is_empty()).then_some(left)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut_of(query: &str) -> (Mode, Option<String>) {
        let cut = cut(Some(query)).unwrap();
        (cut.mode, cut.query.map(Cow::into_owned))
    }

    fn task(webhook_uri: Option<&str>) -> Mode {
        Mode::Task { webhook_uri: webhook_uri.map(String::from) }
    }

    fn left(query: &str) -> Option<String> {
        (!query.is_empty()).then(|| String::from(query))
    }

    fn refused(query: &str) -> String {
        let refusal = cut(Some(query)).unwrap_err();
        assert_eq!(refusal.code(), "validation_error");
        refusal.to_string()
    }

    #[test]
    fn exactly_our_parameters_are_cut_out() {
        assert_eq!(cut_of("async=true"), (task(None), None));
        assert_eq!(cut_of("from=1&async=TRUE&to=2"), (task(None), left("from=1&to=2")));
        assert_eq!(cut_of("a&&async=true&=&b=%2f+%zz&"), (task(None), left("a&&=&b=%2f+%zz&")));
        assert_eq!(cut_of("%61sync=tr%75e&x"), (task(None), left("x")));
        assert_eq!(cut_of("asynch=1&xasync=true&async=true"), (task(None), left("asynch=1&xasync=true")));
    }

    #[test]
    fn the_webhook_uri_is_decoded_once_and_keeps_its_plus() {
        let query = "webhook_uri=https%3A%2F%2Fa.example%2F%3Fs%3D1%252B%2B+&async=true";
        assert_eq!(cut_of(query), (task(Some("https://a.example/?s=1%2B++")), None));
        assert_eq!(cut_of("async=true&webhook_uri=https://a/?b=c"), (task(Some("https://a/?b=c")), None));
        assert_eq!(cut_of("async=true&webhook_uri"), (task(Some("")), None));
    }

    #[test]
    fn async_false_proxies_with_both_removed() {
        assert_eq!(cut_of("a=1&async=False&webhook_uri=%zz"), (Mode::Proxy, left("a=1")));
    }

    #[test]
    fn without_async_nothing_is_touched() {
        assert_eq!(cut(None).unwrap(), Cut { mode: Mode::Proxy, query: None });
        for query in ["", "webhook_uri=x&webhook_uri=y", "Async=true", "as%79nch=true"] {
            assert_eq!(cut_of(query), (Mode::Proxy, Some(String::from(query))), "{query}");
        }
    }

    #[test]
    fn a_preference_is_as_good_as_async_true_and_async_is_stronger() {
        let cut = |query| cut_preferring_a_task(query).unwrap();
        let is = |query, mode, left: Option<&str>| {
            assert_eq!(
                cut(query),
                Cut { mode, query: left.map(|left| Cow::Owned(left.into())) },
                "{query:?}"
            );
        };
        is(None, task(None), None);
        is(Some(""), task(None), None);
        is(Some("a=1&webhook_uri=https%3A%2F%2Fa/&b"), task(Some("https://a/")), Some("a=1&b"));
        is(Some("a=1&async=false&webhook_uri=x"), Mode::Proxy, Some("a=1"));
        for query in ["async=maybe", "webhook_uri=a&webhook_uri=b", "webhook_uri=%zz"] {
            assert_eq!(cut_preferring_a_task(Some(query)).unwrap_err().code(), "validation_error");
        }
    }

    #[test]
    fn other_values_and_repetitions_are_refused_by_name() {
        for query in [
            "async=maybe",
            "async",
            "async=",
            "async=1",
            "async=true%00",
            "async=true&%61sync=true",
            "async=true&async=false",
        ] {
            assert!(refused(query).contains("async"), "{query}");
        }
        for query in [
            "async=true&webhook_uri=a&webhook_uri=b",
            "async=false&webhook_uri=a&%77ebhook_uri=b",
            "async=true&webhook_uri=%",
            "async=true&webhook_uri=%4",
            "async=true&webhook_uri=%zz",
            "async=true&webhook_uri=%+1",
            "async=true&webhook_uri=%ff",
        ] {
            assert!(refused(query).contains("webhook_uri"), "{query}");
        }
    }

    proptest! {
        #[test]
        fn every_other_byte_survives_in_order(
            before in prop::collection::vec("[ -%'-~]{0,8}", 0..4),
            between in prop::collection::vec("[ -%'-~]{0,8}", 0..4),
            after in prop::collection::vec("[ -%'-~]{0,8}", 0..4),
            asynchronous in "(async|%61sync|asyn%63)=([tT][rR][uU][eE])",
        ) {
            let others: Vec<String> = [before.clone(), between.clone(), after.clone()].concat();
            prop_assume!(others.iter().all(|piece| ours(piece).is_none()));
            let query = [before, vec![asynchronous], between, vec![String::from("webhook_uri=x")], after].concat().join("&");
            prop_assert_eq!(cut_of(&query), (task(Some("x")), left(&others.join("&"))));
        }

        #[test]
        fn cutting_again_changes_nothing(query in "([ab&=%+;]|async=true&|async|webhook_uri=%41|%){0,12}") {
            if let Ok(Cut { query: Some(once), .. }) = cut(Some(&query)) {
                prop_assert_eq!(cut(Some(&once)).unwrap(), Cut { mode: Mode::Proxy, query: Some(Cow::Borrowed(once.as_ref())) });
            }
        }

        #[test]
        fn a_percent_encoded_webhook_uri_comes_back(uri in "\\PC{0,40}") {
            let encoded = percent_encoding::utf8_percent_encode(&uri, percent_encoding::NON_ALPHANUMERIC);
            let query = format!("async=true&webhook_uri={encoded}");
            prop_assert_eq!(cut_of(&query), (task(Some(&uri)), None));
        }
    }
}
