//! Ringback through its front door.
//!
//! Every test starts the real program as a child process, with a real upstream and a real receiver
//! on sockets of its own. Nothing here looks inside the library; a test sees what a user sees.

mod support;

mod admin;
mod asked;
mod bad_input;
mod call;
mod canary;
mod cancel;
mod check_uri;
mod client_certificates;
mod compact;
mod configuration;
mod cors;
mod crash;
mod crash_suite;
mod documents;
mod faults;
mod handshakes;
mod httpbin;
mod hung_receivers;
mod identity;
mod keys;
mod lifecycle;
mod limits;
mod listen;
mod own_listeners;
mod parts;
mod problem;
mod proxy;
mod receiver_tls;
mod repeat;
mod replay;
mod results;
mod retention;
mod retries;
mod routing;
mod sandbox;
mod signatures;
mod stream;
mod submit;
mod tidy;
mod tls;
mod unsafe_calls;
mod verifiers;
mod waiting;
mod webhook;
