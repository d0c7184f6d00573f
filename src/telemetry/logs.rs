//! Log lines, to stderr: for people on a terminal, JSON lines anywhere else.
//!
//! Only Ringback's own lines are under the chosen level; libraries speak from `warn` upwards.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Crates whose lines are ours.
const OURS: [&str; 2] = ["ringback", "sandbox"];

/// Starts logging. The first call of a process decides; later ones change nothing.
pub fn init(level: LevelFilter) {
    let is_terminal = io::stderr().is_terminal();
    let lines = if is_terminal {
        // https://no-color.org: any text but an empty one means no colour.
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        fmt::layer().compact().with_ansi(!is_plain).with_target(false).with_writer(io::stderr).boxed()
    } else {
        fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed()
    };
    drop(tracing_subscriber::registry().with(lines.with_filter(filter(level))).try_init());
}

fn filter(level: LevelFilter) -> Targets {
    let others = level.min(LevelFilter::WARN);
    Targets::new().with_default(others).with_targets(OURS.map(|target| (target, level)))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_speak_from_warn_upwards_whatever_our_level() {
        let filter = filter(LevelFilter::TRACE);
        assert!(filter.would_enable("ringback::worker", &Level::TRACE));
        assert!(filter.would_enable("sandbox", &Level::TRACE));
        assert!(filter.would_enable("hyper::proto", &Level::WARN));
        assert!(!filter.would_enable("hyper::proto", &Level::INFO));
    }

    #[test]
    fn nobody_speaks_below_the_chosen_level() {
        let filter = filter(LevelFilter::ERROR);
        assert!(!filter.would_enable("ringback", &Level::WARN));
        assert!(!filter.would_enable("hyper", &Level::WARN));
        assert!(filter.would_enable("hyper", &Level::ERROR));
    }
}
