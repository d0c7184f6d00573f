//! `ringback erase`: everything a node keeps about one person.
//!
//! The node must be stopped, so that nothing about the person is in flight.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::{CommandError, ConfigArgs, print_lines};
use crate::service::assemble;
use crate::store::{Erased, OfflineStore};

#[derive(Args)]
pub struct Erase {
    /// Whose: as in the webhook's `credentials_id`.
    // An empty one is nobody's: a variable of a script that is not set, most likely.
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    credentials_id: String,
    #[command(flatten)]
    config: ConfigArgs,
}

impl Erase {
    pub fn run(self) -> Result<(), CommandError> {
        let files = assemble::files(&self.config.load_node()?);
        let erased = OfflineStore::open(&files)?.erase(&self.credentials_id)?;
        Ok(print_lines(&said(erased))?)
    }
}

/// One line a table, the tasks first. A chunk is a part of a request or a result.
fn said(mut erased: Erased) -> Vec<String> {
    let tasks = erased.remove("task").unwrap_or(0);
    let unfinished = erased.remove("state").unwrap_or(0);
    let mut lines = vec![format!("Erased {tasks} tasks, {unfinished} of them unfinished, and with them:")];
    for (table, name) in
        [("request", "requests"), ("result", "results"), ("delivery", "deliveries"), ("attempt", "attempts")]
    {
        lines.push(format!("  {} {name}", erased.remove(table).unwrap_or(0)));
    }
    for (table, count) in erased.into_iter().filter(|(_, count)| *count > 0) {
        lines.push(format!("  {count} rows of {table}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_was_removed_is_said() {
        let erased = [("task", 3), ("state", 1), ("request", 1), ("result", 2), ("chunk", 4), ("other", 0)];
        let erased = erased.map(|(table, count)| (table.to_owned(), count)).into_iter().collect();
        let text = said(erased).join("\n");
        assert!(text.starts_with("Erased 3 tasks, 1 of them unfinished,"), "{text}");
        assert!(text.contains("  1 requests\n  2 results\n  0 deliveries\n"), "{text}");
        assert!(text.ends_with("  4 rows of chunk"), "{text}");
    }
}
