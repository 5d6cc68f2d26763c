//! Where our credentials go (T-CR1 to T-CR6, T-CR8, T-CR9), and where we go ourselves (T-SS1 to T-SS4, T-SS6, T-OP1).

#[path = "../common/mod.rs"]
mod common;

mod accounts;
mod canary;
mod challenge;
mod home;
mod namespace;
mod open_proxy;
mod redirect;
