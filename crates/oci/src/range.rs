//! Byte ranges: `Range` and `Content-Range` (RFC 9110 §14).

use std::fmt;
use std::str::FromStr;

/// One range, as asked. Positions that do not fit 64 bits are held as the largest number that does, which lies beyond
/// the end of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeRequest {
    /// `bytes=<start>-`
    From { start: u64 },
    /// `bytes=<start>-<end>`, both included, `start <= end`.
    FromTo { start: u64, end: u64 },
    /// `bytes=-<len>`: the last `len` bytes.
    Suffix { len: u64 },
}

/// Why a `Range` header is ignored, and the whole served with 200, as RFC 9110 §14.2 allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("the range unit is not bytes")]
    Unit,
    #[error("only one range per request is served")]
    Several,
    #[error("the Range header is malformed: write bytes=<first>-<last>")]
    Malformed,
}

/// The range lies outside of the object: 416, with [`unsatisfied`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range lies outside of the {size} bytes there are")]
pub struct Unsatisfiable {
    pub size: u64,
}

/// Some bytes of an object: from `start` up to, and without, `end`. Never empty when it comes from
/// [`RangeRequest::resolve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteSpan {
    pub start: u64,
    pub end: u64,
}

/// `Content-Range: bytes <start>-<end_inclusive>/<size>`; an unknown size is `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    pub start: u64,
    pub end_inclusive: u64,
    pub size: Option<u64>,
}

/// An upstream's `Content-Range` that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Content-Range header is not of the form bytes <first>-<last>/<size>, with first <= last < size")]
pub struct ContentRangeError;

/// The `Content-Range` of a 416.
pub fn unsatisfied(size: u64) -> String {
    format!("bytes */{size}")
}

impl RangeRequest {
    /// Reads the value of a `Range` header. Every error means: as if there were no such header.
    pub fn parse(value: &str) -> Result<RangeRequest, RangeError> {
        let (unit, set) = value.split_once('=').ok_or(RangeError::Malformed)?;
        if !unit.trim_matches(OWS).eq_ignore_ascii_case("bytes") {
            return Err(RangeError::Unit);
        }
        // A list may have empty members (RFC 9110 §5.6.1.2).
        let mut specs = set
            .split(',')
            .map(|spec| spec.trim_matches(OWS))
            .filter(|spec| !spec.is_empty());
        let spec = specs.next().ok_or(RangeError::Malformed)?;
        if specs.next().is_some() {
            return Err(RangeError::Several);
        }
        let (first, last) = spec.split_once('-').ok_or(RangeError::Malformed)?;
        match (first, last) {
            ("", len) => Ok(RangeRequest::Suffix { len: position(len)? }),
            (start, "") => Ok(RangeRequest::From {
                start: position(start)?,
            }),
            (start, end) => {
                let (start, end) = (position(start)?, position(end)?);
                if end < start {
                    Err(RangeError::Malformed)
                } else {
                    Ok(RangeRequest::FromTo { start, end })
                }
            }
        }
    }

    /// The bytes meant in an object of `size` bytes. Of an empty object no range can be served, as no `Content-Range`
    /// could describe it.
    pub fn resolve(self, size: u64) -> Result<ByteSpan, Unsatisfiable> {
        let (start, end) = match self {
            RangeRequest::From { start } => (start, size),
            RangeRequest::FromTo { start, end } => (start, end.saturating_add(1).min(size)),
            RangeRequest::Suffix { len } => (size - len.min(size), size),
        };
        if start < end {
            Ok(ByteSpan { start, end })
        } else {
            Err(Unsatisfiable { size })
        }
    }
}

const OWS: [char; 2] = [' ', '\t'];

/// `1*DIGIT`, saturating.
fn position(digits: &str) -> Result<u64, RangeError> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RangeError::Malformed);
    }
    Ok(digits.bytes().fold(0_u64, |number, digit| {
        number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    }))
}

impl ByteSpan {
    /// All of an object of `size` bytes.
    pub fn whole(size: u64) -> ByteSpan {
        ByteSpan { start: 0, end: size }
    }

    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How a 206 describes this span of an object of `size` bytes; none if it is empty.
    pub fn content_range(&self, size: u64) -> Option<ContentRange> {
        let end_inclusive = self.end.checked_sub(1).filter(|last| *last >= self.start)?;
        Some(ContentRange {
            start: self.start,
            end_inclusive,
            size: Some(size),
        })
    }
}

impl ContentRange {
    /// The bytes it describes. One that ends at the largest number there is loses that byte; no object is so large.
    pub fn span(&self) -> ByteSpan {
        ByteSpan {
            start: self.start,
            end: self.end_inclusive.saturating_add(1),
        }
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}-{}/", self.start, self.end_inclusive)?;
        match self.size {
            Some(size) => write!(f, "{size}"),
            None => f.write_str("*"),
        }
    }
}

impl FromStr for ContentRange {
    type Err = ContentRangeError;

    /// Strict: no saturation, for what it says decides where bytes are written.
    fn from_str(value: &str) -> Result<ContentRange, ContentRangeError> {
        let (unit, rest) = value.trim_matches(OWS).split_once(' ').ok_or(ContentRangeError)?;
        let (range, size) = rest.trim_matches(OWS).split_once('/').ok_or(ContentRangeError)?;
        let (start, end) = range.split_once('-').ok_or(ContentRangeError)?;
        let (start, end_inclusive) = (exact(start)?, exact(end)?);
        let size = if size == "*" { None } else { Some(exact(size)?) };
        let fits = start <= end_inclusive && size.is_none_or(|size| end_inclusive < size);
        if unit.eq_ignore_ascii_case("bytes") && fits {
            Ok(ContentRange {
                start,
                end_inclusive,
                size,
            })
        } else {
            Err(ContentRangeError)
        }
    }
}

fn exact(digits: &str) -> Result<u64, ContentRangeError> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        digits.parse().map_err(|_| ContentRangeError)
    } else {
        Err(ContentRangeError)
    }
}
