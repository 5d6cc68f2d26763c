//! The size of a document's structure, before anything is built from it.

use super::{MAX_DEPTH, MAX_KEYS, ManifestError};

/// Counts brackets and colons outside of strings. In a document that is not JSON the counts mean nothing; the parser
/// refuses it afterwards.
pub(super) fn check(bytes: &[u8]) -> Result<(), ManifestError> {
    let (mut depth, mut keys) = (0_usize, 0_usize);
    let mut quoted = false;
    let mut escaped = false;
    for byte in bytes {
        if quoted {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => quoted = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b':' => keys += 1,
            _ => continue,
        }
        if depth > MAX_DEPTH {
            return Err(ManifestError::TooDeep);
        }
        if keys > MAX_KEYS {
            return Err(ManifestError::TooManyKeys);
        }
    }
    Ok(())
}
