//! What registries say about how often one may ask: Docker Hub's `ratelimit-*` headers, and `Retry-After`
//! (RFC 9110 §10.2.3).

use std::str::FromStr;
use std::time::Duration;

use crate::field;

/// `100;w=21600`: so many pulls, in such a window. Docker Hub sends it as `ratelimit-limit` and `ratelimit-remaining`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub count: u64,
    pub window: Option<Duration>,
}

/// When to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// So many seconds from now; numbers beyond 64 bits are held as the largest that fits.
    Seconds(u64),
    /// At this time: seconds since 1970-01-01T00:00:00Z.
    Date(u64),
}

/// A header that says neither a count nor a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    #[error("a rate limit has the form <count>;w=<seconds>")]
    Quota,
    #[error("Retry-After is a number of seconds or a date like Sun, 06 Nov 1994 08:49:37 GMT")]
    RetryAfter,
}

impl Quota {
    /// Reads the first of the listed limits.
    pub fn parse(value: &str) -> Result<Quota, QuotaError> {
        let first = field::split(value, ',').next().ok_or(QuotaError::Quota)?;
        let mut parts = first.split(';').map(|part| part.trim_matches(field::OWS));
        let count = parts.next().and_then(number).ok_or(QuotaError::Quota)?;
        let window = parts
            .filter_map(|part| part.split_once('='))
            .find(|(name, _)| name.trim_matches(field::OWS).eq_ignore_ascii_case("w"))
            .and_then(|(_, seconds)| number(seconds.trim_matches(field::OWS)))
            .map(Duration::from_secs);
        Ok(Quota { count, window })
    }
}

impl FromStr for Quota {
    type Err = QuotaError;

    fn from_str(value: &str) -> Result<Quota, QuotaError> {
        Quota::parse(value)
    }
}

impl RetryAfter {
    /// Reads a number of seconds, or an IMF-fixdate; the two older date forms, which nobody sends, are refused.
    pub fn parse(value: &str) -> Result<RetryAfter, QuotaError> {
        let value = value.trim_matches(field::OWS);
        number(value)
            .map(RetryAfter::Seconds)
            .or_else(|| imf_fixdate(value).map(RetryAfter::Date))
            .ok_or(QuotaError::RetryAfter)
    }
}

/// `1*DIGIT`, saturating.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7), from 1970 on. The name of the day is not compared with the date.
fn imf_fixdate(value: &str) -> Option<u64> {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (day_name, rest) = value.split_once(", ")?;
    if !DAYS.contains(&day_name) {
        return None;
    }
    let mut parts = rest.split(' ');
    let mut part = || parts.next();
    let (day, month, year, time, zone) = (part()?, part()?, part()?, part()?, part()?);
    if zone != "GMT" || part().is_some() {
        return None;
    }
    let month = 1 + MONTHS.iter().position(|name| *name == month)? as u64;
    let (day, year) = (fixed(day, 2)?, fixed(year, 4)?);
    let mut clock = time.split(':').map(|part| fixed(part, 2));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let fits = clock.next().is_none()
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !fits || year < 1970 {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

fn fixed(digits: &str, len: usize) -> Option<u64> {
    if digits.len() == len { number(digits) } else { None }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    let months: u64 = (1..month).map(|month| days_in(year, month)).sum();
    years + months + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_read() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let rows = [
            ("100;w=21600", Ok((100, seconds(21_600)))),
            (" 0 ; W = 1 ", Ok((0, seconds(1)))),
            ("76", Ok((76, None))),
            ("100, 100;w=60", Ok((100, None))),
            ("100;w=60, 5000;w=3600", Ok((100, seconds(60)))),
            ("100;burst=1000;w=60;comment=\"a;w=9,\"", Ok((100, seconds(60)))),
            ("100;w=", Ok((100, None))),
            ("100;w=-1", Ok((100, None))),
            ("100;;w=60", Ok((100, seconds(60)))),
            ("99999999999999999999;w=99999999999999999999", Ok((u64::MAX, seconds(u64::MAX)))),
            ("", Err(QuotaError::Quota)),
            (",", Err(QuotaError::Quota)),
            (";w=60", Err(QuotaError::Quota)),
            ("-1;w=60", Err(QuotaError::Quota)),
            ("+1", Err(QuotaError::Quota)),
            ("1.5", Err(QuotaError::Quota)),
            ("\u{661}", Err(QuotaError::Quota)),
            ("unlimited", Err(QuotaError::Quota)),
        ];
        for (value, expected) in rows {
            let expected = expected.map(|(count, window)| Quota { count, window });
            assert_eq!(value.parse::<Quota>(), expected, "{value:?}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        use RetryAfter::*;
        let rows = [
            ("0", Some(Seconds(0))),
            (" 120 ", Some(Seconds(120))),
            ("99999999999999999999999", Some(Seconds(u64::MAX))),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(Date(0))),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(Date(784_111_777))),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(Date(1_709_251_199))),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(Date(253_402_300_799))),
            ("Sat, 31 Dec 2016 23:59:60 GMT", Some(Date(1_483_228_800))),
            ("Wed, 31 Dec 1969 23:59:59 GMT", None),
            ("Wed, 29 Feb 2023 00:00:00 GMT", None),
            ("Thu, 29 Feb 1900 00:00:00 GMT", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", None),
            ("Sun, 31 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 24:00:00 GMT", None),
            ("Sun, 06 Nov 1994 08:60:00 GMT", None),
            ("Sun, 06 Nov 1994 08:49:61 GMT", None),
            ("Sun, 6 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 94 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 UTC", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT x", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37:00 GMT", None),
            ("sun, 06 nov 1994 08:49:37 gmt", None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun Nov  6 08:49:37 1994", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
        ];
        for (value, expected) in rows {
            assert_eq!(RetryAfter::parse(value), expected.ok_or(QuotaError::RetryAfter), "{value:?}");
        }
    }
}
