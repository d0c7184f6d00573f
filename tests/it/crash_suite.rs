//! The short form of `ringback-crash`: a loaded node killed at random moments.

use std::time::Duration;

use ringback_bench::crash::{self, Options};

#[test]
fn killed_at_random_under_load_nothing_accepted_is_lost_or_doubled() {
    let reckoning = crash::run(&Options {
        ringback: env!("CARGO_BIN_EXE_ringback").into(),
        kills: 10,
        connections: 16,
        life: Duration::from_millis(500),
        pause: Duration::from_millis(10),
    })
    .expect("a killed node starts again and answers");
    assert!(reckoning.is_clean(), "{reckoning:?}");
}
