//! The configuration: what the operator wrote, checked whole and turned into values that need no second look.

mod model;

pub use model::*;
