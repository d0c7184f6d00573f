//! `ringback keys`: the master keys that seal the store, and the keys that sign webhooks.
//!
//! `rotate` works beside a running node, which takes the new keys over at SIGHUP; until then and after,
//! whatever the old keys sealed or signed stays good. `reseal` needs the node to be stopped. No key is
//! printed but by `show`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{CommandError, ConfigArgs, print, print_lines};
use crate::clock::Clock;
use crate::seal::{self, KeyFileError};
use crate::service::assemble;
use crate::store::{self, Files, OfflineStore};

/// What to do after a rotation beside a running node.
const HANGUP: &str = "A running node takes it over at SIGHUP (kill -HUP <pid>) or its next start.";

#[derive(Args)]
pub struct Keys {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Make the key file before the first start, such as at the place that `RINGBACK_KEY_FILE` names.
    New(Place),
    /// List all keys by number or name, without the keys themselves.
    List(Place),
    /// Make a new key; older ones still open or sign.
    Rotate(Rotate),
    /// Print what receivers need to verify webhooks. Holds a secret.
    Show(Show),
    /// Seal everything with the newest key, so that older ones can be removed. The node must be stopped;
    /// interrupted, it goes on where it was.
    Reseal(Place),
}

/// Which node's keys: the flags of `serve` find the same data directory.
#[derive(Args)]
struct Place {
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Args)]
struct Rotate {
    ring: Ring,
    /// How long the replaced webhook key signs beside the new one.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = humantime::parse_duration)]
    overlap: Duration,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct Show {
    ring: Shown,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Copy, ValueEnum)]
enum Ring {
    /// What seals the store.
    Sealing,
    /// What signs webhooks.
    Webhook,
}

/// Master keys are never printed.
#[derive(Clone, Copy, ValueEnum)]
enum Shown {
    Webhook,
}

impl Place {
    fn files(self) -> Result<Files, CommandError> {
        Ok(assemble::files(&self.config.load_node()?))
    }
}

impl Keys {
    pub fn run(self) -> Result<(), CommandError> {
        match self.command {
            KeysCommand::New(place) => new(&place.files()?),
            KeysCommand::List(place) => list(&place.files()?),
            KeysCommand::Rotate(rotate) => match rotate.ring {
                Ring::Sealing => rotate_sealing(&rotate.place.files()?),
                Ring::Webhook => rotate_webhook(&rotate.place.files()?, rotate.overlap),
            },
            KeysCommand::Show(Show { ring: Shown::Webhook, place }) => show_webhook(&place.files()?),
            KeysCommand::Reseal(place) => reseal(&place.files()?),
        }
    }
}

fn new(files: &Files) -> Result<(), CommandError> {
    let path = files.key_file();
    if files.database().exists() {
        return Err(CommandError::KeysOfAStore(files.database()));
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let uncreatable = |source| KeyFileError::Uncreatable { path: path.clone(), source };
        std::fs::create_dir_all(parent).map_err(uncreatable)?;
    }
    seal::create_new(&path)?;
    Ok(print(&format!("Made {}. Keep a copy: without it nobody can read the store.\n", path.display()))?)
}

fn list(files: &Files) -> Result<(), CommandError> {
    let mut lines = vec![format!("sealing keys in {}:", files.key_file().display())];
    for (index, id) in seal::load(&files.key_file())?.ids().into_iter().enumerate() {
        let role = if index == 0 { "seals and opens" } else { "opens" };
        lines.push(format!("  {id:<10} {role}"));
    }
    lines.push(String::from("webhook keys in the store:"));
    let now = Clock::start().wall();
    for generation in store::signing_keys(files)?.at(now) {
        let until =
            generation.until().map_or_else(String::new, |until| format!(" until {}", until.to_rfc3339()));
        let made_at = generation.made_at().to_rfc3339();
        lines.push(format!("  {}  signs{until}, made {made_at}", generation.kid()));
    }
    Ok(print_lines(&lines)?)
}

fn rotate_sealing(files: &Files) -> Result<(), CommandError> {
    let id = seal::add_key(&files.key_file())?;
    Ok(print(&format!("Key {id} seals from now on; the others still open.\n{HANGUP}\n"))?)
}

fn rotate_webhook(files: &Files, overlap: Duration) -> Result<(), CommandError> {
    let now = Clock::start().wall();
    let keys = store::change_signing_keys(files, now, |keys, new| keys.rotated(new, overlap))?;
    let mut lines = Vec::new();
    for generation in keys.at(now) {
        let kid = generation.kid();
        match generation.until() {
            None => lines.push(format!("Key {kid} signs from now on.")),
            Some(until) => lines.push(format!("Key {kid} signs beside it until {}.", until.to_rfc3339())),
        }
    }
    lines.push(format!("{HANGUP}\nGive receivers that use v1 the new secret: ringback keys show webhook"));
    Ok(print_lines(&lines)?)
}

fn show_webhook(files: &Files) -> Result<(), CommandError> {
    let now = Clock::start().wall();
    for generation in store::signing_keys(files)?.at(now) {
        let until =
            generation.until().map_or_else(String::new, |until| format!(", until {}", until.to_rfc3339()));
        print(&format!("# {}{until}\n", generation.kid()))?;
        print(&zeroize::Zeroizing::new(format!("{}\n", *generation.secret_text())))?;
        print(&format!("{}\n", generation.public_text()))?;
    }
    Ok(())
}

fn reseal(files: &Files) -> Result<(), CommandError> {
    let mut store = OfflineStore::open(files)?;
    let resealed = store.reseal()?;
    let keys = store.key_ids();
    let mut lines =
        vec![format!("Sealed {resealed} values anew; key {} has sealed everything now.", keys[0])];
    for id in &keys[1..] {
        lines.push(format!("The line of key {id} can be removed from {}.", files.key_file().display()));
    }
    lines.push(String::from("Backups made before still need the older keys."));
    Ok(print_lines(&lines)?)
}
