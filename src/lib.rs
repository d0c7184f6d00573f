//! Ringback puts an asynchronous mode in front of any HTTP API.
//!
//! The map, in the direction imports may point (`main → cli, config → service → {gateway, worker,
//! janitor} → {store, upstream, webhook, identity} → domain`):
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | the commands a person types, one file each |
//! | [`config`] | every setting, where it comes from, and what is refused |
//! | [`service`] | builds one node from a configuration, runs it, drains it |
//! | [`gateway`] | the listener: routes a call, proxies it, makes it a task, hands out results |
//! | [`worker`] | runs tasks and deliveries: the only place that joins store, upstream and webhook |
//! | [`janitor`] | removes what retention no longer keeps |
//! | [`admin`] | `/livez`, `/readyz`, `/metrics` |
//! | [`store`] | durable state: one operation, one transaction |
//! | [`upstream`] | one exchange with the API a task is sent to |
//! | [`webhook`] | one delivery attempt at a receiver |
//! | [`client`] | keep-alive connections to addresses somebody has checked |
//! | [`identity`] | from an access token to a credentials id |
//! | [`guard`] | which addresses a webhook may be sent to |
//! | [`seal`] | what is encrypted at rest, and with which key |
//! | [`signing`] | the node's webhook keys, and what receivers may know of them |
//! | [`header_block`] | a header section as one value to seal |
//! | [`watch`] | wakes whoever waits for a task to change |
//! | [`telemetry`] | logs and metrics: the names of both |
//! | [`task`], [`outcome`], [`delivery`], [`backoff`], [`lease`], [`id`] | the domain: pure, no I/O, no clock |
//! | [`admission`] | how many calls the writer may accept now: pure |
//! | [`pace`] | how long an upstream's calls take of late: pure |
//! | [`room`] | how much a store may hold, and how fast it is emptied: pure |
//! | [`clock`], [`secret`] | time as a value; text that is never printed |

pub mod admin;
pub mod admission;
pub mod backoff;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod gateway;
pub mod guard;
pub mod header_block;
pub mod id;
pub mod identity;
pub mod janitor;
pub mod lease;
pub mod outcome;
pub mod pace;
pub mod room;
pub mod seal;
pub mod secret;
pub mod service;
pub mod signing;
#[cfg(test)]
mod sim;
pub mod store;
pub mod task;
pub mod telemetry;
pub mod upstream;
pub mod watch;
pub mod webhook;
pub mod worker;
