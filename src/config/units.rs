//! Durations and sizes as people write them: `"200ms"`, `"50m"`, `"64MB"`, or a plain number of bytes.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

pub fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text)
        .map_err(|_| D::Error::custom(format!("`{text}` is not a duration such as \"200ms\" or \"50m\"")))
}

pub fn durations<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Duration>, D::Error> {
    #[derive(Deserialize)]
    struct One(#[serde(deserialize_with = "duration")] Duration);
    Ok(Vec::<One>::deserialize(from)?.into_iter().map(|one| one.0).collect())
}

pub fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }
    match Written::deserialize(from)? {
        Written::Number(count) => Ok(count),
        Written::Text(text) => text
            .parse::<bytesize::ByteSize>()
            .map(|size| size.as_u64())
            .map_err(|_| D::Error::custom(format!("`{text}` is not a size such as \"512KB\" or \"64MB\""))),
    }
}
