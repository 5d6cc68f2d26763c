//! How long a tag is believed, and what happens after: RFC 9111 in shape, registry rules in content. A digest is for
//! ever and never comes here.
//!
//! | age of the record                 | upstream not asked yet    | upstream failed               |
//! |-----------------------------------|---------------------------|-------------------------------|
//! | within its TTL                    | serve                     | –                             |
//! | past it, within `max_stale`       | revalidate, then serve    | serve stale, back off         |
//! | past `max_stale`                  | ask as if nothing is held | pass the failure on           |
//!
//! Exceptions: a refusal (401, 403) denies what rests on credentials; a 404 keeps or drops the tag by `on_gone`.

mod negative;

use std::time::Duration;

use entrepot_oci::digest::Digest;
use entrepot_oci::media::MediaType;
use entrepot_oci::name::{Repository, Tag};
use serde::{Deserialize, Serialize};

use crate::config::{Cache, OnGone, Source};
use crate::failure::{Failure, Reason};
use crate::time::Wall;

pub use negative::{Absence, NegativeRecord};

/// How long a client waits for a tag's revalidation before it gets what is held.
pub const REVALIDATION_WAIT: Duration = Duration::from_millis(500);

/// Signatures, attestations and lists of referrers appear after their image: they are never believed longer.
pub const SIGNATURE_TTL: Duration = Duration::from_secs(60);

/// A dead upstream is asked again for one tag after this, then twice this, and so on up to [`MAX_BACKOFF`].
pub const MIN_BACKOFF: Duration = Duration::from_secs(10);
pub const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// A `Retry-After` beyond this is not believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(6 * 3600);

/// Clocks of nodes that share a store may differ by this much before a record counts as one from the future.
const SKEW: Duration = Duration::from_secs(60);

/// What a tag was last seen to mean. HEAD and GET share one record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
    pub media_type: MediaType,
    /// When upstream last said so.
    pub checked: Wall,
    /// Whether the right to it rests on our credentials upstream.
    pub credentialed: bool,
    /// The revalidations that have failed since `checked`, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
}

/// Why a tag could not be revalidated, and when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub kind: TroubleKind,
    /// Failures in a row, at least one.
    pub failures: u32,
    /// Upstream is not asked for this tag before.
    pub retry_at: Wall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TroubleKind {
    /// 404 where there was a tag.
    Gone,
    /// 401 or 403.
    Refused,
    /// 429, or our own budget.
    Limited,
    /// Everything else.
    Failed,
}

/// How a tag is to be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagPolicy {
    pub ttl: Duration,
    pub max_stale: Duration,
    pub on_gone: OnGone,
}

/// What to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagVerdict {
    /// Serve; it is believed for `left` more.
    Fresh { left: Duration },
    /// Ask upstream by HEAD; after `wait` serve stale while the HEAD goes on. `None`: wait for the outcome, for upstream
    /// refused us last time and the content rests on our credentials.
    Revalidate { wait: Option<Duration> },
    /// Serve stale and do not ask: upstream failed a moment ago, or the budget is low.
    Stale { kind: Option<TroubleKind> },
    /// Upstream refused us a moment ago, and the content rests on our credentials: deny and do not ask.
    Denied,
    /// Nothing may be served from it: ask as if nothing were held.
    Gone,
}

/// What a failed revalidation leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// Serve what is held, with `Warning` and `Age`, and store the record: it remembers when to ask again.
    Stale { record: TagRecord, kind: TroubleKind },
    /// Upstream refuses what rests on credentials, so pass the failure on. Store the record: the content stays, and
    /// upstream may relent.
    Deny { record: TagRecord },
    /// The tag is gone and `on_gone` is `follow`: remove the record (never the manifest) and pass the 404 on.
    Follow,
    /// Too old to be served stale: pass the failure on.
    TooOld,
}

/// The policy for one tag.
pub fn tag_policy(cache: &Cache, source: &Source, repository: &Repository, tag: &Tag) -> TagPolicy {
    TagPolicy { ttl: ttl_for(cache, repository, tag), max_stale: cache.max_stale, on_gone: source.on_gone }
}

/// How long a tag is believed: the first rule that matches, capped for signatures.
pub fn ttl_for(cache: &Cache, repository: &Repository, tag: &Tag) -> Duration {
    let any = |patterns: &[crate::pattern::NamePattern], name: &str| {
        patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name))
    };
    let rule = cache
        .rules
        .iter()
        .find(|rule| any(&rule.images, repository.as_str()) && any(&rule.tags, tag.as_str()));
    let ttl = rule.map_or(cache.manifest_ttl, |rule| rule.manifest_ttl);
    if is_signature(tag) { ttl.min(SIGNATURE_TTL) } else { ttl }
}

/// How long a list of referrers, or of tags, is believed.
pub fn list_ttl(cache: &Cache) -> Duration {
    cache.manifest_ttl.min(SIGNATURE_TTL)
}

/// The tags that tools attach to a digest: `sha256-<hex>`, alone (the referrers tag schema) or with cosign's `.sig`,
/// `.att`, `.sbom`.
pub fn is_signature(tag: &Tag) -> bool {
    let Some((algorithm, rest)) = tag.as_str().split_once('-') else {
        return false;
    };
    let hex = rest.split_once('.').map_or(rest, |(hex, _)| hex);
    matches!(algorithm, "sha256" | "sha512")
        && hex.len() >= 32
        && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

impl TagRecord {
    /// A record of what upstream has just said.
    pub fn new(digest: Digest, size: u64, media_type: MediaType, credentialed: bool, now: Wall) -> TagRecord {
        TagRecord { digest, size, media_type, checked: now, credentialed, trouble: None }
    }

    /// The same record after upstream has confirmed it.
    #[must_use]
    pub fn confirmed(mut self, now: Wall) -> TagRecord {
        self.checked = now;
        self.trouble = None;
        self
    }

    /// Since upstream last vouched for it.
    pub fn age(&self, now: Wall) -> Duration {
        now.since(self.checked)
    }
}

/// Judges a record. `budget_low`: upstream's pull budget should not be spent on what is held.
pub fn tag_verdict(record: &TagRecord, policy: &TagPolicy, now: Wall, budget_low: bool) -> TagVerdict {
    let from_future = now.plus(SKEW) < record.checked;
    let age = record.age(now);
    if record.trouble.is_none() && !from_future && age < policy.ttl {
        return TagVerdict::Fresh { left: policy.ttl - age };
    }
    if !may_be_stale(record, policy, now) {
        return TagVerdict::Gone;
    }
    let kind = record.trouble.map(|trouble| trouble.kind);
    let denied = record.credentialed && kind == Some(TroubleKind::Refused);
    let pauses = record.trouble.is_some_and(|trouble| backs_off(&trouble, now));
    match (pauses, denied) {
        (true, true) => TagVerdict::Denied,
        (true, false) => TagVerdict::Stale { kind },
        (false, true) => TagVerdict::Revalidate { wait: None },
        (false, false) if budget_low => TagVerdict::Stale { kind: kind.or(Some(TroubleKind::Limited)) },
        (false, false) => TagVerdict::Revalidate { wait: Some(REVALIDATION_WAIT) },
    }
}

/// Decides after a revalidation failed. `record` is what is held.
pub fn after_failure(record: &TagRecord, policy: &TagPolicy, failure: &Failure, now: Wall) -> AfterFailure {
    let kind = lasting(record.trouble, kind_of(failure.reason));
    if kind == TroubleKind::Gone && policy.on_gone == OnGone::Follow {
        return AfterFailure::Follow;
    }
    let mut troubled = record.clone();
    let failures = record.trouble.map_or(0, |trouble| trouble.failures).saturating_add(1);
    let pause = backoff(failures, failure.retry_after);
    troubled.trouble = Some(Trouble { kind, failures, retry_at: now.plus(pause) });
    if kind == TroubleKind::Refused && record.credentialed {
        return AfterFailure::Deny { record: troubled };
    }
    if may_be_stale(&troubled, policy, now) {
        AfterFailure::Stale { record: troubled, kind }
    } else {
        AfterFailure::TooOld
    }
}

/// What a client reads in `Warning: 299` when it is served stale.
pub fn warning(kind: Option<TroubleKind>) -> &'static str {
    match kind {
        Some(TroubleKind::Gone) => "upstream no longer has this tag; this mirror keeps the copy it holds",
        Some(TroubleKind::Refused) => "upstream refuses this tag; this is the copy the mirror holds",
        Some(TroubleKind::Limited) => "upstream limits our requests; this is the copy the mirror holds",
        Some(TroubleKind::Failed) => "upstream does not answer; this is the copy the mirror holds",
        None => "upstream is slow to answer; this is the copy the mirror holds",
    }
}

/// A tag that is gone upstream and kept by `on_gone` is kept for good: upstream did answer, so the copy does not age.
fn may_be_stale(record: &TagRecord, policy: &TagPolicy, now: Wall) -> bool {
    match record.trouble {
        Some(Trouble { kind: TroubleKind::Gone, .. }) => policy.on_gone == OnGone::Keep,
        _ => record.age(now) <= policy.ttl.saturating_add(policy.max_stale),
    }
}

/// A `retry_at` further ahead than any that we set comes from a clock that was set back since.
fn backs_off(trouble: &Trouble, now: Wall) -> bool {
    now < trouble.retry_at && trouble.retry_at <= now.plus(MAX_RETRY_AFTER)
}

fn backoff(failures: u32, retry_after: Option<Duration>) -> Duration {
    let doubled = MIN_BACKOFF.saturating_mul(1u32 << failures.saturating_sub(1).min(16)).min(MAX_BACKOFF);
    doubled.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
}

/// What upstream last said in so many words outlives its silence: an outage neither opens what was refused nor ages what
/// is gone.
fn lasting(before: Option<Trouble>, kind: TroubleKind) -> TroubleKind {
    match (before.map(|trouble| trouble.kind), kind) {
        (
            Some(said @ (TroubleKind::Gone | TroubleKind::Refused)),
            TroubleKind::Failed | TroubleKind::Limited,
        ) => said,
        (_, kind) => kind,
    }
}

pub(crate) fn kind_of(reason: Reason) -> TroubleKind {
    match reason {
        reason if reason.is_absence() => TroubleKind::Gone,
        reason if reason.is_refusal() => TroubleKind::Refused,
        Reason::UpstreamRateLimited | Reason::BudgetExhausted => TroubleKind::Limited,
        _ => TroubleKind::Failed,
    }
}

#[cfg(test)]
mod tests;
