//! How long to wait, and how long others may make us wait.

use std::time::Duration;

use entrepot_oci::quota::RetryAfter;
use http::{HeaderMap, header};

use crate::time::Now;

/// The longest wait that upstream can ask for; more is taken for this.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);
/// The longest wait inside a conversation; for more the client is told when to come back.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

const BASE_MS: u64 = 250;

/// Exponential, with full jitter: between nothing and 250 ms doubled `round` times, 5 s at most.
pub(super) fn jitter(random: u64, round: u32) -> Duration {
    let most = (BASE_MS << round.min(8)).min(5000);
    Duration::from_millis(random % (most + 1))
}

/// `Retry-After` as a wait from now, at most [`LONGEST`]; a date in the past is no wait.
pub(super) fn retry_after(headers: &HeaderMap, now: Now) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    let seconds = match RetryAfter::parse(text).ok()? {
        RetryAfter::Seconds(seconds) => seconds,
        RetryAfter::Date(unix) => unix.saturating_sub(now.wall.0 / 1000),
    };
    Some(Duration::from_secs(seconds).min(LONGEST))
}
