//! Ringback through its front door.
//!
//! Every test starts the real program as a child process, with a real upstream and a real receiver
//! on sockets of its own. Nothing here looks inside the library; a test sees what a user sees.

mod support;

mod bad_input;
mod cors;
mod crash;
mod identity;
mod proxy;
mod results;
mod retries;
mod routing;
mod submit;
mod webhook;
