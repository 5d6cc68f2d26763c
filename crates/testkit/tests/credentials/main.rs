//! Who gets what: our credentials upstream (T-CR1 to T-CR6, T-CR8, T-CR9), the addresses we go to (T-SS1 to T-SS3, T-SS6,
//! T-OP1), the content that clients may have (T-AZ1, T-AZ5, T-AZ9), and how often (T-RL2, T-RL4 to T-RL6).

#[path = "../common/mod.rs"]
mod common;

mod accounts;
mod anonymous;
mod canary;
mod challenge;
mod isolation;
mod limits;
mod namespace;
mod open_proxy;
mod redirect;
mod writes;
