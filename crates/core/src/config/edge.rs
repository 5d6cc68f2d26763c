//! The configuration as the edge reads it: closed unless opened, with a limit unless told otherwise, and without what only
//! a machine at home has.

use super::read::{Reader, Site};
use super::{Loaded, Problems, SecretRef, read_all};

/// As [`super::parse`], where a Worker runs: `access.anonymous` is false and `rate_limit` is `100/min` unless the file says
/// otherwise, and what needs files or programs is a problem. `secrets` is asked for variables only.
///
/// # Errors
/// All that is wrong.
pub fn parse(
    text: &str,
    file: &str,
    secrets: &mut dyn FnMut(&SecretRef) -> Result<String, String>,
) -> Result<Loaded, Problems> {
    read_all(text, Reader::new(file, Site::Edge, secrets))
}
