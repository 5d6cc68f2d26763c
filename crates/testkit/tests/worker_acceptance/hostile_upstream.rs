//! Upstreams that lie, before the Worker.

#[path = "../hostile_upstream/bounds.rs"]
mod bounds;
#[path = "../hostile_upstream/encodings.rs"]
mod encodings;
#[path = "../hostile_upstream/headers.rs"]
mod headers;
#[path = "../hostile_upstream/integrity.rs"]
mod integrity;
#[path = "../hostile_upstream/tags.rs"]
mod tags;
#[path = "../hostile_upstream/wrong_answers.rs"]
mod wrong_answers;
