//! What an isolate has to tell the ledger, gathered so that a hit writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use entrepot_core::event::{Event, RequestLog};
use entrepot_core::time::Wall;
use entrepot_oci::Digest;
use serde::{Deserialize, Serialize};

/// Objects used, or counters, after which they are told at once.
const MANY: usize = 200;
/// Milliseconds after which they are told in any case.
const OLD: u64 = 60_000;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notes {
    pub(crate) used: BTreeSet<Digest>,
    /// What was stored, with its size in bytes.
    pub(crate) filled: Vec<(Digest, u64)>,
    /// Series of the metrics, and by how much each has grown.
    pub(crate) counts: BTreeMap<String, u64>,
    /// When they were last told.
    #[serde(skip)]
    told: Wall,
}

impl Notes {
    pub(crate) fn request(&mut self, log: &RequestLog) {
        let source = log.source.as_deref().unwrap_or("-");
        let verdict = log.verdict.map_or("-", |verdict| verdict.label());
        let labels = format!(
            "source=\"{source}\",route=\"{}\",verdict=\"{verdict}\",status=\"{}\"",
            log.route.label(),
            log.status,
        );
        self.count(format!("entrepot_requests_total{{{labels}}}"), 1);
        self.count(
            format!("entrepot_response_bytes_total{{source=\"{source}\",verdict=\"{verdict}\"}}"),
            log.bytes,
        );
        if let Some(reason) = log.reason {
            self.count(format!("entrepot_refusals_total{{reason=\"{}\"}}", reason.label()), 1);
        }
    }

    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Upstream { source, route, status, reason } => {
                let status = status.map_or_else(|| "-".to_owned(), |status| status.to_string());
                let reason = reason.map_or("-", |reason| reason.label());
                let route = route.label();
                let labels =
                    format!("source=\"{source}\",route=\"{route}\",status=\"{status}\",reason=\"{reason}\"");
                self.count(format!("entrepot_upstream_requests_total{{{labels}}}"), 1);
            }
            Event::FillEnded { source, bytes, reason } => {
                let reason = reason.map_or("-", |reason| reason.label());
                self.count(format!("entrepot_fills_total{{source=\"{source}\",reason=\"{reason}\"}}"), 1);
                self.count(format!("entrepot_fill_bytes_total{{source=\"{source}\"}}"), *bytes);
            }
            Event::DigestMismatch { source } => {
                self.count(format!("entrepot_digest_mismatches_total{{source=\"{source}\"}}"), 1);
            }
            Event::Resumed { source, .. } => {
                self.count(format!("entrepot_resumptions_total{{source=\"{source}\"}}"), 1);
            }
            // Counted with the request that was refused, and not of this host.
            Event::Limited { .. } | Event::Reloaded { .. } => {}
        }
    }

    /// Source names are the configuration's: the number of series is bounded.
    fn count(&mut self, series: String, by: u64) {
        *self.counts.entry(series).or_default() += by;
    }

    /// Takes what is to be told, if it is time.
    pub(crate) fn take(&mut self, now: Wall) -> Option<Notes> {
        let many = self.used.len() >= MANY || self.counts.len() >= MANY;
        let old = now.since(self.told).as_millis() >= u128::from(OLD);
        let nothing = self.used.is_empty() && self.filled.is_empty() && self.counts.is_empty();
        // What was stored counts at once: the bucket's size hangs on it.
        if nothing || !(many || old || !self.filled.is_empty()) {
            return None;
        }
        let notes = std::mem::take(self);
        self.told = now;
        Some(notes)
    }

    /// Takes back what could not be told, as far as there is room.
    pub(crate) fn give_back(&mut self, notes: Notes) {
        if self.used.len() < 4 * MANY {
            self.used.extend(notes.used);
        }
        self.filled.extend(notes.filled);
        for (series, by) in notes.counts {
            self.count(series, by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Wall = Wall(1_000_000);

    #[test]
    fn a_hit_is_told_with_others_and_a_fill_at_once() {
        let mut notes = Notes::default();
        assert_eq!(notes.take(START), None);
        notes.used.insert(Digest::sha256(b"a"));
        assert!(notes.take(START).is_some(), "the first of an isolate");
        notes.used.insert(Digest::sha256(b"a"));
        assert_eq!(notes.take(Wall(START.0 + 59_999)), None);
        assert!(notes.take(Wall(START.0 + 60_000)).is_some());
        notes.filled.push((Digest::sha256(b"b"), 1));
        assert!(notes.take(Wall(START.0 + 60_001)).is_some());
    }

    #[test]
    fn what_cannot_be_told_is_told_later() {
        let mut notes = Notes::default();
        notes.count("a".into(), 2);
        let taken = notes.take(START).unwrap();
        notes.count("a".into(), 1);
        notes.give_back(taken);
        assert_eq!(notes.counts["a"], 3);
    }
}
