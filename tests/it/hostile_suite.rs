//! The short form of `ringback-hostile`: a good client beside hostile ones, and clients that wait.

use std::time::Duration;

use ringback_bench::report::Report;
use ringback_bench::{hostile, waiters};

#[test]
fn beside_hostile_clients_a_good_one_gets_all_its_answers() {
    let options = hostile::Options {
        ringback: env!("CARGO_BIN_EXE_ringback").into(),
        clients: 60,
        rounds: 1,
        seconds: 1,
        rate: 20,
        beat: Duration::from_millis(20),
    };
    let outcome = hostile::run(&options, &mut Report::default()).expect("the node lets everybody in");
    assert!(outcome.accepted > 0 && outcome.open > 0);
    assert_eq!((outcome.spoilt, outcome.lost), (0, 0));
}

#[test]
fn everybody_who_waits_for_a_task_is_told_of_its_end() {
    let options = waiters::Options { ringback: env!("CARGO_BIN_EXE_ringback").into(), waiters: 300 };
    let outcome = waiters::run(&options, &mut Report::default()).expect("the node lets everybody wait");
    assert_eq!(outcome.told, 300);
}
