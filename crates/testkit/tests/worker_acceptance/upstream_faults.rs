//! Upstreams that fail, behind the Worker.

#[path = "../upstream_faults/cold.rs"]
mod cold;
#[path = "../upstream_faults/faults.rs"]
mod faults;
#[path = "../upstream_faults/slow.rs"]
mod slow;
#[path = "../upstream_faults/start.rs"]
mod start;
#[path = "../upstream_faults/token.rs"]
mod token;
#[path = "../upstream_faults/warm.rs"]
mod warm;
