//! The store under disk faults, full disks, rot and crashes: T-DF1, T-DF4 to T-DF6, T-CS1, T-CS4 to T-CS6.

#[path = "../common/mod.rs"]
mod common;

mod crash;
mod ending;
mod eviction;
mod faults;
mod index;
mod panics;
mod rot;
mod shelf;
mod trouble;
