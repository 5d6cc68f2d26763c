//! What a mirror decides: values in, values out.
//!
//! Nothing here is asynchronous, reads a clock, draws a random number, opens a file or a socket, or looks at the
//! environment: time, randomness, secrets and configuration are arguments. The engine performs what this crate answers.
#![forbid(unsafe_code)]

pub mod access;
pub mod admit;
pub mod ahead;
pub mod answer;
pub mod config;
pub mod event;
pub mod evict;
pub mod failure;
mod forward;
pub mod freshness;
pub mod integrity;
pub mod limit;
pub mod list;
pub mod net;
pub mod pattern;
pub mod registries;
pub mod repeat;
pub mod resolve;
pub mod time;
pub mod upstream;
