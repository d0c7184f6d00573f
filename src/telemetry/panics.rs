//! What is said of a panic: where it was, never what the data said.
//!
//! The message of a panic is often made of data: `expect` on a `Result` prints the error, `unwrap` the
//! value. So only a message that stands in the code itself is told. Everything else can be found by its
//! place.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write as _;
use std::panic::PanicHookInfo;

/// Instead of a message that may hold data.
const UNTOLD: &str = "a message made at run time, which may hold data and is not told";

/// Replaces the standard hook, which prints every message, for the whole process.
pub fn tell_places_only() {
    std::panic::set_hook(Box::new(say));
}

fn say(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(|| String::from("unknown"), ToString::to_string);
    let message = message(panic.payload());
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    // Function names and lines only; taken where RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    if tracing::dispatcher::has_been_set() {
        tracing::error!(place, thread, backtrace, "a defect in Ringback: {message}");
    } else {
        // There is nobody left to tell when this fails.
        let mut stderr = std::io::stderr().lock();
        writeln!(stderr, "ringback: a defect in Ringback at {place}: {message}").ok();
        writeln!(stderr, "{}", backtrace.unwrap_or_default()).ok();
    }
}

/// `panic!` with nothing but a literal has a `&'static str`; every formatted message is a `String`.
fn message(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or(UNTOLD)
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn of(panics: impl FnOnce() + std::panic::UnwindSafe) -> &'static str {
        message(catch_unwind(panics).unwrap_err().as_ref())
    }

    #[test]
    fn only_a_message_that_stands_in_the_code_is_told() {
        let secret = String::from("secret");
        let failed = || Err::<(), _>(secret.clone());
        assert_eq!(of(|| panic!("the writer is gone")), "the writer is gone");
        for text in [
            of(|| panic!("{secret}")),
            of(|| panic!("no such host {}", secret.clone())),
            of(|| failed().expect("it is there")),
            of(|| failed().unwrap()),
            of(|| assert_eq!(secret, "another")),
            of(|| std::panic::panic_any(secret.clone())),
            of(|| std::panic::panic_any(7)),
        ] {
            assert_eq!(text, UNTOLD);
        }
    }
}
