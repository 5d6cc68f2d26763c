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
        let mut specs = set.split(',').map(|spec| spec.trim_matches(OWS)).filter(|spec| !spec.is_empty());
        let spec = specs.next().ok_or(RangeError::Malformed)?;
        if specs.next().is_some() {
            return Err(RangeError::Several);
        }
        let (first, last) = spec.split_once('-').ok_or(RangeError::Malformed)?;
        match (first, last) {
            ("", len) => Ok(RangeRequest::Suffix { len: position(len)? }),
            (start, "") => Ok(RangeRequest::From { start: position(start)? }),
            (start, end) => {
                let (start, end) = (position(start)?, position(end)?);
                if end < start { Err(RangeError::Malformed) } else { Ok(RangeRequest::FromTo { start, end }) }
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
        if start < end { Ok(ByteSpan { start, end }) } else { Err(Unsatisfiable { size }) }
    }
}

const OWS: [char; 2] = [' ', '\t'];

/// `1*DIGIT`, saturating.
fn position(digits: &str) -> Result<u64, RangeError> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RangeError::Malformed);
    }
    Ok(digits
        .bytes()
        .fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
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
        Some(ContentRange { start: self.start, end_inclusive, size: Some(size) })
    }
}

impl ContentRange {
    /// The bytes it describes. One that ends at the largest number there is loses that byte; no object is so large.
    pub fn span(&self) -> ByteSpan {
        ByteSpan { start: self.start, end: self.end_inclusive.saturating_add(1) }
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
            Ok(ContentRange { start, end_inclusive, size })
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

#[cfg(test)]
mod tests {
    use super::RangeRequest::*;
    use super::*;

    #[test]
    fn t_hc5_range_headers_are_read_as_rfc_9110_says() {
        use RangeError::*;
        let max = u64::MAX;
        let rows: &[(&str, Result<RangeRequest, RangeError>)] = &[
            ("bytes=0-", Ok(From { start: 0 })),
            ("bytes=5-", Ok(From { start: 5 })),
            ("Bytes=5-9", Ok(FromTo { start: 5, end: 9 })),
            ("bytes=5-5", Ok(FromTo { start: 5, end: 5 })),
            ("bytes=-5", Ok(Suffix { len: 5 })),
            ("bytes=-0", Ok(Suffix { len: 0 })),
            ("bytes=0000000000000000000000000000007-", Ok(From { start: 7 })),
            ("bytes= 1-2 ", Ok(FromTo { start: 1, end: 2 })),
            ("bytes=,\t1-2,,", Ok(FromTo { start: 1, end: 2 })),
            ("bytes=9223372036854775808-", Ok(From { start: 1 << 63 })),
            ("bytes=18446744073709551615-", Ok(From { start: max })),
            ("bytes=18446744073709551616-", Ok(From { start: max })),
            ("bytes=0-99999999999999999999999", Ok(FromTo { start: 0, end: max })),
            ("bytes=-99999999999999999999999", Ok(Suffix { len: max })),
            ("bytes=5-2", Err(Malformed)),
            ("bytes=", Err(Malformed)),
            ("bytes=,", Err(Malformed)),
            ("bytes=-", Err(Malformed)),
            ("bytes=--5", Err(Malformed)),
            ("bytes=5", Err(Malformed)),
            ("bytes=5--7", Err(Malformed)),
            ("bytes=1 - 2", Err(Malformed)),
            ("bytes=+1-2", Err(Malformed)),
            ("bytes=0x1-", Err(Malformed)),
            ("bytes=\u{661}-", Err(Malformed)),
            ("bytes 0-5", Err(Malformed)),
            ("", Err(Malformed)),
            ("items=0-5", Err(Unit)),
            ("=0-5", Err(Unit)),
            ("bytes=0-1,2-3", Err(Several)),
            ("bytes=0-,0-", Err(Several)),
        ];
        for (value, expected) in rows {
            assert_eq!(RangeRequest::parse(value), *expected, "{value:?}");
        }
        let thousand = format!("bytes={}", vec!["0-"; 1000].join(","));
        assert_eq!(RangeRequest::parse(&thousand), Err(Several));
    }

    #[test]
    fn t_hc5_ranges_are_resolved_against_the_size() {
        let max = u64::MAX;
        let rows = [
            (From { start: 0 }, 10, Some((0, 10))),
            (From { start: 9 }, 10, Some((9, 10))),
            (From { start: 10 }, 10, None),
            (From { start: max }, max, None),
            (FromTo { start: 0, end: 0 }, 10, Some((0, 1))),
            (FromTo { start: 2, end: 99 }, 10, Some((2, 10))),
            (FromTo { start: 2, end: max }, 10, Some((2, 10))),
            (FromTo { start: 10, end: 12 }, 10, None),
            (FromTo { start: max, end: max }, max, None),
            (Suffix { len: 3 }, 10, Some((7, 10))),
            (Suffix { len: 10 }, 10, Some((0, 10))),
            (Suffix { len: max }, 10, Some((0, 10))),
            (Suffix { len: 0 }, 10, None),
            (From { start: 0 }, 0, None),
            (Suffix { len: 1 }, 0, None),
        ];
        for (range, size, expected) in rows {
            let expected = expected.map(|(start, end)| ByteSpan { start, end }).ok_or(Unsatisfiable { size });
            assert_eq!(range.resolve(size), expected, "{range:?} of {size}");
        }
        assert_eq!(unsatisfied(10), "bytes */10");
    }

    #[test]
    fn content_ranges_are_read_strictly() {
        let good = [
            ("bytes 0-0/1", (0, 0, Some(1))),
            ("bytes 5-9/10", (5, 9, Some(10))),
            ("bytes 5-9/*", (5, 9, None)),
            ("bytes 0-18446744073709551614/18446744073709551615", (0, u64::MAX - 1, Some(u64::MAX))),
        ];
        for (value, (start, end_inclusive, size)) in good {
            let range = ContentRange { start, end_inclusive, size };
            assert_eq!(value.parse(), Ok(range), "{value}");
            assert_eq!(range.to_string(), value);
        }
        let bad = [
            "",
            "bytes",
            "bytes */10",
            "bytes 5-9",
            "bytes 5-10/10",
            "bytes 9-5/10",
            "bytes -5/10",
            "bytes 5-/10",
            "bytes=5-9/10",
            "items 5-9/10",
            "bytes 5-9/",
            "bytes 5-9/x",
            "bytes 5-9/+10",
            "bytes +5-9/10",
            "bytes 0-0/18446744073709551616",
            "bytes 0-18446744073709551616/*",
            "bytes 5 - 9/10",
            "bytes 0-0/0",
        ];
        for value in bad {
            assert_eq!(value.parse::<ContentRange>(), Err(ContentRangeError), "{value:?}");
        }
    }

    #[test]
    fn a_span_describes_itself() {
        let span = ByteSpan { start: 2, end: 5 };
        assert_eq!((span.len(), span.is_empty()), (3, false));
        assert_eq!(span.content_range(10).unwrap().to_string(), "bytes 2-4/10");
        assert_eq!(span.content_range(10).unwrap().span(), span);
        let empty = ByteSpan::whole(0);
        assert!(empty.is_empty());
        assert_eq!(empty.content_range(0), None);
        assert_eq!(ByteSpan { start: 5, end: 2 }.len(), 0);
        assert_eq!(ByteSpan { start: 5, end: 2 }.content_range(9), None);
    }
}
