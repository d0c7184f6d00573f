//! Where every value was written.
//!
//! All sources share one line of offsets, each source a stretch of it. A value keeps its offset
//! through all overlaying, so that a complaint about the merged whole still names file and line.

use std::path::PathBuf;

/// Who says a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `config.default.toml`.
    Default,
    /// A configuration that a command brings along.
    BuiltIn,
    File(PathBuf),
    /// An environment variable or a flag, by its name.
    Named(String),
}

pub struct Source {
    pub origin: Origin,
    pub text: String,
    /// The offset of the text's first byte.
    pub start: usize,
}

#[derive(Default)]
pub struct Places(Vec<Source>);

impl Places {
    pub fn add(&mut self, origin: Origin, text: String) {
        // One spare offset after each text: "unexpected end" points there.
        let start = self.0.last().map_or(0, |last| last.start + last.text.len() + 1);
        self.0.push(Source { origin, text, start });
    }

    pub fn sources(&self) -> &[Source] {
        &self.0
    }

    /// `ringback.toml:7`, `RINGBACK_WEBHOOKS__TIMEOUT`, `--listen`; `None` for a default.
    pub fn name(&self, offset: usize) -> Option<String> {
        let source = self.0.iter().rev().find(|source| source.start <= offset)?;
        let before = source.text.as_bytes().iter().take(offset - source.start);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        match &source.origin {
            Origin::Default => None,
            Origin::BuiltIn => Some(format!("built-in configuration:{line}")),
            Origin::File(path) => Some(format!("{}:{line}", path.display())),
            Origin::Named(name) => Some(name.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_leads_back_to_file_and_line() {
        let mut places = Places::default();
        places.add(Origin::Default, String::from("a\nb"));
        places.add(Origin::File(PathBuf::from("f.toml")), String::from("x = 1\ny = 2\n"));
        places.add(Origin::Named(String::from("--listen")), String::from("z"));
        let file = places.sources()[1].start;
        assert_eq!(places.name(2), None);
        assert_eq!(places.name(file).unwrap(), "f.toml:1");
        assert_eq!(places.name(file + 6).unwrap(), "f.toml:2");
        assert_eq!(places.name(file + 12).unwrap(), "f.toml:3");
        assert_eq!(places.name(places.sources()[2].start).unwrap(), "--listen");
    }
}
