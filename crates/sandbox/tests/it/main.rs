//! Through the front door: bank and inbox on real sockets.

mod data;
mod inbox;
mod support;
mod tokens;
mod trouble;
