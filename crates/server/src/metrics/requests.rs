//! What is counted of every request. Each thread counts in a place of its own, so that no request waits for another, nor for
//! memory that another processor has just written; whoever reads adds the places up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use entrepot_core::answer::Verdict;
use entrepot_core::event::{Labels, RequestLog};
use hashbrown::HashMap;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, LabelSetEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// Threads that share no place; more than have to do with requests on any but the largest machines.
const PLACES: usize = 64;
/// Seconds; what takes longer than the last counts as infinite.
const FIRST_BYTE: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0];

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static PLACE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % PLACES;
}

/// See the module.
#[derive(Debug)]
pub(super) struct Requests(Box<[Place]>);

/// As far from the next as processors fetch memory at once.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    answered: HashMap<Labels, Answered>,
    /// By the bounds of [`FIRST_BYTE`], each request in one bucket; the last has no bound.
    first_byte: [u64; FIRST_BYTE.len() + 1],
    first_byte_seconds: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Answered {
    requests: u64,
    /// Of their bodies.
    bytes: u64,
}

impl Default for Requests {
    fn default() -> Requests {
        Requests((0..PLACES).map(|_| Place::default()).collect())
    }
}

impl Requests {
    pub(super) fn count(&self, log: RequestLog) {
        let (bytes, seconds) = (log.bytes, log.first_byte.as_secs_f64());
        let labels = log.into_labels();
        let mut counts = self.0[PLACE.with(|place| *place)].0.lock();
        let answered = match counts.answered.get_mut(&labels) {
            Some(answered) => answered,
            None => counts.answered.entry(labels).or_default(),
        };
        answered.requests += 1;
        answered.bytes += bytes;
        let bucket = FIRST_BYTE.iter().position(|most| seconds <= *most).unwrap_or(FIRST_BYTE.len());
        counts.first_byte[bucket] += 1;
        counts.first_byte_seconds += seconds;
    }

    fn total(&self) -> Counts {
        self.0.iter().fold(Counts::default(), |mut total, place| {
            let counts = place.0.lock();
            for (labels, more) in &counts.answered {
                let answered = total.answered.entry_ref(labels).or_default();
                answered.requests += more.requests;
                answered.bytes += more.bytes;
            }
            for (all, more) in total.first_byte.iter_mut().zip(counts.first_byte) {
                *all += more;
            }
            total.first_byte_seconds += counts.first_byte_seconds;
            total
        })
    }
}

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let total = self.total();
        let mut sent: BTreeMap<Option<Verdict>, u64> = BTreeMap::new();
        let counter = MetricType::Counter;
        let mut requests = encoder.encode_descriptor("requests", "Requests answered", None, counter)?;
        for (labels, answered) in &total.answered {
            *sent.entry(labels.verdict()).or_default() += answered.bytes;
            ConstCounter::new(answered.requests).encode(requests.encode_family(&Spelt(labels))?)?;
        }
        let help = "Body bytes sent to clients, by verdict";
        let mut sent_bytes = encoder.encode_descriptor("sent_bytes", help, None, counter)?;
        for (verdict, bytes) in sent {
            let verdict = [("verdict", verdict.map_or("none", Verdict::label))];
            ConstCounter::new(bytes).encode(sent_bytes.encode_family(&verdict)?)?;
        }
        let help = "From a request to the first byte of its answer's body";
        let name = "first_byte_seconds";
        let mut first_byte = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let most = FIRST_BYTE.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = most.zip(total.first_byte).collect();
        let count = total.first_byte.iter().sum();
        first_byte.encode_histogram::<NoLabelSet>(total.first_byte_seconds, count, &buckets, None)
    }
}

struct Spelt<'a>(&'a Labels);

impl EncodeLabelSet for Spelt<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.pairs().encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use entrepot_core::event::{Method, Route, Text};
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    fn log(verdict: Option<Verdict>, bytes: u64, first_byte: Duration) -> RequestLog {
        RequestLog {
            client: None,
            address: [192, 0, 2, 10].into(),
            method: Method::Get,
            route: Route::Blob,
            target: Text::new("/v2/a/blobs/b"),
            user_agent: None,
            source: Some("dockerhub".into()),
            status: 200,
            verdict,
            reason: None,
            internal: None,
            bytes,
            upstream_bytes: 0,
            first_byte,
            total: first_byte,
            aborted: false,
        }
    }

    #[test]
    fn what_threads_count_is_added_up() {
        let requests = std::sync::Arc::new(Requests::default());
        let count = |verdict, bytes, ms| {
            let requests = requests.clone();
            let counting = thread::spawn(move || {
                let place = PLACE.with(|place| *place);
                requests.count(log(verdict, bytes, Duration::from_millis(ms)));
                place
            });
            counting.join().unwrap()
        };
        let places = [
            count(Some(Verdict::Hit), 10, 1),
            count(Some(Verdict::Hit), 20, 2),
            count(Some(Verdict::Miss), 5, 11_000),
            count(None, 0, 5),
        ];
        assert!(places.windows(2).all(|pair| pair[0] != pair[1]), "{places:?}");
        let mut registry = Registry::with_prefix("entrepot");
        registry.register_collector(Box::new(requests));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let of = |verdict| {
            format!(
                "entrepot_requests_total{{method=\"GET\",route=\"blob\",source=\"dockerhub\",status=\"2xx\",verdict=\"{verdict}\",\
                 reason=\"none\"}}"
            )
        };
        for line in [
            format!("{} 2", of("hit")),
            format!("{} 1", of("miss")),
            format!("{} 1", of("none")),
            "entrepot_sent_bytes_total{verdict=\"hit\"} 30".to_owned(),
            "entrepot_sent_bytes_total{verdict=\"miss\"} 5".to_owned(),
            "entrepot_first_byte_seconds_bucket{le=\"0.001\"} 1".to_owned(),
            "entrepot_first_byte_seconds_bucket{le=\"0.005\"} 3".to_owned(),
            "entrepot_first_byte_seconds_bucket{le=\"10.0\"} 3".to_owned(),
            "entrepot_first_byte_seconds_bucket{le=\"+Inf\"} 4".to_owned(),
            "entrepot_first_byte_seconds_count 4".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let sum = text.lines().find_map(|line| line.strip_prefix("entrepot_first_byte_seconds_sum "));
        let sum: f64 = sum.and_then(|sum| sum.parse().ok()).unwrap();
        assert!((sum - 11.008).abs() < 1e-9, "{text}");
    }
}
