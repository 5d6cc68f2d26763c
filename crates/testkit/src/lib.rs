//! What the tests of Entrepot are made of: upstreams that follow a script, a mirror in its own process, a link that
//! is as slow as a real one, and a client that sees how an answer ended. Nothing here is part of the product.

pub mod edge;
pub mod http;
pub mod limits;
pub mod mirror;
pub mod real;
pub mod script;
pub mod transcript;
pub mod wan;
