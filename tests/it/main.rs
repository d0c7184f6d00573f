//! Ringback through its front door.
//!
//! Every test starts the real program as a child process, with a real upstream and a real receiver
//! on sockets of its own. Nothing here looks inside the library; a test sees what a user sees.

mod support;

mod bad_input;
mod crash;
mod results;
mod retries;
mod submit;
mod webhook;
