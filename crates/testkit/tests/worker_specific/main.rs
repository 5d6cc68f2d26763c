//! What is true of the Worker alone: T-WK1, T-WK3, T-WK4 and T-WK5, what it keeps and tells, and what it answers outside
//! the registry's paths.

#[path = "../common/edge.rs"]
mod common;

mod apart {
    /// Nothing here is also asked of the mirror at home.
    pub(crate) fn at_home_only(_test: &str) -> bool {
        false
    }
}

mod caches;
mod doors;
mod memory;
mod subrequests;
