//! Content digests: `sha256:<64 hex>` and `sha512:<128 hex>`, the two registered algorithms of the image-spec.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};
use sha2::Digest as _;

/// The name of some bytes: an algorithm and what it makes of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

/// A registered digest algorithm (image-spec, "Registered identifiers").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

/// Why a text is not a digest. All of them answer `DIGEST_INVALID`; the text itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("a digest has the form <algorithm>:<hex>; there is no ':'")]
    NoSeparator,
    #[error("the digest algorithm is not supported: use sha256 or sha512")]
    Algorithm,
    #[error("a {algorithm} digest has {} hex digits, not {found}", algorithm.hex_len())]
    Length { algorithm: Algorithm, found: usize },
    #[error("the hex digits of a digest are 0-9 and a-f, in lower case")]
    Hex,
}

/// Digests bytes as they come.
#[derive(Clone)]
pub enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The sha256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, bytes)
    }

    pub fn algorithm(&self) -> Algorithm {
        match self {
            Digest::Sha256(_) => Algorithm::Sha256,
            Digest::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The digest itself: 32 or 64 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Digest::Sha256(bytes) => bytes,
            Digest::Sha512(bytes) => bytes,
        }
    }

    /// The part after the colon, in lower case.
    pub fn hex(&self) -> String {
        self.text().as_str()[self.algorithm().as_str().len() + 1..].to_owned()
    }

    /// As it is written, without an allocation.
    pub fn text(&self) -> DigestText {
        let algorithm = self.algorithm().as_str().as_bytes();
        let mut text = [0; DigestText::MAX];
        text[..algorithm.len()].copy_from_slice(algorithm);
        text[algorithm.len()] = b':';
        let (pairs, _) = text[algorithm.len() + 1..].as_chunks_mut();
        for (pair, byte) in pairs.iter_mut().zip(self.as_bytes()) {
            *pair = PAIRS[usize::from(*byte)];
        }
        DigestText { text, length: algorithm.len() + 1 + self.algorithm().hex_len() }
    }
}

/// What a digest is written as: `sha256:…`.
#[derive(Clone, Copy, Debug)]
pub struct DigestText {
    text: [u8; DigestText::MAX],
    length: usize,
}

impl DigestText {
    /// `sha512:` and its digits.
    const MAX: usize = 7 + 128;

    pub fn as_str(&self) -> &str {
        // Nothing but ASCII is ever written into it.
        std::str::from_utf8(&self.text[..self.length]).unwrap_or_default()
    }
}

/// Each byte in hex.
const PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

impl Algorithm {
    /// Every algorithm there is.
    pub const ALL: &'static [Algorithm] = &[Algorithm::Sha256, Algorithm::Sha512];

    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Bytes in a digest of this algorithm.
    pub fn digest_len(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }

    /// Hex digits in a digest of this algorithm.
    pub fn hex_len(self) -> usize {
        self.digest_len() * 2
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Algorithm, DigestError> {
        Algorithm::ALL.iter().copied().find(|it| it.as_str() == text).ok_or(DigestError::Algorithm)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    /// Strict: the canonical spelling and no other, so that one object has one name (image-spec, "Digests").
    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::NoSeparator)?;
        let algorithm: Algorithm = algorithm.parse()?;
        if hex.len() != algorithm.hex_len() {
            return Err(DigestError::Length { algorithm, found: hex.chars().count() });
        }
        match algorithm {
            Algorithm::Sha256 => unhex(hex).map(Digest::Sha256),
            Algorithm::Sha512 => unhex(hex).map(Digest::Sha512),
        }
    }
}

/// `hex` has exactly `2 * N` bytes.
fn unhex<const N: usize>(hex: &str) -> Result<[u8; N], DigestError> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(bytes)
}

fn nibble(digit: u8) -> Result<u8, DigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(DigestError::Hex),
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Digest;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a digest")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Digest, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl Hasher {
    pub fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Hasher::Sha512(hasher) => Digest::Sha512(hasher.finalize().into()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hasher::Sha256(_) => "Hasher(sha256)",
            Hasher::Sha512(_) => "Hasher(sha512)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_256: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const EMPTY_512: &str = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
                             47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";

    #[test]
    fn t_bi3_both_algorithms_work_end_to_end() {
        for (algorithm, text) in [(Algorithm::Sha256, EMPTY_256), (Algorithm::Sha512, EMPTY_512)] {
            let digest: Digest = text.parse().unwrap();
            assert_eq!(digest, Digest::of(algorithm, b""));
            assert_eq!(digest.to_string(), text);
            assert_eq!(digest.algorithm(), algorithm);
            assert_eq!(digest.as_bytes().len(), algorithm.digest_len());
            assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Digest>(&format!("\"{text}\"")).unwrap(), digest);
        }
    }

    #[test]
    fn t_bi3_everything_else_is_refused() {
        let digits = "0123456789abcdef".repeat(4);
        let wrong_length = |found| DigestError::Length { algorithm: Algorithm::Sha256, found };
        let rows = [
            (String::new(), DigestError::NoSeparator),
            (digits.clone(), DigestError::NoSeparator),
            (format!("sha256-{digits}"), DigestError::NoSeparator),
            (format!("sha256%3A{digits}"), DigestError::NoSeparator),
            (format!(":{digits}"), DigestError::Algorithm),
            (format!("SHA256:{digits}"), DigestError::Algorithm),
            (format!("sha1:{}", &digits[..40]), DigestError::Algorithm),
            (format!("sha384:{}", digits.repeat(2)), DigestError::Algorithm),
            (format!("md5:{digits}"), DigestError::Algorithm),
            (format!(" sha256:{digits}"), DigestError::Algorithm),
            ("sha256:".into(), wrong_length(0)),
            (format!("sha256:{}", &digits[1..]), wrong_length(63)),
            (format!("sha256:{digits}0"), wrong_length(65)),
            (format!("sha256:{digits}\n"), wrong_length(65)),
            (format!("sha256:{}", "a".repeat(10_240)), wrong_length(10_240)),
            (format!("sha512:{digits}"), DigestError::Length { algorithm: Algorithm::Sha512, found: 64 }),
            (format!("sha256:{}", digits.to_uppercase()), DigestError::Hex),
            (format!("sha256:{}A", &digits[1..]), DigestError::Hex),
            (format!("sha256::{}", &digits[1..]), DigestError::Hex),
            (format!("sha256:../{}", &digits[3..]), DigestError::Hex),
            // Digits of other scripts: 32 characters of two bytes, 16 of four.
            (format!("sha256:{}", "\u{661}".repeat(32)), DigestError::Hex),
            (format!("sha256:{}", "\u{1D7D8}".repeat(16)), DigestError::Hex),
            (format!("sha256:{}", "\u{FF11}".repeat(64)), wrong_length(64)),
        ];
        for (text, expected) in rows {
            assert_eq!(text.parse::<Digest>(), Err(expected), "{text:?}");
            assert!(expected.to_string().len() < 200, "{expected}");
            let json = serde_json::to_string(&text).unwrap();
            assert!(serde_json::from_str::<Digest>(&json).is_err(), "{text:?}");
        }
        assert!(serde_json::from_str::<Digest>("17").is_err());
    }

    #[test]
    fn hashing_in_pieces_is_hashing_at_once() {
        for &algorithm in Algorithm::ALL {
            let mut hasher = Hasher::new(algorithm);
            for piece in [b"entre".as_slice(), b"", b"p\xC3\xB4t"] {
                hasher.update(piece);
            }
            assert_eq!(hasher.clone().finish(), Digest::of(algorithm, "entrepôt".as_bytes()));
            assert_eq!(format!("{hasher:?}"), format!("Hasher({algorithm})"));
        }
    }
}
