//! Who may have what, and from whom: T-AZ1, T-AZ5, T-AZ6, T-AZ9, T-CP1, T-CP3, T-CP4, T-CR9, T-RL2, T-RL4 to T-RL7; and
//! what an upstream may call a manifest: T-BI1, T-BI2, T-BI5, T-BI6.

#[path = "../common/mod.rs"]
mod common;

mod budget;
mod closed;
mod cost;
mod crossing;
mod guarded;
mod isolation;
mod known;
mod limits;
mod limits_by_address;
mod manifests;
mod negative;
mod negotiation;
mod public;
mod realm;
mod sizes;
