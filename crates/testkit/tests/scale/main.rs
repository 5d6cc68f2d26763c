//! Size: fifty clients behind a long link, a layer of 2 GB, a store of 100,000 objects, and an end under load.

#[path = "../common/mod.rs"]
mod common;

mod idle;
mod large;
mod shutdown;
mod startup;
mod wan;

/// Anonymous memory that the mirror may use, in KiB.
pub const MEMORY: u64 = 64 * 1024;
