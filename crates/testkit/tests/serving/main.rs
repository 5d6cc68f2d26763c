//! Running the mirror: reloading its configuration, TLS and HTTP/2 with a real client, and the operator's address.

#[path = "../common/mod.rs"]
mod common;

mod admin;
mod protocols;
mod reload;
