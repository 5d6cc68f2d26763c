//! The words of the OCI distribution-spec: names, digests, references, ranges, media types, manifests, errors.
//!
//! Values in, values out. Everything a client or a registry sends is parsed here, once, into a closed type; whatever does
//! not fit is an error that says why. Nothing here does I/O, and no input makes it panic or grow beyond its bounds.

pub mod challenge;
pub mod digest;
pub mod error;
mod field;
pub mod link;
pub mod manifest;
pub mod media;
pub mod name;
pub mod path;
pub mod quota;
pub mod range;
pub mod referrers;
pub mod tags;

pub use digest::{Algorithm, Digest, Hasher};
pub use error::ErrorCode;
pub use manifest::{Descriptor, Manifest};
pub use media::MediaType;
pub use name::{Reference, Repository, Tag};
