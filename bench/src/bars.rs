//! What is to be reached: the bars, and how a measurement stands to them.

use crate::peers::Peer;
use crate::sheet::Row;
use crate::stats;

/// What the median of ours must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bar {
    /// At least so many times the peer's.
    AtLeast(f64, Peer),
    /// At most so many times the peer's.
    AtMost(f64, Peer),
    /// At most the peer's and so much more.
    AtMostAbove(f64, Peer),
    /// At most so much.
    Below(f64),
}

/// How a measurement stands to a bar.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Judgement {
    /// `≥ 1.4 × static`
    pub(crate) bar: String,
    /// What the bar limits: a ratio, a difference, or the value itself.
    pub(crate) got: f64,
    pub(crate) met: bool,
}

impl Bar {
    /// `None` where one of the two was not measured.
    pub(crate) fn judge(self, row: &Row) -> Option<Judgement> {
        let ours = stats::median(row.of(Peer::Entrepot))?;
        let theirs = |peer: Peer| stats::median(row.of(peer));
        let (bar, got, met) = match self {
            Bar::AtLeast(times, peer) => {
                let got = ours / theirs(peer)?;
                (format!("≥ {times} × {}", peer.name()), got, got >= times)
            }
            Bar::AtMost(times, peer) => {
                let got = ours / theirs(peer)?;
                (format!("≤ {times} × {}", peer.name()), got, got <= times)
            }
            Bar::AtMostAbove(more, peer) => {
                let got = ours - theirs(peer)?;
                (format!("≤ {} + {more}", peer.name()), got, got <= more)
            }
            Bar::Below(limit) => (format!("≤ {limit}"), ours, ours <= limit),
        };
        got.is_finite().then_some(Judgement { bar, got, met })
    }
}

/// The bars of one row.
pub(crate) fn of<'a>(case: &'a str, row: &'a Row) -> impl Iterator<Item = Bar> + 'a {
    BARS.iter()
        .filter(move |(of, what, metric, _)| {
            *of == case && row.what.starts_with(what) && row.metric == *metric
        })
        .map(|(.., bar)| *bar)
}

/// Case, how the row's circumstances begin, metric, bar.
const BARS: &[(&str, &str, &str, Bar)] = &[
    ("blob-warm", "1 client, dropped", "GB/s", Bar::AtLeast(1.4, Peer::Static)),
    ("blob-warm", "8 clients, dropped", "GB/s", Bar::AtLeast(1.4, Peer::Static)),
    ("blob-warm", "1 client, copied", "GB/s", Bar::AtLeast(1.0, Peer::Static)),
    ("blob-warm", "8 clients, copied", "GB/s", Bar::AtLeast(1.0, Peer::Static)),
    ("blob-warm", "1 client", "CPU s/GB", Bar::AtMost(0.6, Peer::Static)),
    ("blob-warm", "8 clients", "CPU s/GB", Bar::AtMost(0.6, Peer::Static)),
    ("manifest-tag", "1 connection", "req/s", Bar::AtLeast(1.0, Peer::Nginx)),
    ("manifest-tag", "16 connections", "req/s", Bar::AtLeast(1.2, Peer::Nginx)),
    ("manifest-tag", "256 connections", "req/s", Bar::AtLeast(1.2, Peer::Nginx)),
    ("manifest-tag", "", "req/s", Bar::AtLeast(30.0, Peer::DockerRegistry)),
    ("manifest-tag", "", "p99 ms", Bar::AtMost(1.0, Peer::Nginx)),
    ("manifest-tag", "", "CPU s/10k", Bar::AtMost(1.0, Peer::Nginx)),
    ("manifest-digest", "1 connection", "req/s", Bar::AtLeast(1.0, Peer::Nginx)),
    ("manifest-digest", "16 connections", "req/s", Bar::AtLeast(1.2, Peer::Nginx)),
    ("manifest-digest", "256 connections", "req/s", Bar::AtLeast(1.2, Peer::Nginx)),
    ("manifest-digest", "", "req/s", Bar::AtLeast(30.0, Peer::DockerRegistry)),
    ("manifest-digest", "", "p99 ms", Bar::AtMost(1.0, Peer::Nginx)),
    ("manifest-digest", "", "CPU s/10k", Bar::AtMost(1.0, Peer::Nginx)),
    ("cold-fast", "", "s", Bar::AtMost(1.15, Peer::Nginx)),
    ("cold-fast", "", "CPU s/GB", Bar::AtMostAbove(0.7, Peer::Nginx)),
    ("cold-fast", "", "first byte s", Bar::AtMost(1.2, Peer::Direct)),
    ("cold-pull", "dockerd", "s", Bar::AtMost(0.45, Peer::Direct)),
    ("cold-layer", "", "s", Bar::AtMost(0.25, Peer::Direct)),
    ("warm-pull", "", "s", Bar::AtMost(1.05, Peer::Nginx)),
    ("warm-pull", "dockerd", "s", Bar::AtMost(0.167, Peer::Direct)),
    ("warm-pull", "skopeo", "s", Bar::AtMost(0.04, Peer::Direct)),
    ("herd-50", "", "upstream ÷ image", Bar::Below(1.01)),
    ("herd-50", "", "slowest client s", Bar::AtMost(0.45, Peer::Nginx)),
    ("herd-50", "", "worst first byte s", Bar::Below(1.0)),
    ("idle", "idle", "RssAnon MB", Bar::Below(15.0)),
    ("idle", "1000 streams", "RssAnon MB", Bar::Below(100.0)),
    ("evict", "", "layers above the cap", Bar::Below(1.0)),
    ("start", "empty", "first 200 s", Bar::Below(0.02)),
    ("start", "1000000 objects", "first 200 s", Bar::Below(1.0)),
    ("start", "1000000 objects", "peak RssAnon MB", Bar::Below(15.0)),
    ("growth", "many ÷ few", "instructions", Bar::Below(1.05)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: &[f64], nginx: &[f64]) -> Row {
        let cells = vec![(Peer::Entrepot, ours.to_vec()), (Peer::Nginx, nginx.to_vec())];
        Row { what: "16 connections".into(), metric: "req/s".into(), cells }
    }

    #[test]
    fn bars_are_held_against_medians() {
        let row = row(&[1.0, 3.0, 99.0], &[2.0]);
        let judged = Bar::AtLeast(1.4, Peer::Nginx).judge(&row).unwrap();
        assert_eq!(judged, Judgement { bar: "≥ 1.4 × nginx".into(), got: 1.5, met: true });
        assert!(!Bar::AtMost(1.4, Peer::Nginx).judge(&row).unwrap().met);
        assert!(Bar::AtMostAbove(1.0, Peer::Nginx).judge(&row).unwrap().met);
        assert!(!Bar::Below(2.9).judge(&row).unwrap().met);
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        assert_eq!(Bar::AtLeast(1.4, Peer::Static).judge(&row(&[1.0], &[1.0])), None);
        assert_eq!(Bar::AtLeast(1.4, Peer::Nginx).judge(&row(&[1.0], &[0.0])), None);
    }

    #[test]
    fn a_row_has_its_own_bars() {
        let bars: Vec<Bar> = of("manifest-tag", &row(&[1.0], &[1.0])).collect();
        assert_eq!(bars, [Bar::AtLeast(1.2, Peer::Nginx), Bar::AtLeast(30.0, Peer::DockerRegistry)]);
        assert_eq!(of("ranges", &row(&[1.0], &[1.0])).count(), 0);
    }
}
