//! How many pulls a registry still grants, as its `ratelimit-*` headers tell. A pull is a GET of a manifest.

use std::time::Duration;

use entrepot_oci::quota::Quota;
use http::HeaderMap;

use super::backoff;
use crate::time::Mono;

/// What a registry that does not say when to come back is believed to mean.
const UNSAID: Duration = Duration::from_secs(15 * 60);
/// Pulls kept back when the limit is not known; otherwise a tenth of it.
const RESERVE: u64 = 10;

#[derive(Debug)]
pub(super) struct Budget {
    limit: Option<u64>,
    remaining: u64,
    /// From then on this is no longer believed, and the registry is asked.
    until: Mono,
}

impl Budget {
    /// `None`: the headers say nothing about pulls.
    pub(super) fn read(headers: &HeaderMap, now: Mono) -> Option<Budget> {
        let remaining = quota(headers, "ratelimit-remaining")?;
        let limit = quota(headers, "ratelimit-limit").map(|limit| limit.count);
        let window = remaining.window.unwrap_or(UNSAID).min(backoff::LONGEST);
        Some(Budget {
            limit,
            remaining: remaining.count,
            until: now.plus(window),
        })
    }

    /// The registry has refused a pull.
    pub(super) fn spent(limit: Option<u64>, now: Mono, retry_after: Option<Duration>) -> Budget {
        Budget {
            limit,
            remaining: 0,
            until: now.plus(retry_after.unwrap_or(UNSAID).min(backoff::LONGEST)),
        }
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// One pull is about to be sent; the answer will tell exactly.
    pub(super) fn charge(&mut self) {
        self.remaining = self.remaining.saturating_sub(1);
    }

    /// How long a pull would be refused.
    pub(super) fn exhausted(&self, now: Mono) -> Option<Duration> {
        (self.remaining == 0 && now < self.until).then(|| self.until.since(now))
    }

    pub(super) fn is_low(&self, now: Mono) -> bool {
        let reserve = self.limit.map_or(RESERVE, |limit| limit / 10);
        now < self.until && self.remaining <= reserve
    }
}

/// Whether these headers say that no pull is left.
pub(super) fn none_left(headers: &HeaderMap) -> bool {
    quota(headers, "ratelimit-remaining").is_some_and(|quota| quota.count == 0)
}

fn quota(headers: &HeaderMap, name: &str) -> Option<Quota> {
    Quota::parse(headers.get(name)?.to_str().ok()?).ok()
}
