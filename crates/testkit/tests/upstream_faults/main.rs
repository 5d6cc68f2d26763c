//! Upstreams that fail: T-UF1 to T-UF5, T-UF7; what the mirror makes of their answers: T-CP1, T-CP3, T-CP4, T-RL7.

#[path = "../common/mod.rs"]
mod common;

mod broken;
mod budget;
mod cold;
mod crossing;
mod faults;
mod negative;
mod slow;
mod start;
mod token;
mod warm;
