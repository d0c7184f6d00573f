//! Content codings: which a reader takes (RFC 9110, 12.5.3), and decoding what it does not.

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio_util::io::{ReaderStream, StreamReader};

use super::GatewayBody;
use crate::client::BoxError;

/// A coding that can be undone here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// The coding of a stored result; `None` without one, or with one that cannot be undone here.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let (value, None) = (values.next()?.to_str().ok()?.trim(), values.next()) else { return None };
        Self::named(value)
    }

    fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "br" => Some(Self::Brotli),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Whether a reader with these headers takes this coding. One that says nothing takes anything.
    #[must_use]
    pub fn is_acceptable(self, headers: &HeaderMap) -> bool {
        let mut said = false;
        let mut any = None;
        for value in headers.get_all(header::ACCEPT_ENCODING) {
            said = true;
            for item in value.to_str().unwrap_or_default().split(',') {
                let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
                let wanted = !is_zero_quality(parameters);
                match name.trim() {
                    "*" => any = Some(wanted),
                    name if Self::named(name) == Some(self) => return wanted,
                    _ => {}
                }
            }
        }
        any.unwrap_or(!said)
    }
}

/// `q=0`, `q=0.000` and the like.
fn is_zero_quality(parameters: &str) -> bool {
    parameters.split(';').any(|parameter| {
        parameter.split_once('=').is_some_and(|(name, value)| {
            name.trim().eq_ignore_ascii_case("q") && value.trim().parse::<f64>().is_ok_and(|q| q <= 0.0)
        })
    })
}

/// The body without its coding, as a stream. Ends in an error where the coded body is damaged.
pub fn decode(
    coding: Coding,
    body: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
) -> GatewayBody {
    let reader = StreamReader::new(body.map_err(std::io::Error::other).boxed());
    match coding {
        Coding::Gzip => {
            // A file of several members is one body (RFC 1952, 2.2); so are frames (RFC 8878, 3.1).
            let mut decoder = GzipDecoder::new(reader);
            decoder.multiple_members(true);
            stream(decoder)
        }
        Coding::Deflate => stream(ZlibDecoder::new(reader)),
        Coding::Brotli => stream(BrotliDecoder::new(reader)),
        Coding::Zstd => {
            let mut decoder = ZstdDecoder::new(reader);
            decoder.multiple_members(true);
            stream(decoder)
        }
    }
}

fn stream(reader: impl tokio::io::AsyncRead + Send + 'static) -> GatewayBody {
    let frames = ReaderStream::new(reader).map(|piece| piece.map(Frame::data).map_err(BoxError::from));
    StreamBody::new(frames).boxed_unsync()
}

/// Makes the header section that of the decoded body: another representation, so no longer the same
/// strong validator (RFC 9110, 8.8.3) and of unknown length.
pub fn strip_coding(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_ENCODING);
    headers.remove(header::CONTENT_LENGTH);
    if let Some(tag) = headers.get(header::ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")) {
        match HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
            Ok(weak) => headers.insert(header::ETAG, weak),
            Err(_) => headers.remove(header::ETAG),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(accept: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT_ENCODING, accept.parse().unwrap());
        }
        Coding::Gzip.is_acceptable(&headers)
    }

    #[test]
    fn a_reader_takes_what_it_names_or_does_not_rule_out() {
        for accept in
            [None, Some("gzip"), Some("br, GZIP;q=0.5"), Some("*"), Some("x-gzip"), Some("identity;q=0, *")]
        {
            assert!(takes(accept), "{accept:?}");
        }
        for accept in ["", "identity", "br", "gzip;q=0", "gzip; q=0.000, *", "*;q=0"] {
            assert!(!takes(Some(accept)), "{accept:?}");
        }
    }

    #[tokio::test]
    async fn a_body_of_several_members_is_decoded_to_its_end() {
        use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
        use tokio::io::AsyncWriteExt as _;

        for coding in [Coding::Gzip, Coding::Zstd] {
            let mut coded = Vec::new();
            for part in ["one ", "two"] {
                let mut member = Vec::new();
                if coding == Coding::Gzip {
                    let mut encoder = GzipEncoder::new(&mut member);
                    encoder.write_all(part.as_bytes()).await.unwrap();
                    encoder.shutdown().await.unwrap();
                } else {
                    let mut encoder = ZstdEncoder::new(&mut member);
                    encoder.write_all(part.as_bytes()).await.unwrap();
                    encoder.shutdown().await.unwrap();
                }
                coded.extend(member);
            }
            let body = decode(coding, futures_util::stream::iter([Ok(Bytes::from(coded))]));
            assert_eq!(body.collect().await.unwrap().to_bytes(), "one two", "{coding:?}");
        }
    }

    #[test]
    fn a_decoded_body_loses_its_strong_validator() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ETAG, "\"a\"".parse().unwrap());
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        strip_coding(&mut headers);
        assert_eq!(headers[header::ETAG], "W/\"a\"");
        assert!(!headers.contains_key(header::CONTENT_ENCODING));
    }
}
