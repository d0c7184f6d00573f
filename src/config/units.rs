//! Values as people write them: durations (`"200ms"`), sizes (`"64KB"`), addresses, networks.
//!
//! Each refusal shows what was read and what would be right. A text that is empty means "not set".

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// Longer waits are mistakes, and would overflow sums of times further on.
const LONGEST: Duration = Duration::from_hours(24 * 3650);

pub fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = text(from, "a duration such as \"200ms\" or \"50m\"")?;
    match humantime::parse_duration(&text) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) => Err(D::Error::custom(format!("`{text}` is longer than ten years"))),
        Err(_) => Err(D::Error::custom(format!("`{text}` is not a duration such as \"200ms\" or \"50m\""))),
    }
}

pub fn durations<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Duration>, D::Error> {
    #[derive(Deserialize)]
    struct One(#[serde(deserialize_with = "duration")] Duration);
    Ok(Vec::<One>::deserialize(from)?.into_iter().map(|one| one.0).collect())
}

pub fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    struct Size;
    impl Visitor<'_> for Size {
        type Value = u64;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a size such as \"512KB\" or a number of bytes")
        }

        fn visit_i64<E: Error>(self, count: i64) -> Result<u64, E> {
            u64::try_from(count).map_err(|_| E::invalid_value(Unexpected::Signed(count), &self))
        }

        fn visit_u64<E: Error>(self, count: u64) -> Result<u64, E> {
            Ok(count)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
            size(text).ok_or_else(|| {
                E::custom(format!("`{text}` is not a size such as \"512KB\" or a number of bytes"))
            })
        }
    }
    from.deserialize_any(Size)
}

/// `KB` and `KiB` are the same 1024 bytes: nobody has to remember which program means what.
fn size(text: &str) -> Option<u64> {
    let mut text = text.trim().to_ascii_lowercase();
    let unit = text.trim_end_matches('b').len();
    if text[..unit].ends_with(['k', 'm', 'g', 't', 'p', 'e']) {
        text.truncate(unit);
        text.push_str("ib");
    }
    text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64())
}

pub fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = text(from, "an address such as \"127.0.0.1:8080\"")?;
    text.parse().map_err(|_| {
        D::Error::custom(format!("`{text}` is not an address such as \"127.0.0.1:8080\" or \"[::1]:8080\""))
    })
}

/// Networks such as `10.0.0.0/8`; a single address stands for itself.
pub fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    struct One(IpNet);
    impl<'de> Deserialize<'de> for One {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let text = text(from, "a network such as \"10.0.0.0/8\"")?;
            let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            network
                .map(One)
                .map_err(|_| D::Error::custom(format!("`{text}` is not a network such as \"10.0.0.0/8\"")))
        }
    }
    Ok(Vec::<One>::deserialize(from)?.into_iter().map(|one| one.0).collect())
}

/// A text; empty is `None`. Read this way a key must stand in `config.default.toml`.
pub fn optional<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    String::deserialize(from).map(|text| (!text.is_empty()).then_some(text))
}

pub fn optional_path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    Ok(optional(from)?.map(PathBuf::from))
}

/// A string, or a refusal that says what was wanted rather than "a string".
fn text<'de, D: Deserializer<'de>>(from: D, wanted: &'static str) -> Result<String, D::Error> {
    struct Text(&'static str);
    impl Visitor<'_> for Text {
        type Value = String;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }
    }
    from.deserialize_str(Text(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_kb_is_1024_bytes_however_it_is_spelled() {
        for text in ["64KB", "64KiB", "64 kb", "64k", "64K", "65536", "65536B"] {
            assert_eq!(size(text), Some(65536), "{text}");
        }
        assert_eq!(size("1GB"), Some(1 << 30));
        assert_eq!(size("1.5MB"), Some(3 << 19));
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "KB", "ten", "10XB", "-1", "10 MB/s"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_number_is_that_many_bytes(count in any::<u64>()) {
            prop_assert_eq!(size(&count.to_string()), Some(count));
        }
    }
}
