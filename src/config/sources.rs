//! What a configuration is made of, besides `config.default.toml`: where each part comes from and
//! how a name outside a file becomes a key.

use std::path::PathBuf;

use toml::de::DeValue;

use super::tree::Table;

const PREFIX: &str = "RINGBACK_";

/// The parts of a configuration, from the bottom up. Nothing is read from the process itself.
#[derive(Default)]
pub struct Sources {
    /// TOML that a command brings along, below the person's file.
    pub base: Option<String>,
    /// The person's file.
    pub file: Option<PathBuf>,
    /// All environment variables; those that are not settings are passed over.
    pub env: Vec<(String, String)>,
    pub flags: Vec<Flag>,
    /// `--dev`: identity `none` unless another is configured, webhooks to loopback allowed.
    pub dev: bool,
}

/// A command-line flag that sets a key.
pub struct Flag {
    /// As typed, such as `--listen`.
    pub name: &'static str,
    /// Dotted, such as `server.listen`.
    pub key: &'static str,
    pub value: String,
}

/// One value from outside a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// The variable or the flag.
    pub name: String,
    pub path: Vec<String>,
    pub value: String,
}

/// The variables that are settings, in the order in which lists grow.
pub fn from_env(known: &Table<'_>, env: Vec<(String, String)>) -> Vec<Setting> {
    let mut settings: Vec<Setting> = env
        .into_iter()
        .filter_map(|(name, value)| {
            let rest = name.strip_prefix(PREFIX).filter(|rest| rest.contains("__"))?;
            let path = env_path(known, rest);
            Some(Setting { name, path, value })
        })
        .collect();
    settings.sort_by_cached_key(|setting| {
        let parts = setting.path.iter();
        parts.map(|part| (part.parse::<usize>().ok(), part.clone())).collect::<Vec<_>>()
    });
    settings
}

impl From<Flag> for Setting {
    fn from(flag: Flag) -> Self {
        let path = flag.key.split('.').map(str::to_owned).collect();
        Self { name: flag.name.to_owned(), path, value: flag.value }
    }
}

/// `WEBHOOKS__TIMEOUT` → `webhooks`, `timeout`. Free names are headers, which no variable could
/// spell: there `_` stands for `-`.
fn env_path(known: &Table<'_>, name: &str) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    for part in name.split("__") {
        let part = part.to_ascii_lowercase();
        let is_free = matches!(expected(known, &path), Some(DeValue::Table(table)) if table.is_empty());
        path.push(if is_free { part.replace('_', "-") } else { part });
    }
    path
}

/// What `config.default.toml` has at a path, list entries by number; `None` for free names.
pub fn expected<'t, 's>(known: &'t Table<'s>, path: &[String]) -> Option<&'t DeValue<'s>> {
    let (first, rest) = path.split_first()?;
    let mut value = known.get(first.as_str())?.get_ref();
    for part in rest {
        value = match value {
            DeValue::Table(table) => table.get(part.as_str())?.get_ref(),
            DeValue::Array(list) => list.first()?.get_ref(),
            _ => return None,
        };
    }
    Some(value)
}
