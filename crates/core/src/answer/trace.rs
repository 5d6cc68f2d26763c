//! How an answer came about, as `X-Cache`, `Cache-Status` (RFC 9211) and their companions say it.

use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};

use super::{Answer, Believed};
use crate::failure::Reason;
use crate::limit;

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
const WARNING: HeaderName = HeaderName::from_static("warning");
const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// A `Warning` is at most this long, all of it (distribution-spec, "Warnings").
const MAX_WARNING: usize = 4096;

/// How the cache answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// From the cache, fresh.
    Hit,
    /// From upstream.
    Miss,
    /// From the cache past its time.
    Stale,
    /// From the cache, after upstream confirmed it.
    Revalidated,
    /// From upstream, and the cache was not asked: `mirror: false`, or the store is out of order.
    Bypass,
}

/// The details of a [`Verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    pub verdict: Verdict,
    /// Whether upstream was asked, and what it answered if it did.
    pub forwarded: bool,
    pub upstream_status: Option<u16>,
    /// The answer is being stored.
    pub stored: bool,
    /// It waited for another request's fetch.
    pub collapsed: bool,
    /// Why a stale answer is stale, or a failure a failure.
    pub reason: Option<Reason>,
}

/// Everything about an answer but the object itself.
#[derive(Clone, Debug)]
pub struct Served<'a> {
    pub trace: Trace,
    /// Since upstream last vouched for it. Said of stale answers only.
    pub age: Option<Duration>,
    /// For `Warning: 299`.
    pub warning: Option<&'a str>,
    /// The right to it rests on credentials: nothing shared may store it, and no script may read it.
    pub credentialed: bool,
    /// The `?ns=` that was used.
    pub ns: Option<&'a str>,
    /// The client's own rate limit, when there is one.
    pub limit: Option<limit::Standing>,
}

impl Verdict {
    pub const ALL: &'static [Verdict] =
        &[Verdict::Hit, Verdict::Miss, Verdict::Stale, Verdict::Revalidated, Verdict::Bypass];

    /// The stable name in logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Verdict::Hit => "hit",
            Verdict::Miss => "miss",
            Verdict::Stale => "stale",
            Verdict::Revalidated => "revalidated",
            Verdict::Bypass => "bypass",
        }
    }
}

impl Trace {
    /// The usual details of a verdict: only a hit and a stale answer did without upstream.
    pub fn new(verdict: Verdict) -> Trace {
        let forwarded = !matches!(verdict, Verdict::Hit | Verdict::Stale);
        Trace { verdict, forwarded, upstream_status: None, stored: false, collapsed: false, reason: None }
    }

    /// Says whether it waited for another request's fetch.
    #[must_use]
    pub fn joined(mut self, collapsed: bool) -> Trace {
        self.collapsed = collapsed;
        self
    }

    fn cache_status(&self) -> String {
        let mut status = String::from("entrepot; ");
        status.push_str(match (self.verdict, self.forwarded) {
            (Verdict::Hit | Verdict::Stale, false) => "hit",
            (Verdict::Stale | Verdict::Revalidated, _) => "fwd=stale",
            (Verdict::Hit | Verdict::Miss, _) => "fwd=miss",
            (Verdict::Bypass, _) => "fwd=bypass",
        });
        if let Some(upstream) = self.upstream_status {
            status.push_str(&format!("; fwd-status={upstream}"));
        }
        if self.stored {
            status.push_str("; stored");
        }
        if self.collapsed {
            status.push_str("; collapsed");
        }
        match self.reason {
            Some(reason) => status.push_str(&format!("; detail={}", reason.label())),
            None if self.verdict == Verdict::Stale => status.push_str("; detail=stale"),
            None => {}
        }
        status
    }
}

impl<'a> Served<'a> {
    /// Public, without further remarks.
    pub fn new(trace: Trace) -> Served<'a> {
        Served { trace, age: None, warning: None, credentialed: false, ns: None, limit: None }
    }

    /// Writes everything but `Cache-Control` of public answers, which depends on the object.
    pub(super) fn write(&self, answer: &mut Answer) {
        write_trace(answer, &self.trace);
        // A cache takes `Age` off `max-age`, and ours is what remains already.
        if let (Some(age), Verdict::Stale) = (self.age, self.trace.verdict) {
            answer.set(header::AGE, age.as_secs().to_string());
        }
        if let Some(warning) = self.warning {
            answer.set(WARNING, warning_value(warning));
        }
        write_namespace(answer, self.ns);
        if let Some(limit) = &self.limit {
            write_limit(answer, limit);
        }
        if !self.credentialed {
            answer.open_to_scripts();
        }
    }

    /// `public` is what is said of it when anyone may have it.
    pub(super) fn cache_control(&self, answer: &mut Answer, public: Believed) {
        const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-store");
        let value = if self.credentialed { PRIVATE } else { public.cache_control() };
        answer.put(header::CACHE_CONTROL, value);
    }
}

pub(super) fn write_trace(answer: &mut Answer, trace: &Trace) {
    if *trace == Trace::new(Verdict::Hit) {
        answer.put(CACHE_STATUS, const { HeaderValue::from_static("entrepot; hit") });
    } else {
        answer.set(CACHE_STATUS, trace.cache_status());
    }
    answer.put(
        X_CACHE,
        match trace.verdict {
            Verdict::Hit => const { HeaderValue::from_static("HIT") },
            Verdict::Miss => const { HeaderValue::from_static("MISS") },
            Verdict::Stale => const { HeaderValue::from_static("STALE") },
            Verdict::Revalidated => const { HeaderValue::from_static("REVALIDATED") },
            Verdict::Bypass => const { HeaderValue::from_static("BYPASS") },
        },
    );
}

/// distribution-spec, "Registry Proxying": returned when `ns` was used to find the repository.
pub(super) fn write_namespace(answer: &mut Answer, ns: Option<&str>) {
    if let Some(ns) = ns {
        answer.set(OCI_NAMESPACE, ns);
    }
}

/// In Docker Hub's form, `100;w=21600`: seconds, rounded up.
pub(super) fn write_limit(answer: &mut Answer, limit: &limit::Standing) {
    let window = seconds_up(limit.window).max(1);
    answer.set(RATELIMIT_LIMIT, format!("{};w={window}", limit.limit));
    answer.set(RATELIMIT_REMAINING, format!("{};w={window}", limit.remaining));
    answer.set(RATELIMIT_RESET, seconds_up(limit.reset).to_string());
}

pub(super) fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// `299 - "text"`, the text being plain ASCII without what ends a quoted string.
fn warning_value(text: &str) -> String {
    let plain = |c: &char| (c.is_ascii_graphic() || *c == ' ') && !matches!(c, '"' | '\\');
    let room = MAX_WARNING - "299 - \"\"".len();
    let text: String = text.chars().filter(plain).take(room).collect();
    format!("299 - \"{text}\"")
}
