//! What must hold for every input of each parser, and what drives it.

mod corpus;
mod harness;
mod properties;
