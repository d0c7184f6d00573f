//! `ringback compact`: gives the space that retention made free back to the disk.
//!
//! The node must be stopped: the store is written anew. A running node uses free space again by itself.

use bytesize::ByteSize;
use clap::Args;

use super::{CommandError, ConfigArgs, print_lines};
use crate::service::assemble;
use crate::store::{Compacted, OfflineStore};

#[derive(Args)]
pub struct Compact {
    #[command(flatten)]
    config: ConfigArgs,
}

impl Compact {
    pub fn run(self) -> Result<(), CommandError> {
        let files = assemble::files(&self.config.load_node()?);
        let compacted = OfflineStore::open(&files)?.compact()?;
        Ok(print_lines(&[said(compacted)])?)
    }
}

fn said(Compacted { before, after }: Compacted) -> String {
    let given_back = ByteSize(before.saturating_sub(after)).display().iec();
    format!("The store has {}; {given_back} went back to the disk.", ByteSize(after).display().iec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_back_is_said() {
        let text = said(Compacted { before: 3 << 20, after: 1 << 20 });
        assert_eq!(text, "The store has 1.0 MiB; 2.0 MiB went back to the disk.");
    }
}
