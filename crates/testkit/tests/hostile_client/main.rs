//! Clients that mean harm: T-HC1 to T-HC6, T-HC9, T-HC10, and T-BI3 and T-BI4 through the socket.

#[path = "../common/mod.rs"]
mod common;

mod credentials;
mod digests;
mod forms;
mod labels;
mod logs;
mod methods;
mod names;
mod paging;
mod ranges;
mod smuggling;
