//! The acceptance tests of the mirror at home against the Worker: the very same test functions, with the Worker behind the
//! names of `common`. What is left out is in `apart.rs`, with the reason.

#[path = "../common/edge.rs"]
mod common;

mod access;
mod apart;
mod hostile_client;
mod hostile_upstream;
mod upstream_faults;
