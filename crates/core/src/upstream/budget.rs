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
    /// Pulls sent so far.
    sent: u64,
    /// Pulls sent when the registry last told what is left.
    told: u64,
}

/// A request on its way: what was known of the budget when it left.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Departure {
    /// Pulls sent until then, itself included.
    sent: u64,
    /// No pull had left since the registry last told what is left.
    alone: bool,
    /// It is a pull itself.
    charged: bool,
}

impl Budget {
    /// `None`: the headers say nothing about pulls.
    pub(super) fn read(headers: &HeaderMap, now: Mono) -> Option<Budget> {
        let remaining = quota(headers, "ratelimit-remaining")?;
        let limit = quota(headers, "ratelimit-limit").map(|limit| limit.count);
        let window = remaining.window.unwrap_or(UNSAID).min(backoff::LONGEST);
        Some(Budget { limit, remaining: remaining.count, until: now.plus(window), sent: 0, told: 0 })
    }

    /// The registry has refused a pull.
    pub(super) fn spent(before: Option<&Budget>, now: Mono, retry_after: Option<Duration>) -> Budget {
        Budget {
            limit: before.and_then(|before| before.limit),
            remaining: 0,
            until: now.plus(retry_after.unwrap_or(UNSAID).min(backoff::LONGEST)),
            sent: before.map_or(0, |before| before.sent),
            told: before.map_or(0, |before| before.sent),
        }
    }

    /// A request is about to be sent; `pull`: it costs one.
    pub(super) fn depart(&mut self, pull: bool) -> Departure {
        let alone = self.sent == self.told;
        if pull {
            self.remaining = self.remaining.saturating_sub(1);
            self.sent += 1;
        }
        Departure { sent: self.sent, alone, charged: pull }
    }

    /// The registry has answered, and told what is left. While several requests are under way it may not yet have counted
    /// some, and their answers may overtake each other: then what it tells can only lower what is left.
    pub(super) fn learn(&mut self, told: Budget, departure: Departure) {
        let exact = departure.alone && departure.sent == self.sent;
        *self = Budget {
            remaining: if exact { told.remaining } else { told.remaining.min(self.remaining) },
            sent: self.sent,
            told: self.sent,
            ..told
        };
    }

    /// The registry has answered without granting anything, and told nothing.
    pub(super) fn refund(&mut self, departure: Departure) {
        if departure.charged {
            self.remaining += 1;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(remaining: u64) -> Budget {
        Budget { limit: None, remaining, until: Mono(1_000_000), sent: 0, told: 0 }
    }

    /// T-RL7: whichever of two answers comes first, and whichever pull the registry counted first, none is left.
    #[test]
    fn t_rl7_answers_that_overtake_each_other() {
        for first in [0, 1] {
            for left in [0, 1] {
                let mut budget = told(2);
                let pulls = [budget.depart(true), budget.depart(true)];
                assert!(budget.exhausted(Mono(0)).is_some());
                budget.learn(told(left), pulls[first]);
                assert_eq!(budget.remaining, 0);
                budget.learn(told(1 - left), pulls[1 - first]);
                assert_eq!(budget.remaining, 0);
            }
        }
    }

    /// T-RL7: what was granted anew is seen once nothing else is under way.
    #[test]
    fn t_rl7_what_is_granted_anew_is_seen() {
        let mut budget = told(2);
        let one = budget.depart(true);
        budget.learn(told(8), one);
        assert_eq!(budget.remaining, 8);
        let (two, look) = (budget.depart(true), budget.depart(false));
        budget.learn(told(9), look);
        assert_eq!(budget.remaining, 7);
        budget.learn(told(9), two);
        assert_eq!(budget.remaining, 9);
    }

    #[test]
    fn a_pull_that_was_not_granted_is_given_back() {
        let mut budget = told(1);
        let pull = budget.depart(true);
        budget.refund(pull);
        let look = budget.depart(false);
        budget.refund(look);
        assert_eq!(budget.remaining, 1);
    }
}
