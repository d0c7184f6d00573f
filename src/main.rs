//! Parses the command line, runs the command, turns its end into an exit code: 0 done, 1 refused or
//! failed, 2 not understood; a command may have more.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use ringback::cli::Cli;
use ringback::telemetry::panics;

/// The writer thread and the runtime hand memory to each other with every task. The system's allocator makes
/// them wait for one another there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    panics::tell_places_only();
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            let mut stderr = std::io::stderr().lock();
            for line in error.to_string().lines() {
                // There is nobody left to tell when this fails.
                writeln!(stderr, "ringback: {line}").ok();
            }
            ExitCode::from(error.exit_code())
        }
    }
}
