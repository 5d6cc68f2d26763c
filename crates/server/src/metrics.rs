//! Counters for `/metrics`. Labels come from closed lists and from the configuration's source names, never from clients.

mod requests;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use entrepot_core::event::{Event, RequestLog};
use entrepot_core::limit::Bucket;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::store::Store;
use requests::Requests;

type Counters = Family<Vec<(&'static str, String)>, Counter>;

/// All of them, and the registry they are read from.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Arc<Requests>,
    upstream_requests: Counters,
    upstream_bytes: Counters,
    fills: Counters,
    resumed: Counters,
    digest_mismatch: Counters,
    limited: Counters,
    reloads: Counters,
    evicted: Gauge,
    quarantined: Gauge,
    troubles: Gauge,
    stored_bytes: Gauge,
    filling: Gauge,
    healthy: Gauge,
    connections: Gauge,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("entrepot");
        let requests = Arc::new(Requests::default());
        registry.register_collector(Box::new(requests.clone()));
        let mut counters = |name: &str, help: &str| {
            let family = Counters::default();
            registry.register(name, help, family.clone());
            family
        };
        let upstream_requests =
            counters("upstream_requests", "Conversations with upstreams, by source, route and outcome");
        let upstream_bytes = counters("upstream_bytes", "Blob bytes fetched, verified and kept, by source");
        let fills = counters("fills", "Fills that ended, by source and outcome");
        let resumed = counters("resumed", "Downloads resumed after a break, by source");
        let digest_mismatch =
            counters("digest_mismatch", "Objects that did not hash to their digest, by source");
        let limited = counters("limited", "Requests refused by the rate limit, by bucket");
        let reloads = counters("reloads", "Configurations read while running, by whether they were taken");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let evicted = gauge("evicted_objects", "Objects evicted since the start");
        let quarantined = gauge("quarantined_objects", "Stored objects found damaged since the start");
        let troubles = gauge("store_failures", "Operations that the disk refused since the start");
        let stored_bytes = gauge("stored_bytes", "Bytes of objects in the store");
        let filling = gauge("filling", "Fills under way");
        let healthy = gauge("store_healthy", "1 while the disk takes what it is given");
        let connections = gauge("connections", "Open client connections");
        Metrics {
            registry,
            requests,
            upstream_requests,
            upstream_bytes,
            fills,
            resumed,
            digest_mismatch,
            limited,
            reloads,
            evicted,
            quarantined,
            troubles,
            stored_bytes,
            filling,
            healthy,
            connections,
        }
    }
}

impl Metrics {
    pub(crate) fn connections(&self) -> &Gauge {
        &self.connections
    }

    pub(crate) fn request(&self, log: RequestLog) {
        self.requests.count(log);
    }

    pub(crate) fn observe(&self, event: &Event) {
        let source = |source: &str| ("source", source.to_owned());
        match event {
            Event::Upstream { source: name, route, status, reason } => {
                let outcome = match (status, reason) {
                    (_, Some(reason)) => reason.label().to_owned(),
                    (Some(status), None) => status.to_string(),
                    (None, None) => "none".to_owned(),
                };
                let labels = vec![source(name), ("route", route.label().to_owned()), ("outcome", outcome)];
                self.upstream_requests.get_or_create(&labels).inc();
            }
            Event::FillEnded { source: name, bytes, reason } => {
                let outcome = reason.map_or("stored", |reason| reason.label()).to_owned();
                self.fills.get_or_create(&vec![source(name), ("outcome", outcome)]).inc();
                self.upstream_bytes.get_or_create(&vec![source(name)]).inc_by(*bytes);
            }
            Event::Resumed { source: name, .. } => {
                self.resumed.get_or_create(&vec![source(name)]).inc();
            }
            Event::DigestMismatch { source: name } => {
                self.digest_mismatch.get_or_create(&vec![source(name)]).inc();
            }
            Event::Limited { bucket } => {
                let bucket = match bucket {
                    Bucket::Pulls => "pulls",
                    Bucket::Requests => "requests",
                };
                self.limited.get_or_create(&vec![("bucket", bucket.to_owned())]).inc();
            }
            Event::Reloaded { accepted } => {
                self.reloads.get_or_create(&vec![("accepted", accepted.to_string())]).inc();
            }
        }
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self, store: &Store) -> String {
        let counts = store.counts();
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.evicted.set(count(counts.evicted.load(Ordering::Relaxed)));
        self.quarantined.set(count(counts.quarantined.load(Ordering::Relaxed)));
        self.troubles.set(count(counts.troubles.load(Ordering::Relaxed)));
        self.stored_bytes.set(count(store.used()));
        self.filling.set(count(store.fills() as u64));
        self.healthy.set(i64::from(store.healthy()));
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
