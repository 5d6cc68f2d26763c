//! The long way to upstream, and what went over it.

use entrepot_testkit::wan::Wan;

use super::Bench;
use crate::peers::Peer;
use crate::sheet::Sheet;

/// What a table's reader has to know of it.
pub(super) const ABOUT: &str =
    "Upstream is 120 ms away: 40 Mbit/s for a connection, 1 Gbit/s for all, slow start.";

/// A new link to upstream, with its counters at zero.
pub(super) fn link(bench: &Bench<'_>) -> Wan {
    Wan::start(bench.upstream.address())
}

/// Adds what was fetched over the link since its start.
pub(super) fn count(sheet: &mut Sheet, what: &str, peer: Peer, wan: &Wan) {
    sheet.add(what, "upstream MB", peer, wan.bytes_down() as f64 / 1e6);
    sheet.add(what, "upstream blob GETs", peer, blob_requests(wan) as f64);
    sheet.add(what, "upstream connections", peer, wan.connections() as f64);
}

fn blob_requests(wan: &Wan) -> usize {
    wan.requests().iter().filter(|line| line.starts_with("GET ") && line.contains("/blobs/")).count()
}
