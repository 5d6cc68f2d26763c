//! Upstreams that lie: T-HU1 to T-HU7, T-HU9, T-HU10.

#[path = "../common/mod.rs"]
mod common;

mod bounds;
mod encodings;
mod headers;
mod integrity;
mod tags;
mod wrong_answers;
