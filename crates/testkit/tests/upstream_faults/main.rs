//! Upstreams that fail: T-UF1 to T-UF5, T-UF7.

#[path = "../common/mod.rs"]
mod common;

mod broken;
mod cold;
mod faults;
mod pieces;
mod slow;
mod start;
mod token;
mod warm;
