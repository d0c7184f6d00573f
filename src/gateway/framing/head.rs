//! One HTTP/1.1 request head, read strictly (RFC 9112, 2 to 6): pure.
//!
//! Invariant: a head that passes means one thing to every parser, and [`Head::body`] is where its
//! message ends. What lenient parsers repair is refused: bare line feeds, folded lines, whitespace
//! before a colon, control characters, two lengths, a length beside a transfer coding.

use http::Uri;
use memchr::memchr;

use crate::gateway::accept;
use crate::gateway::refusal::{Form, Refusal};

/// Lines of one head; the parser behind us has room for as many.
pub const MAX_LINES: usize = 100;

/// What framing needs to know of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub body: Body,
    /// The connection may stop to be HTTP/1.1 after the answer.
    pub upgrade: bool,
}

/// How the end of a body is found (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes, 0 where nothing is declared.
    Length(u64),
    Chunked,
}

/// Reads a whole head, its empty last line included.
///
/// # Errors
/// The answer to a head that cannot be read in one way only.
pub fn read(head: &[u8]) -> Result<Head, Refusal> {
    let mut lines = Lines(head);
    let request_line = lines.next().ok_or_else(|| malformed("request line"))?;
    let http_1_1 = read_request_line(request_line?)?;
    let mut fields = Fields::default();
    for (count, line) in lines.enumerate() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if count >= MAX_LINES {
            return Err(Refusal::TooManyHeaders(MAX_LINES));
        }
        fields.add(field(line)?)?;
    }
    fields.judge(http_1_1)
}

/// The form of the answer to a head that is refused, by the lines before the first that cannot be read.
#[must_use]
pub fn form(head: &[u8]) -> Form {
    let lines = Lines(head).skip(1).map_while(|line| field(line.ok()?).ok()).take(MAX_LINES);
    let accept = lines.filter(|(name, _)| name.eq_ignore_ascii_case(b"accept"));
    let values = accept.filter_map(|(_, value)| str::from_utf8(value).ok());
    if accept::wants_problem_in(values) { Form::Problem } else { Form::Json }
}

/// Whether a trailer line is a well-formed field, or the empty last one.
#[must_use]
pub fn is_trailer_line(line: &[u8]) -> bool {
    without_line_end(line).is_some_and(|line| line.is_empty() || field(line).is_ok())
}

/// Cuts off the `CRLF` of a line; `None` where it has none.
#[must_use]
pub fn without_line_end(line: &[u8]) -> Option<&[u8]> {
    line.strip_suffix(b"\r\n")
}

/// Token characters (RFC 9110, 5.6.2).
const TOKEN: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0u8);
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let (others, mut index) = (b"!#$%&'*+-.^_`|~", 0);
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
};

fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Whether a control character other than the tab is there. Every byte is looked at, without a way out
/// before the last: so a long token is judged many bytes at a time.
fn has_control(value: &[u8]) -> bool {
    let is_control = |byte: u8| byte.is_ascii_control() && byte != b'\t';
    value.iter().fold(false, |found, byte| found | is_control(*byte))
}

fn malformed(what: &str) -> Refusal {
    Refusal::Invalid(format!("The {what} is malformed; send it as RFC 9112 says."))
}

struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr(b'\n', self.0)?;
        let (line, rest) = self.0.split_at(end + 1);
        self.0 = rest;
        Some(without_line_end(line).ok_or_else(|| malformed("line end in the header section")))
    }
}

/// Whether the version is 1.1 rather than 1.0.
fn read_request_line(line: &[u8]) -> Result<bool, Refusal> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed("request line"));
    };
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(malformed("method"));
    }
    if method == b"CONNECT" {
        // What follows would not be HTTP any more.
        return Err(Refusal::MethodNotAllowed(String::from("CONNECT")));
    }
    // A fragment would be dropped without a word.
    let is_unfit = target.iter().any(|byte| matches!(byte, 0..=b' ' | 0x7f | b'#'));
    if is_unfit || Uri::try_from(target).is_err() {
        return Err(malformed("request target"));
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err(malformed("HTTP version")),
    }
}

/// Name and value of a field line, the value without the whitespace around it.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let colon = memchr(b':', line).ok_or_else(|| malformed("header line"))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    // A folded line starts with whitespace, which is no token character either.
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(malformed("header name"));
    }
    if has_control(value) {
        return Err(malformed("header value"));
    }
    Ok((name, value.trim_ascii()))
}

#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Fields {
    fn add(&mut self, (name, value): (&[u8], &[u8])) -> Result<(), Refusal> {
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = decimal(value).ok_or_else(|| malformed("header Content-Length"))?;
            if self.length.replace(length).is_some() {
                return Err(Refusal::Invalid(String::from(
                    "The header Content-Length is there more than once; send it once.",
                )));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::Invalid(String::from(
                    "The header Transfer-Encoding must be chunked, once, and nothing else.",
                )));
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        }
        Ok(())
    }

    fn judge(self, http_1_1: bool) -> Result<Head, Refusal> {
        if self.chunked && self.length.is_some() {
            return Err(Refusal::Invalid(String::from(
                "Content-Length and Transfer-Encoding contradict each other; send one of them.",
            )));
        }
        if self.chunked && !http_1_1 {
            return Err(Refusal::Invalid(String::from(
                "HTTP/1.0 has no Transfer-Encoding; send a Content-Length.",
            )));
        }
        let body = if self.chunked { Body::Chunked } else { Body::Length(self.length.unwrap_or(0)) };
        Ok(Head { body, upgrade: self.upgrade && http_1_1 })
    }
}

/// Digits only: no sign, no list.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // The parser behind us keeps the two largest lengths for itself.
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|length| *length <= u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(lines: &str) -> Result<Head, Refusal> {
        read(format!("POST /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes())
    }

    #[test]
    fn the_length_of_the_message_is_read() {
        let head = |body| Ok(Head { body, upgrade: false });
        assert_eq!(with(""), head(Body::Length(0)));
        assert_eq!(with("content-LENGTH: \t17 \r\n"), head(Body::Length(17)));
        assert_eq!(with("Transfer-Encoding: Chunked\r\n"), head(Body::Chunked));
        assert_eq!(read(b"GET / HTTP/1.0\r\n\r\n"), head(Body::Length(0)));
        assert_eq!(with("upgrade: websocket\r\n"), Ok(Head { body: Body::Length(0), upgrade: true }));
    }

    #[test]
    fn two_readings_of_a_length_are_refused() {
        for lines in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: +3\r\n",
            "Content-Length: 0x3\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 18446744073709551615\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunked,\r\n",
            "Transfer-Encoding:\r\n",
        ] {
            assert_eq!(with(lines).unwrap_err().code(), "validation_error", "{lines}");
        }
        assert!(read(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn what_lenient_parsers_repair_is_refused() {
        for lines in [
            "A: b\n",
            "A: b\r\n c\r\n",
            " A: b\r\n",
            "A : b\r\n",
            "A\t: b\r\n",
            ": b\r\n",
            "A\r\n",
            "A: b\0\r\n",
            "A: b\x7f\r\n",
            "A: b\rc\r\n",
            "A\0: b\r\n",
            "(A): b\r\n",
            "\u{e4}: b\r\n",
        ] {
            assert_eq!(with(lines).unwrap_err().code(), "validation_error", "{lines:?}");
        }
        assert!(with("A: \u{e4}\tb\r\n").is_ok());
    }

    #[test]
    fn a_request_line_has_three_parts_and_single_spaces() {
        for line in [
            "",
            "GET",
            "GET /",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET /#a HTTP/1.1",
            "GET / HTTP/1.2",
            "GET / http/1.1",
            "GET / HTTP/2.0",
            "G{T / HTTP/1.1",
            "GET /\t HTTP/1.1",
            "GET /\0 HTTP/1.1",
        ] {
            assert!(read(format!("{line}\r\nHost: a\r\n\r\n").as_bytes()).is_err(), "{line:?}");
        }
        assert!(read(b"M-SEARCH * HTTP/1.1\r\n\r\n").is_ok());
        assert_eq!(read(b"CONNECT a:1 HTTP/1.1\r\n\r\n").unwrap_err().code(), "method_not_allowed");
    }

    #[test]
    fn a_head_that_is_refused_is_answered_in_the_form_it_asked_for_before_it_went_wrong() {
        let lines = |lines: &str| form(format!("GET /a b HTTP/1.1\r\n{lines}").as_bytes());
        let problem = "Accept: application/problem+json\r\n";
        for asking in [
            problem.to_owned(),
            format!("Host: a\r\n{problem}A : b\r\n\r\n"),
            String::from("accept: text/html\r\nACCEPT:application/problem+json\r\n\r\n"),
        ] {
            assert_eq!(lines(&asking), Form::Problem, "{asking}");
        }
        for other in [
            String::new(),
            String::from("Accept: application/json, application/problem+json;q=0.5\r\n\r\n"),
            String::from("X-Accept: application/problem+json\r\n\r\n"),
            String::from("Accept: application/problem+json"),
            String::from("Accept: application/problem+json\n\r\n"),
            format!("A : b\r\n{problem}\r\n"),
            format!("\r\n{problem}"),
            format!("{}{problem}", "A: b\r\n".repeat(MAX_LINES)),
        ] {
            assert_eq!(lines(&other), Form::Json, "{other}");
        }
    }

    #[test]
    fn more_lines_than_there_is_room_for_are_refused() {
        let lines = |count| with(&"A: b\r\n".repeat(count - 1));
        assert!(lines(MAX_LINES).is_ok());
        assert_eq!(lines(MAX_LINES + 1).unwrap_err().code(), "headers_too_large");
    }

    proptest! {
        /// Whatever passes here, the parser behind us reads too.
        #[test]
        fn what_passes_is_a_plain_head(
            head in "(GET|POST|X) (/|/a\\?b=%20|\\*|http://h/) HTTP/1\\.[01]\r\n([A-Za-z -]{1,4}: ?[ -~\t\0\r\n]{0,4}\r\n){0,3}\r\n"
        ) {
            let end = head.find("\r\n\r\n").unwrap() + 4;
            let head = &head[..end];
            if read(head.as_bytes()).is_ok() {
                prop_assert!(!head.contains('\0'));
                prop_assert_eq!(head.matches('\n').count(), head.matches("\r\n").count());
                prop_assert_eq!(head.matches('\r').count(), head.matches("\r\n").count());
                for line in head.trim_end().lines().skip(1) {
                    let name = line.split_once(':').unwrap().0;
                    prop_assert!(!name.is_empty() && !name.contains([' ', '\t']), "{}", line);
                }
            }
        }
    }
}
