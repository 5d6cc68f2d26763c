//! Quantities with units: times, sizes and rates, how they are read and how they are written back.

use std::time::Duration;

use super::problem::Complaint;
use super::schema::Kind;
use super::value::{Scalar, shortened};

/// The longest duration that makes sense; sums of it with any clock cannot overflow.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

/// Units of time, longest first, in milliseconds.
const TIME_UNITS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of size, largest first, in bytes. The binary ones come first so that they are preferred in writing.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Units of a rate, in seconds; the first spelling of each is the one that is written.
const RATE_UNITS: &[(&str, u64)] = &[
    ("s", 1),
    ("min", 60),
    ("h", 3_600),
    ("d", 86_400),
    ("sec", 1),
    ("second", 1),
    ("m", 60),
    ("minute", 60),
    ("hour", 3_600),
    ("day", 86_400),
];

/// Bytes.
#[derive(Debug, PartialEq)]
pub(super) struct Size(pub(super) u64);

#[derive(Debug, PartialEq)]
pub(super) struct Rate {
    pub(super) count: u32,
    pub(super) per: Duration,
}

impl Scalar for Duration {
    const KIND: Kind = Kind::Duration;

    fn read(text: &str) -> Result<Duration, Complaint> {
        let remedy = "write a number and a unit: 500ms, 10s, 5m, 1h or 7d; or 0";
        let wrong =
            |why: &str| Complaint::new(format!("`{}` is not a duration: {why}", shortened(text)), remedy);
        if text == "0" {
            return Ok(Duration::ZERO);
        }
        if text.starts_with('-') {
            return Err(wrong("it is negative"));
        }
        let mut rest = text;
        let mut total = 0_u64;
        while !rest.is_empty() {
            let (number, unit, after) = number_and_unit(rest);
            let number: u64 = number.parse().map_err(|_| wrong("it lacks a number"))?;
            if unit.is_empty() {
                return Err(wrong("it lacks a unit"));
            }
            let (_, millis) = TIME_UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(|| wrong(&format!("`{unit}` is not a unit of time")))?;
            total = number
                .checked_mul(*millis)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(|| wrong("it is too long"))?;
            rest = after;
        }
        let total = Duration::from_millis(total);
        match text.is_empty() {
            true => Err(wrong("it is empty")),
            false if total > LONGEST => Err(wrong("it is longer than ten years")),
            false => Ok(total),
        }
    }
}

impl Scalar for Size {
    const KIND: Kind = Kind::Size;

    fn read(text: &str) -> Result<Size, Complaint> {
        let remedy = "write a whole number and a unit: 500MB, 50GiB, 2TiB; without a unit it is bytes";
        let wrong = |why: &str| Complaint::new(format!("`{}` is not a size: {why}", shortened(text)), remedy);
        let (number, unit, after) = number_and_unit(text);
        let number: u64 = number.parse().map_err(|_| wrong("it lacks a whole number"))?;
        if !after.is_empty() {
            return Err(wrong("there is more after the unit"));
        }
        let scale = match unit.trim_start() {
            "" => 1,
            unit => {
                let known = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
                known.ok_or_else(|| wrong(&format!("`{unit}` is not a unit of size")))?.1
            }
        };
        match number.checked_mul(scale) {
            Some(0) => Err(Complaint::new(
                "a size of 0 stores nothing",
                "give it room, or set `mirror: false` on the sources that are not to be stored",
            )),
            Some(bytes) if bytes <= i64::MAX as u64 => Ok(Size(bytes)),
            _ => Err(wrong("it is too large")),
        }
    }
}

impl Scalar for Rate {
    const KIND: Kind = Kind::Rate;

    fn read(text: &str) -> Result<Rate, Complaint> {
        let wrong = || {
            Complaint::new(
                format!("`{}` is not a rate", shortened(text)),
                "write a number from 1 and a unit of time: 10/s, 100/min, 1000/h or 5000/d",
            )
        };
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let count = count.trim();
        if !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let count = count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
        let (_, seconds) = RATE_UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
        Ok(Rate { count, per: Duration::from_secs(*seconds) })
    }
}

/// In the largest unit that leaves nothing over.
#[cfg(feature = "yaml")]
pub(super) fn duration_text(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0".into();
    }
    let unit = TIME_UNITS.iter().find(|(_, scale)| millis.is_multiple_of(*scale));
    unit.map_or_else(|| format!("{millis}ms"), |(name, scale)| format!("{}{name}", millis / scale))
}

/// In the largest unit that leaves nothing over.
#[cfg(feature = "yaml")]
pub(super) fn size_text(bytes: u64) -> String {
    let unit = SIZE_UNITS.iter().find(|(_, scale)| bytes.is_multiple_of(*scale));
    unit.map_or_else(|| bytes.to_string(), |(name, scale)| format!("{}{name}", bytes / scale))
}

#[cfg(feature = "yaml")]
pub(super) fn rate_text(count: u32, per: Duration) -> String {
    let unit = RATE_UNITS.iter().find(|(_, seconds)| *seconds == per.as_secs());
    format!("{count}/{}", unit.map_or("s", |(name, _)| name))
}

/// `"5m30s"` is `("5", "m", "30s")`.
fn number_and_unit(text: &str) -> (&str, &str, &str) {
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(unit);
    let after = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at(after);
    (number, unit, after)
}
