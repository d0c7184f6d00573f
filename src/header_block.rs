//! A header section as one value: what is sealed of a request and of an answer.
//!
//! Every field is kept, in order, byte for byte; names are lower case as HTTP/2 and the `http` crate
//! have them. Layout a field: name length (2 bytes), name, value length (4 bytes), value.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The bytes of a header section.
#[must_use]
pub fn write(headers: &HeaderMap) -> Vec<u8> {
    let size = headers.iter().map(|(name, value)| 6 + name.as_str().len() + value.len()).sum();
    let mut block = Vec::with_capacity(size);
    for (name, value) in headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        block.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
        block.extend_from_slice(name);
        block.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
        block.extend_from_slice(value);
    }
    block
}

/// The header section of `block`, or `None` when it is not one.
#[must_use]
pub fn read(mut block: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    while !block.is_empty() {
        let (length, rest) = block.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        headers.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
        block = rest;
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_and_noise_never_panics(
            fields in proptest::collection::vec(("[a-z][a-z0-9-]{0,20}", "[ -~]{0,40}"), 0..10),
            noise in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &fields {
                headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
            }
            prop_assert_eq!(read(&write(&headers)), Some(headers));
            let _ = read(&noise);
        }
    }
}
