//! `ringback check`: whether a configuration is good, and what it resolves to.
//!
//! What it prints is TOML that can be read back, without its secrets.

use clap::Args;

use super::{CommandError, ConfigArgs, print};
use crate::config::Config;

#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    config: ConfigArgs,
}

impl Check {
    pub fn run(self) -> Result<(), CommandError> {
        let loaded = Config::load_shown(self.config.sources())?;
        let mut text = String::from("# This configuration is good. It resolves to:\n");
        for sentence in loaded.config.relaxations() {
            text.push_str("# Warning: ");
            text.push_str(&sentence);
            text.push_str(".\n");
        }
        text.push('\n');
        text.push_str(&loaded.shown);
        Ok(print(&text)?)
    }
}
