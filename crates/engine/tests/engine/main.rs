//! The engine through its ports: every step in order, against a scripted upstream, in virtual time.
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic as the test does")]

mod access;
mod ahead;
mod apart;
mod blobs;
mod bypass;
mod errands;
mod flights;
mod integrity;
mod limits;
mod lists;
mod manifests;
mod memory;
mod pieces;
mod samples;
mod tags;
mod transcripts;
mod warm;
