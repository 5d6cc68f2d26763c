use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use sha2::{Digest as _, Sha256, Sha512};

/// `sha256:<hex>` of some bytes, as registries write it.
pub fn sha256(bytes: &[u8]) -> String {
    hex_digest("sha256", &Sha256::digest(bytes))
}

/// `sha512:<hex>` of some bytes.
pub fn sha512(bytes: &[u8]) -> String {
    hex_digest("sha512", &Sha512::digest(bytes))
}

pub(crate) fn hex_digest(algorithm: &str, bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(format!("{algorithm}:"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of an answer. Large ones are computed as they are sent, so that a test of a 2 GB layer costs no memory.
#[derive(Clone)]
pub enum Body {
    Bytes(Bytes),
    Pattern(Pattern),
    /// Zeros without end.
    Endless,
}

impl Body {
    /// Bytes in all; `None` for an endless body.
    pub fn len(&self) -> Option<u64> {
        match self {
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::Pattern(pattern) => Some(pattern.len),
            Body::Endless => None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// `sha256:<hex>` of the whole body. Panics for an endless one.
    pub fn sha256(&self) -> String {
        let len = self.len().expect("an endless body has no digest");
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < len {
            let piece = self.read(at..len);
            hash.update(&piece);
            at += piece.len() as u64;
        }
        hex_digest("sha256", &hash.finalize())
    }

    /// All the bytes from `range`, which the body must contain.
    pub fn slice(&self, range: Range<u64>) -> Vec<u8> {
        let mut all = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let piece = self.read(at..range.end);
            at += piece.len() as u64;
            all.extend_from_slice(&piece);
        }
        all
    }

    /// At least one and at most 64 KiB bytes from the start of a range that is not empty and lies within the body.
    pub(crate) fn read(&self, range: Range<u64>) -> Bytes {
        match self {
            Body::Bytes(bytes) => {
                let end = range.end.min(range.start + BLOCK);
                bytes.slice(range.start as usize..end as usize)
            }
            Body::Pattern(pattern) => pattern.read(range),
            Body::Endless => {
                Bytes::from_static(&[0; 16 * 1024]).slice(..(range.end - range.start).min(16 * 1024) as usize)
            }
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len() {
            Some(len) => write!(f, "Body({len} bytes)"),
            None => f.write_str("Body(endless)"),
        }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Body::Bytes(bytes.into())
    }
}

impl From<&[u8]> for Body {
    fn from(bytes: &[u8]) -> Self {
        Body::Bytes(Bytes::copy_from_slice(bytes))
    }
}

impl From<&str> for Body {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Body::Bytes(bytes)
    }
}

impl From<Pattern> for Body {
    fn from(pattern: Pattern) -> Self {
        Body::Pattern(pattern)
    }
}

const BLOCK: u64 = 64 * 1024;

/// `len` bytes that look random, are the same for the same seed, and differ in every block of 64 KiB, so that a
/// misplaced piece changes the digest.
#[derive(Clone)]
pub struct Pattern {
    len: u64,
    block: Bytes,
}

impl Pattern {
    pub fn new(seed: u64, len: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut block = Vec::with_capacity(BLOCK as usize);
        while (block.len() as u64) < BLOCK {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_le_bytes());
        }
        Self { len, block: block.into() }
    }

    fn read(&self, range: Range<u64>) -> Bytes {
        let index = range.start / BLOCK;
        let from = (range.start % BLOCK) as usize;
        let to = (from as u64 + (range.end - range.start)).min(BLOCK) as usize;
        if from >= 8 {
            return self.block.slice(from..to);
        }
        let mut piece = self.block[from..to].to_vec();
        let label = index.to_le_bytes();
        for (byte, mark) in piece.iter_mut().zip(&label[from..]) {
            *byte ^= mark;
        }
        piece.into()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_reads_the_same_in_any_pieces() {
        let body = Body::from(Pattern::new(7, 3 * BLOCK + 11));
        let whole = body.slice(0..3 * BLOCK + 11);
        assert_eq!(whole.len() as u64, 3 * BLOCK + 11);
        assert_eq!(sha256(&whole), body.sha256());
        for (from, to) in [(0, 1), (3, 9), (BLOCK - 1, BLOCK + 12), (2 * BLOCK + 5, 3 * BLOCK + 11)] {
            assert_eq!(body.slice(from..to), whole[from as usize..to as usize]);
        }
        assert_ne!(whole[..BLOCK as usize], whole[BLOCK as usize..2 * BLOCK as usize]);
    }
}
