//! The paths of the registry API, and nothing else.
//!
//! A repository name may hold slashes and words like `manifests`, so a path is read from the right (wire behaviour of
//! every registry; distribution-spec, "Endpoints").

use std::borrow::Cow;
use std::fmt;

use crate::digest::{Digest, DigestError};
use crate::name::{Reference, ReferenceError};

/// A request path, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiPath {
    /// What stands before `/v2`, without slashes at its ends: Docker's `registry-mirrors` with a path ask
    /// `/<root>/v2/…`. At most [`MAX_ROOT`] bytes.
    pub root: Option<String>,
    pub call: Call,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `/v2` and `/v2/` (`end-1`).
    Ping,
    /// `/v2/_catalog`, which no spec defines any more.
    Catalog,
    /// `/v2/<name>/manifests/<reference>` (`end-3`, `end-7`, `end-9`).
    Manifest { name: RawName, reference: Result<Reference, ReferenceError> },
    /// `/v2/<name>/blobs/<digest>` (`end-2`, `end-10`).
    Blob { name: RawName, digest: Result<Digest, DigestError> },
    /// `/v2/<name>/tags/list` (`end-8a`, `end-8b`).
    Tags { name: RawName },
    /// `/v2/<name>/referrers/<digest>` (`end-12a`, `end-12b`).
    Referrers { name: RawName, digest: Result<Digest, DigestError> },
    /// `/v2/<name>/blobs/uploads/…` (`end-4` to `end-6`, `end-11`): pushing.
    Upload { name: RawName },
    /// `/token`: our own token endpoint.
    Token,
}

/// The text where a repository name is expected: not yet a [`crate::Repository`], for its first component may be a
/// registry's host and port. Segments are neither empty nor `.` nor `..`, and hold visible ASCII without `%` and `\`;
/// at most [`MAX_NAME`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RawName(String);

/// Why a path is no path of ours. The path itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("there is nothing here: the registry API begins at /v2/")]
    NotOurs,
    #[error("the registry API has no such endpoint")]
    NoSuchEndpoint,
    #[error("the path has an empty segment: write each '/' once")]
    EmptySegment,
    #[error("the path has a '.' or '..' segment: write the path without them")]
    DotSegment,
    #[error("the path holds a character, or a percent-encoding, that no repository name has")]
    Character,
    #[error("the repository name or the prefix before it is too long")]
    TooLong,
}

/// How a [`PathError`] is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathClass {
    /// 404: not an endpoint.
    NotFound,
    /// 400 `NAME_INVALID`.
    NameInvalid,
}

/// Bytes of a [`RawName`] at most: a repository of 255, a `/`, and a host name of 253 with a port.
pub const MAX_NAME: usize = 515;
/// Bytes of [`ApiPath::root`] at most.
pub const MAX_ROOT: usize = 255;

/// Parts of a path, usually; of more, the memory for them has to be moved.
const SEGMENTS: usize = 12;

/// Reads the path of a request: no query, percent-encodings as they came.
pub fn parse(path: &str) -> Result<ApiPath, PathError> {
    let mut segments = Vec::with_capacity(SEGMENTS);
    segments.extend(path.strip_prefix('/').ok_or(PathError::NotOurs)?.split('/'));
    if let Some(at) = segments.iter().position(|&segment| segment == "v2") {
        let (root, rest) = segments.split_at(at);
        return Ok(ApiPath { root: parse_root(root)?, call: parse_call(&rest[1..])? });
    }
    match segments.split_last() {
        Some((&"token", root)) => Ok(ApiPath { root: parse_root(root)?, call: Call::Token }),
        _ => Err(PathError::NotOurs),
    }
}

impl PathError {
    pub fn class(self) -> PathClass {
        match self {
            PathError::NotOurs | PathError::NoSuchEndpoint => PathClass::NotFound,
            PathError::EmptySegment | PathError::DotSegment | PathError::Character | PathError::TooLong => {
                PathClass::NameInvalid
            }
        }
    }
}

impl RawName {
    /// Checks a text as [`parse()`] checks the name in a path.
    pub fn parse(text: &str) -> Result<RawName, PathError> {
        raw_name(&text.split('/').collect::<Vec<_>>())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first component and what follows it, if anything does.
    pub fn split_first(&self) -> (&str, Option<&str>) {
        match self.0.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (&self.0, None),
        }
    }
}

impl fmt::Display for RawName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RawName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

fn parse_root(segments: &[&str]) -> Result<Option<String>, PathError> {
    if segments.is_empty() {
        return Ok(None);
    }
    joined(segments, MAX_ROOT).map(Some)
}

/// The segments after `v2`.
fn parse_call(segments: &[&str]) -> Result<Call, PathError> {
    match segments {
        [] | [""] => Ok(Call::Ping),
        ["_catalog"] => Ok(Call::Catalog),
        [name @ .., "tags", "list"] => Ok(Call::Tags { name: raw_name(name)? }),
        [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
            Ok(Call::Upload { name: raw_name(name)? })
        }
        [name @ .., "manifests", reference] => {
            let reference = last(reference)?.parse();
            Ok(Call::Manifest { name: raw_name(name)?, reference })
        }
        [name @ .., "blobs", digest] => {
            let digest = last(digest)?.parse();
            Ok(Call::Blob { name: raw_name(name)?, digest })
        }
        [name @ .., "referrers", digest] => {
            let digest = last(digest)?.parse();
            Ok(Call::Referrers { name: raw_name(name)?, digest })
        }
        [name @ .., "blobs", "uploads", session] => {
            last(session)?;
            Ok(Call::Upload { name: raw_name(name)? })
        }
        // A path with a flaw is told so even where it is no endpoint.
        _ => joined(segments, usize::MAX).and(Err(PathError::NoSuchEndpoint)),
    }
}

fn raw_name(segments: &[&str]) -> Result<RawName, PathError> {
    if segments.is_empty() {
        return Err(PathError::NoSuchEndpoint);
    }
    joined(segments, MAX_NAME).map(RawName)
}

fn joined(segments: &[&str], max: usize) -> Result<String, PathError> {
    for segment in segments {
        check_shape(segment)?;
        if !segment.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%' && byte != b'\\') {
            return Err(PathError::Character);
        }
    }
    let text = segments.join("/");
    if text.len() > max { Err(PathError::TooLong) } else { Ok(text) }
}

/// The last segment: clients may write the colon of a digest as `%3A`. Anything else that is odd in it is left to the
/// grammar of what stands there, so that a bad digest is called a bad digest.
fn last(segment: &str) -> Result<Cow<'_, str>, PathError> {
    check_shape(segment)?;
    Ok(match segment.contains('%') {
        true => Cow::Owned(segment.replace("%3A", ":").replace("%3a", ":")),
        false => Cow::Borrowed(segment),
    })
}

fn check_shape(segment: &str) -> Result<(), PathError> {
    match segment {
        "" => Err(PathError::EmptySegment),
        "." | ".." => Err(PathError::DotSegment),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
