//! The health of one origin: a circuit breaker, a budget of retries, and the pause an abuse limit asked for.

use std::time::Duration;

use super::backoff;
use crate::time::Mono;

/// Faults in a row that open the breaker.
const FAULTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a probe may stay unanswered before another is let through: its conversation may have been dropped.
const PROBE: Duration = Duration::from_secs(30);

const FIRST_HOLD: Duration = Duration::from_secs(15);
const LONGEST_HOLD: Duration = Duration::from_secs(120);

/// What a retry costs, in requests, each of which earns one. A tenth of the requests would be eleven, for a retry earns
/// as well; one more leaves room for what time earns.
const RETRY: u64 = 12;
const MOST_RETRIES: u64 = 10 * RETRY;
/// So that a quiet origin may be retried at all: one retry in twelve seconds.
const EARNED_PER_SECOND: u64 = 1;

/// Whether an origin is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    Closed,
    /// Not before `retry_at`.
    Open {
        retry_at: Mono,
    },
    /// One request is let through, and decides.
    HalfOpen,
}

/// Why nothing is sent to an origin now, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Suspended(Duration),
    /// The origin has answered 429 to requests of any kind.
    Held(Duration),
}

#[derive(Debug)]
pub(super) struct Health {
    faults: u32,
    open: Option<Open>,
    hold: Option<Hold>,
    retries: u64,
    /// Up to when `retries` has been filled by time.
    filled: Mono,
}

#[derive(Debug)]
struct Open {
    until: Mono,
    pause: Duration,
    /// When the probe left.
    probe: Option<Mono>,
}

#[derive(Debug)]
struct Hold {
    until: Mono,
    pause: Duration,
}

impl Health {
    pub(super) fn new(now: Mono) -> Health {
        Health { faults: 0, open: None, hold: None, retries: MOST_RETRIES, filled: now }
    }

    pub(super) fn breaker(&self, now: Mono) -> Breaker {
        match &self.open {
            None => Breaker::Closed,
            Some(open) if now < open.until => Breaker::Open { retry_at: open.until },
            Some(_) => Breaker::HalfOpen,
        }
    }

    /// Whether a request may be sent now.
    pub(super) fn check(&self, now: Mono) -> Result<(), Refused> {
        if let Some(left) = self.hold(now) {
            return Err(Refused::Held(left));
        }
        let Some(open) = &self.open else { return Ok(()) };
        if now < open.until {
            return Err(Refused::Suspended(open.until.since(now)));
        }
        match open.probe {
            Some(left) if now < left.plus(PROBE) => Err(Refused::Suspended(open.pause)),
            _ => Ok(()),
        }
    }

    /// As `check`, and counts the request as sent.
    pub(super) fn admit(&mut self, now: Mono) -> Result<(), Refused> {
        self.check(now)?;
        if let Some(open) = &mut self.open {
            open.probe = Some(now);
        }
        self.fill(now);
        self.retries = (self.retries + 1).min(MOST_RETRIES);
        Ok(())
    }

    /// The origin has answered, with whatever sense.
    /// How long the origin wants to be left alone.
    pub(super) fn hold(&self, now: Mono) -> Option<Duration> {
        self.hold.as_ref().filter(|hold| now < hold.until).map(|hold| hold.until.since(now))
    }

    pub(super) fn good(&mut self) {
        self.faults = 0;
        self.open = None;
    }

    /// The origin could not be reached, was too slow, or answered 5xx.
    pub(super) fn bad(&mut self, now: Mono) {
        self.faults = self.faults.saturating_add(1);
        match &mut self.open {
            // Requests that were under way when the breaker opened tell nothing new.
            Some(open) if now < open.until => {}
            Some(open) => {
                open.pause = (open.pause * 2).min(LONGEST_PAUSE);
                open.until = now.plus(open.pause);
                open.probe = None;
            }
            None if self.faults >= FAULTS => {
                self.open = Some(Open { until: now.plus(FIRST_PAUSE), pause: FIRST_PAUSE, probe: None });
            }
            None => {}
        }
    }

    /// The origin's abuse limit: nothing is sent for what it asks, or for a pause that doubles while it goes on.
    pub(super) fn held(&mut self, now: Mono, retry_after: Option<Duration>) -> Duration {
        let pause = match &self.hold {
            Some(hold) if now < hold.until => hold.pause,
            Some(hold) if now < hold.until.plus(hold.pause) => (hold.pause * 2).min(LONGEST_HOLD),
            _ => FIRST_HOLD,
        };
        let wait = retry_after.unwrap_or(pause).clamp(Duration::from_secs(1), backoff::LONGEST);
        self.hold = Some(Hold { until: now.plus(wait), pause });
        wait
    }

    /// Takes one retry out of the budget, if it holds one.
    pub(super) fn spend_retry(&mut self, now: Mono) -> bool {
        self.fill(now);
        let granted = self.retries >= RETRY;
        if granted {
            self.retries -= RETRY;
        }
        granted
    }

    fn fill(&mut self, now: Mono) {
        let seconds = now.since(self.filled).as_secs();
        if seconds > 0 {
            self.filled = self.filled.plus(Duration::from_secs(seconds));
            self.retries =
                self.retries.saturating_add(seconds.saturating_mul(EARNED_PER_SECOND)).min(MOST_RETRIES);
        }
    }
}
