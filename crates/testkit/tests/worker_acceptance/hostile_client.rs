//! Clients that lie, before the Worker.

#[path = "../hostile_client/credentials.rs"]
mod credentials;
#[path = "../hostile_client/digests.rs"]
mod digests;

#[path = "../hostile_client/methods.rs"]
mod methods;
#[path = "../hostile_client/names.rs"]
mod names;
#[path = "../hostile_client/paging.rs"]
mod paging;
#[path = "../hostile_client/ranges.rs"]
mod ranges;
