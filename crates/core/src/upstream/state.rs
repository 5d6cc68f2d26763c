//! What is remembered between conversations, all of it bounded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use url::Url;

use super::bounded::Bounded;
use super::budget::{Budget, Departure};
use super::health::{Breaker, Health, Refused};
use super::pieces::Line;
use super::{Origin, Token, TokenKey};
use crate::config::Source;
use crate::time::{Mono, Now, Wall};

const MAX_TOKENS: usize = 4096;
const MAX_ORIGINS: usize = 1024;

/// Tokens, the health of origins, pull budgets, and how each registry last wanted to be authenticated to.
#[derive(Debug)]
pub struct UpstreamState {
    tokens: Bounded<TokenKey, Token>,
    origins: Bounded<Origin, Health>,
    schemes: Bounded<(Origin, Standing), Scheme>,
    budgets: Bounded<(Arc<str>, Standing), Budget>,
    lines: Bounded<Origin, Line>,
    /// Connections beside the first ones of fills, for each source that has any.
    further: BTreeMap<Arc<str>, usize>,
}

/// An origin, for `/readyz` and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginHealth {
    pub origin: Origin,
    pub breaker: Breaker,
}

/// What upstream wants to be left alone with for a while, as one node tells another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    pub of: Suspended,
    pub until: Wall,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Suspended {
    /// The pulls of a source, by its name, with its credentials or without.
    Pulls { source: String, credentialed: bool },
    /// Everything: an abuse limit.
    Origin(Origin),
}

/// Whether credentials are presented: a registry treats the two differently in everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Anonymous,
    Credentialed,
}

/// How a registry wants to be authenticated to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Basic,
    Bearer { realm: Url, service: String },
}

impl Default for UpstreamState {
    fn default() -> Self {
        UpstreamState::new()
    }
}

impl UpstreamState {
    pub fn new() -> Self {
        UpstreamState {
            tokens: Bounded::new(MAX_TOKENS),
            origins: Bounded::new(MAX_ORIGINS),
            schemes: Bounded::new(MAX_ORIGINS),
            budgets: Bounded::new(MAX_ORIGINS),
            lines: Bounded::new(MAX_ORIGINS),
            further: BTreeMap::new(),
        }
    }

    /// Whether a tenth or less of the pulls that the registry grants is left: send nothing that no client waits for.
    pub fn budget_low(&self, source: &Source, now: Now) -> bool {
        let standing = if source.auth.is_some() { Standing::Credentialed } else { Standing::Anonymous };
        self.budgets.peek(&(source.name.clone(), standing)).is_some_and(|budget| budget.is_low(now.mono))
    }

    /// What holds now, in order of name.
    pub fn suspensions(&self, now: Now) -> Vec<Suspension> {
        let pulls = |((source, standing), budget): (&(Arc<str>, Standing), &Budget)| {
            let until = now.wall.plus(budget.exhausted(now.mono)?);
            let credentialed = *standing == Standing::Credentialed;
            Some(Suspension { of: Suspended::Pulls { source: source.to_string(), credentialed }, until })
        };
        let origin = |(origin, health): (&Origin, &Health)| {
            let until = now.wall.plus(health.hold(now.mono)?);
            Some(Suspension { of: Suspended::Origin(origin.clone()), until })
        };
        let pulls = self.budgets.iter().filter_map(pulls);
        pulls.chain(self.origins.iter().filter_map(origin)).collect()
    }

    /// Believes what another node was told. What this one knows to be longer stands.
    pub fn suspend(&mut self, told: &Suspension, now: Now) {
        let left = told.until.since(now.wall);
        let is_longer = |known: Option<Duration>| !left.is_zero() && known.is_none_or(|known| known < left);
        match &told.of {
            Suspended::Pulls { source, credentialed } => {
                let standing = if *credentialed { Standing::Credentialed } else { Standing::Anonymous };
                let key = (Arc::from(source.as_str()), standing);
                if is_longer(self.budgets.peek(&key).and_then(|budget| budget.exhausted(now.mono))) {
                    let budget = Budget::spent(self.budgets.peek(&key), now.mono, Some(left));
                    self.budgets.insert(key, budget);
                }
            }
            Suspended::Origin(origin) => {
                if is_longer(self.origins.peek(origin).and_then(|health| health.hold(now.mono))) {
                    self.origin(origin, now.mono).held(now.mono, Some(left));
                }
            }
        }
    }

    /// Every origin spoken to lately, in order of name.
    pub fn health(&self, now: Now) -> Vec<OriginHealth> {
        let one = |(origin, health): (&Origin, &Health)| OriginHealth {
            origin: origin.clone(),
            breaker: health.breaker(now.mono),
        };
        self.origins.iter().map(one).collect()
    }

    /// What is known of the way to a registry's blobs.
    pub fn line(&self, registry: &Origin, now: Now) -> Option<Line> {
        self.lines.peek(registry).map(|line| line.at(now.mono))
    }

    /// One connection brought `bytes` of one of its blobs in `time`.
    pub fn brought(&mut self, registry: &Origin, bytes: u64, time: Duration) {
        if let Some(line) = self.lines.get_mut(registry) {
            line.brought(bytes, time);
        }
    }

    /// Whether there may be one more connection to `source` beside the first ones of fills, and `most` in all;
    /// [`UpstreamState::give_back`] ends it.
    pub fn take_further(&mut self, source: &Source, most: usize) -> bool {
        let taken = self.further.entry(source.name.clone()).or_default();
        let granted = *taken < most;
        *taken += usize::from(granted);
        granted
    }

    pub fn give_back(&mut self, source: &Source) {
        if let Some(taken) = self.further.get_mut(&source.name) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                self.further.remove(&source.name);
            }
        }
    }

    /// A registry, or where it has its blobs, has refused a connection beside others, for as long as it says.
    pub(super) fn crowded(&mut self, registry: &Origin, wait: Option<Duration>, now: Mono) {
        if let Some(line) = self.lines.get_mut(registry) {
            line.refused(wait, now);
        }
    }

    pub(super) fn answered(&mut self, registry: &Origin, delay: Duration, of_blobs: bool) {
        self.lines.get_or_insert_with(registry, || Line::new(delay, of_blobs)).answered(delay, of_blobs);
    }

    /// A token that lasts, if there is one.
    pub(super) fn token(&mut self, key: &TokenKey, now: Mono) -> Option<Token> {
        self.tokens.get_mut(key).filter(|token| now < token.expires).cloned()
    }

    pub(super) fn keep_token(&mut self, key: TokenKey, token: Token, now: Mono) {
        if self.tokens.is_full() {
            self.tokens.retain(|token| now < token.expires);
        }
        self.tokens.insert(key, token);
    }

    /// Forgets this very token; one that has replaced it stays.
    pub(super) fn drop_token(&mut self, key: &TokenKey, refused: &crate::config::Secret) {
        if self.tokens.peek(key).is_some_and(|token| token.value == *refused) {
            self.tokens.remove(key);
        }
    }

    pub(super) fn scheme(&mut self, registry: &Origin, standing: Standing) -> Option<Scheme> {
        self.schemes.get_mut(&(registry.clone(), standing)).cloned()
    }

    pub(super) fn keep_scheme(&mut self, registry: Origin, standing: Standing, scheme: Scheme) {
        self.schemes.insert((registry, standing), scheme);
    }

    pub(super) fn forget_scheme(&mut self, registry: &Origin, standing: Standing) {
        self.schemes.remove(&(registry.clone(), standing));
    }

    pub(super) fn check(&self, origin: &Origin, now: Mono) -> Result<(), Refused> {
        self.origins.peek(origin).map_or(Ok(()), |health| health.check(now))
    }

    pub(super) fn origin(&mut self, origin: &Origin, now: Mono) -> &mut Health {
        self.origins.get_or_insert_with(origin, || Health::new(now))
    }

    /// Whether a failed request may be repeated; takes it out of the origin's retry budget.
    pub(super) fn may_retry(&mut self, origin: &Origin, now: Mono) -> bool {
        let health = self.origin(origin, now);
        health.check(now).is_ok() && health.spend_retry(now)
    }

    pub(super) fn exhausted(&self, source: &Source, standing: Standing, now: Mono) -> Option<Duration> {
        self.budgets.peek(&(source.name.clone(), standing))?.exhausted(now)
    }

    /// A request to the registry is about to be sent; `pull`: it costs one of the pulls that are left.
    pub(super) fn depart(&mut self, source: &Source, standing: Standing, pull: bool) -> Departure {
        self.budgets
            .get_mut(&(source.name.clone(), standing))
            .map_or_else(Departure::default, |budget| budget.depart(pull))
    }

    /// `pulled`: this answers a pull that was granted, so that silence means there is no limit.
    pub(super) fn observe(
        &mut self,
        source: &Source,
        standing: Standing,
        headers: &HeaderMap,
        now: Mono,
        departure: Departure,
        pulled: bool,
    ) {
        let key = (source.name.clone(), standing);
        match (Budget::read(headers, now), self.budgets.get_mut(&key)) {
            (Some(told), Some(budget)) => budget.learn(told, departure),
            (Some(told), None) => self.budgets.insert(key, told),
            (None, _) if pulled => self.budgets.remove(&key),
            (None, Some(budget)) => budget.refund(departure),
            (None, None) => {}
        }
    }

    /// The registry has refused a pull; answers for how long nothing will be pulled.
    pub(super) fn spent(
        &mut self,
        source: &Source,
        standing: Standing,
        now: Mono,
        retry_after: Option<Duration>,
    ) -> Option<Duration> {
        let key = (source.name.clone(), standing);
        let budget = Budget::spent(self.budgets.peek(&key), now, retry_after);
        let wait = budget.exhausted(now);
        self.budgets.insert(key, budget);
        wait
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 4] {
        [self.tokens.len(), self.origins.len(), self.schemes.len(), self.budgets.len()]
    }
}
