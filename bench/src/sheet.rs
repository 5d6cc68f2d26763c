//! What a case has measured: rows of values, in the order in which they first came.

use serde::Serialize;

use crate::peers::Peer;

/// The measurements of one case.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Sheet {
    pub(crate) rows: Vec<Row>,
    /// What the reader must know besides.
    pub(crate) notes: Vec<String>,
}

/// One thing that was measured, of each peer as often as there were runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Under which circumstances: `8 clients, dropped`.
    pub(crate) what: String,
    /// What, with its unit: `GB/s`.
    pub(crate) metric: String,
    pub(crate) cells: Vec<(Peer, Vec<f64>)>,
}

impl Sheet {
    /// Adds one value of `metric`, as `what` was measured of `peer`.
    pub(crate) fn add(&mut self, what: &str, metric: &str, peer: Peer, value: f64) {
        let known = self.rows.iter().position(|row| row.what == what && row.metric == metric);
        let at = known.unwrap_or_else(|| {
            self.rows.push(Row { what: what.to_owned(), metric: metric.to_owned(), cells: Vec::new() });
            self.rows.len() - 1
        });
        self.rows[at].put(peer, value);
    }

    /// Says something once, however often it is noticed.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Every peer that something was measured of, ours first.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let mut peers: Vec<Peer> =
            self.rows.iter().flat_map(|row| row.cells.iter().map(|(peer, _)| *peer)).collect();
        peers.sort();
        peers.dedup();
        peers
    }
}

impl Row {
    /// The values of one peer; none if it was not measured.
    pub(crate) fn of(&self, peer: Peer) -> &[f64] {
        self.cells.iter().find(|(of, _)| *of == peer).map_or(&[], |(_, values)| values)
    }

    fn put(&mut self, peer: Peer, value: f64) {
        match self.cells.iter_mut().find(|(of, _)| *of == peer) {
            Some((_, values)) => values.push(value),
            None => self.cells.push((peer, vec![value])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_gather_in_their_row() {
        let mut sheet = Sheet::default();
        sheet.add("a", "s", Peer::Nginx, 1.0);
        sheet.add("b", "s", Peer::Entrepot, 2.0);
        sheet.add("a", "s", Peer::Nginx, 3.0);
        assert_eq!(sheet.rows.len(), 2);
        assert_eq!(sheet.rows[0].of(Peer::Nginx), [1.0, 3.0]);
        assert!(sheet.rows[0].of(Peer::Entrepot).is_empty());
        assert_eq!(sheet.peers(), [Peer::Entrepot, Peer::Nginx]);
    }
}
