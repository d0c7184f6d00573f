//! Programs that load a real Ringback node from outside and account for every task.
//!
//! | module | what it is |
//! |---|---|
//! | [`node`] | the node as a child process: its configuration, its start, its death |
//! | [`usage`] | what a process and the machine used, from `/proc` |
//! | [`load`] | the load generator: closed loop and constant rate |
//! | [`peer`] | a lean HTTP/1.1 server: upstream and receiver |
//! | [`wire`] | HTTP/1.1 messages, as much as those two need |
//! | [`noop`] | a server on the node's HTTP stack that does nothing |
//! | [`ledger`] | what was accepted, called and announced, by call |
//! | [`mod@bench`] | the measurements of `ringback-bench`, one a function |
//! | [`beside`] | other programs that can do the work, and the comparison of `ringback-peers` |
//! | [`compare`] | builds beside each other, in many short turns: `ringback-compare` |
//! | [`report`] | the table and the JSON |
//! | [`syncs`] | the order of syncs and answers, from a trace |
//! | [`crash`] | the kills and the reckoning of `ringback-crash` |
//! | [`hostile`], [`waiters`] | clients that mean harm, and clients that wait: `ringback-hostile` |

pub mod bench;
pub mod beside;
pub mod compare;
pub mod crash;
pub mod hostile;
pub mod ledger;
pub mod load;
pub mod node;
pub mod noop;
pub mod peer;
pub mod report;
pub mod syncs;
pub mod usage;
pub mod waiters;
pub mod wire;
