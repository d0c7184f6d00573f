//! Faults at the store's edge: what a node says and does while its disk fails, is full, lies, or is cut off
//! from power, and while its clock jumps. Everything is done to a real node from outside; see `edge.c`.

mod clock;
mod full;
mod power;
mod refused;
mod starting;
mod sweep;
