//! What an isolate has to tell the ledger, gathered so that a hit writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use entrepot_core::event::{Event, RequestLog};
use entrepot_core::limit::Bucket;
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
        self.count("requests", &log.clone().into_labels().pairs(), 1);
        let verdict = log.verdict.map_or("none", |verdict| verdict.label());
        self.count("sent_bytes", &[("verdict", verdict)], log.bytes);
    }

    /// Objects that had to go.
    pub(crate) fn evicted(&mut self, objects: u64) {
        self.count("evicted_objects", &[], objects);
    }

    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Upstream { source, route, status, reason } => {
                let outcome = match (status, reason) {
                    (_, Some(reason)) => reason.label().to_owned(),
                    (Some(status), None) => status.to_string(),
                    (None, None) => "none".to_owned(),
                };
                let labels = [("source", &**source), ("route", route.label()), ("outcome", &outcome)];
                self.count("upstream_requests", &labels, 1);
            }
            Event::FillEnded { source, bytes, reason } => {
                let outcome = reason.map_or("stored", |reason| reason.label());
                self.count("fills", &[("source", source), ("outcome", outcome)], 1);
                self.count("upstream_bytes", &[("source", source)], *bytes);
            }
            Event::DigestMismatch { source } => self.count("digest_mismatch", &[("source", source)], 1),
            Event::Resumed { source, .. } => self.count("resumed", &[("source", source)], 1),
            Event::Limited { bucket } => {
                let bucket = match bucket {
                    Bucket::Pulls => "pulls",
                    Bucket::Requests => "requests",
                };
                self.count("limited", &[("bucket", bucket)], 1);
            }
            // Nothing is read anew here.
            Event::Reloaded { .. } => {}
        }
    }

    /// Under the names that they have at home. Values are from closed lists, or names of the configuration's: the number of
    /// series is bounded, and nothing in them needs quoting.
    fn count(&mut self, name: &str, labels: &[(&str, &str)], by: u64) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.add(format!("entrepot_{name}_total{labels}"), by);
    }

    fn add(&mut self, series: String, by: u64) {
        *self.counts.entry(series).or_default() += by;
    }

    /// Takes what is to be told, if it is time.
    pub(crate) fn take(&mut self, now: Wall) -> Option<Notes> {
        let many = self.used.len() >= MANY || self.counts.len() >= MANY;
        let old = now.since(self.told).as_millis() >= u128::from(OLD);
        // What was stored counts at once: the bucket's size hangs on it.
        if many || old || !self.filled.is_empty() { self.take_all(now) } else { None }
    }

    /// Takes what is to be told. `None`: nothing is.
    pub(crate) fn take_all(&mut self, now: Wall) -> Option<Notes> {
        if self.used.is_empty() && self.filled.is_empty() && self.counts.is_empty() {
            return None;
        }
        // Tells how well they are gathered.
        self.count("ledger_notes", &[], 1);
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
            self.add(series, by);
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
        notes.count("a", &[("b", "c")], 2);
        let taken = notes.take(START).unwrap();
        notes.count("a", &[("b", "c")], 1);
        notes.give_back(taken);
        assert_eq!(notes.counts["entrepot_a_total{b=\"c\"}"], 3);
    }
}
