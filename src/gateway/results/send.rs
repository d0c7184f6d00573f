//! A Succeeded task's result as it is sent: whole, in part, decoded, or not at all because the reader
//! has it.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::conditions::{self, Verdict};
use super::ranges::{self, Wanted};
use super::stored::{self, Piece, ResultBody};
use super::{ResultsCall, about};
use crate::client::empty_body;
use crate::gateway::answer::{UPSTREAM_STATUS, vary_by};
use crate::gateway::coding::{self, Coding};
use crate::gateway::refusal::Refusal;
use crate::gateway::{Gateway, GatewayBody};
use crate::id::TaskId;
use crate::store::StoredResult;
use crate::task::Status;

/// Of the upstream's header section, what describes the representation.
const REPRESENTATION: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_DISPOSITION,
    header::ETAG,
    header::LAST_MODIFIED,
];

/// What a 304 leaves out: it describes a body that is not there.
const OF_THE_BODY: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_DISPOSITION,
    header::CONTENT_LENGTH,
];

/// The upstream's body byte for byte, unless the reader does not take its coding.
///
/// # Errors
/// A condition does not hold, a range is not there, or the result cannot be opened.
pub fn succeeded(
    gateway: &Gateway,
    id: TaskId,
    result: StoredResult,
    call: &ResultsCall<'_>,
) -> Result<Response<GatewayBody>, Refusal> {
    let upstreams = stored::headers(gateway, id, result.headers)?;
    let body = ResultBody::open(gateway, id, result.body, result.chunks, result.length)?;
    let mut response = about(&id.to_string(), Status::Succeeded, empty_body());
    let headers = response.headers_mut();
    for name in REPRESENTATION {
        for value in upstreams.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    tag(headers, &id.to_string());
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.length));
    if let Some(status) = result.upstream_status {
        headers.insert(UPSTREAM_STATUS, HeaderValue::from(status));
    }
    vary_by(headers, "Accept");
    if headers.contains_key(header::CONTENT_ENCODING) {
        vary_by(headers, "Accept-Encoding");
    }
    let coding = Coding::of(headers).filter(|coding| !coding.is_acceptable(call.headers));
    if coding.is_some() {
        coding::strip_coding(headers);
    }
    let mut response = judged(call.headers, response)?;
    if response.status() == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    if let Some(coding) = coding {
        // Where a decoded body ends is known only at its end: no ranges.
        if body.length > 0 {
            *response.body_mut() = coding::decode(coding, body.into_stream());
        }
        return Ok(response);
    }
    response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    whole_or_parts(response, id, body, call)
}

/// A 200 with its body, or the parts of it that the reader asks for.
///
/// # Errors
/// No part of it is there.
pub fn whole_or_parts(
    mut response: Response<GatewayBody>,
    id: TaskId,
    body: ResultBody,
    call: &ResultsCall<'_>,
) -> Result<Response<GatewayBody>, Refusal> {
    match wanted(call, response.headers(), body.length) {
        Wanted::Whole => *response.body_mut() = body.whole(),
        Wanted::Unsatisfiable => return Err(Refusal::RangeNotSatisfiable(body.length)),
        Wanted::Parts(parts) => put_parts(&mut response, &id, body, &parts),
    }
    Ok(response)
}

/// A result never changes: where the upstream gave it no tag, its task's id is one.
pub fn tag(headers: &mut HeaderMap, id: &str) {
    if !headers.contains_key(header::ETAG)
        && let Ok(tag) = HeaderValue::from_str(&format!("\"{id}\""))
    {
        headers.insert(header::ETAG, tag);
    }
}

/// The answer, or a 304 where the reader has it.
///
/// # Errors
/// A condition does not hold.
pub fn judged(
    request: &HeaderMap,
    mut response: Response<GatewayBody>,
) -> Result<Response<GatewayBody>, Refusal> {
    match conditions::judge(request, response.headers()) {
        Verdict::Send => {}
        Verdict::Failed => return Err(Refusal::PreconditionFailed),
        Verdict::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = empty_body();
            for name in OF_THE_BODY {
                response.headers_mut().remove(name);
            }
        }
    }
    Ok(response)
}

/// Ranges are defined for GET alone (RFC 9110, 14.2).
fn wanted(call: &ResultsCall<'_>, answer: &HeaderMap, length: u64) -> Wanted {
    let mut fields = call.headers.get_all(header::RANGE).iter();
    let (Some(field), None, &Method::GET) = (fields.next(), fields.next(), call.method) else {
        return Wanted::Whole;
    };
    let Ok(field) = field.to_str() else { return Wanted::Whole };
    if !conditions::range_applies(call.headers, answer) {
        return Wanted::Whole;
    }
    ranges::wanted(field, length)
}

fn put_parts(response: &mut Response<GatewayBody>, id: &TaskId, body: ResultBody, parts: &[Range<u64>]) {
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    let length = body.length;
    let insert = |headers: &mut HeaderMap, name, value: &str| {
        let value = HeaderValue::from_str(value).expect("numbers and an id are header text");
        headers.insert(name, value);
    };
    if let [part] = parts {
        insert(headers, header::CONTENT_RANGE, &content_range(part, length));
        insert(headers, header::CONTENT_LENGTH, &(part.end - part.start).to_string());
        *response.body_mut() = body.body([Piece::Slice(part.clone())]);
        return;
    }
    let kind = headers.get(header::CONTENT_TYPE).cloned();
    // Random, so that no upstream can write it into its body.
    let boundary = format!("{id}-{:016x}", rand::random::<u64>());
    let pieces = multipart(kind.as_ref(), &boundary, parts, length);
    let total: u64 = pieces.iter().map(size).sum();
    insert(headers, header::CONTENT_TYPE, &format!("multipart/byteranges; boundary={boundary}"));
    insert(headers, header::CONTENT_LENGTH, &total.to_string());
    *response.body_mut() = body.body(pieces);
}

/// `multipart/byteranges` (RFC 9110, 14.6).
fn multipart(
    kind: Option<&HeaderValue>,
    boundary: &str,
    parts: &[Range<u64>],
    length: u64,
) -> VecDeque<Piece> {
    let mut pieces = VecDeque::with_capacity(parts.len() * 2 + 1);
    for (index, part) in parts.iter().enumerate() {
        let start = if index == 0 { "" } else { "\r\n" };
        let mut text = format!("{start}--{boundary}\r\n").into_bytes();
        if let Some(kind) = kind {
            text.extend_from_slice(&[b"Content-Type: ", kind.as_bytes(), b"\r\n"].concat());
        }
        let range = content_range(part, length);
        text.extend_from_slice(format!("Content-Range: {range}\r\n\r\n").as_bytes());
        pieces.push_back(Piece::Text(text.into()));
        pieces.push_back(Piece::Slice(part.clone()));
    }
    pieces.push_back(Piece::Text(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    pieces
}

fn size(piece: &Piece) -> u64 {
    match piece {
        Piece::Text(text) => text.len() as u64,
        Piece::Slice(slice) => slice.end - slice.start,
    }
}

fn content_range(part: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", part.start, part.end - 1)
}
