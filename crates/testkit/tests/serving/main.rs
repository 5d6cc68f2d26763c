//! Running the mirror: reloading its configuration, TLS and HTTP/2 with a real client, and the operator's address.
#![expect(clippy::unwrap_used, reason = "a test's helper fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod admin;
mod protocols;
mod reload;
