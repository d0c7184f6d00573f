//! `[store]`: where tasks are kept.

use serde::Deserialize;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// `sqlite` (a file in `server.data_dir`) or `sqlite:/path/to/file`.
    pub url: String,
}
