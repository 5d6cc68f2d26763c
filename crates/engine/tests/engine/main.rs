//! The engine through its ports: every step in order, against a scripted upstream, in virtual time.

mod access;
mod blobs;
mod bypass;
mod flights;
mod integrity;
mod limits;
mod lists;
mod manifests;
mod memory;
mod samples;
mod tags;
