//! The gateway over real sockets: raw clients before it, scripted upstreams behind it.

mod framed;
mod http2;
mod proxied;
mod refused;
mod served;
mod support;
