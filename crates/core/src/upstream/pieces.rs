//! One blob through several connections at once: whether that is worth it, and into which pieces it is cut.
//!
//! Over a long line one connection brings no more than its window in each round trip, however wide the line is. Several
//! bring that much each. Where upstream is near, one connection brings all there is, and more of them only cost.

use std::ops::Range;
use std::time::Duration;

use crate::config::{Source, SourceKind};
use crate::time::Mono;

/// Connections that one fill may have.
pub const STREAMS: usize = 8;
/// Connections beside their first ones that all fills from one source may have together.
pub const FURTHER: usize = 24;
/// As [`FURTHER`], for fills that go ahead of a client. They may have a few more: a large layer takes all that pieces may
/// have, and the small ones, which gain little by pieces, would not even begin.
pub const AHEAD: usize = FURTHER + 8;

/// A line on which the window may be what limits a connection.
const FAR: Duration = Duration::from_millis(20);
/// Bytes a second, as a gigabit line has: who has as many with one connection gains nothing by others.
const FAST: u64 = 100_000_000;
/// Bytes a second. So few from nearby mean that upstream grants each connection no more.
const SLOW: u64 = 5_000_000;
/// Bytes of a piece, at least. Each costs a round trip.
const LEAST: u64 = 2 << 20;
/// Bytes of a piece, at most. The more, the longer the bytes behind it wait until they can be passed on.
const MOST: u64 = 16 << 20;
/// Bytes of a piece as long as nothing is known of the rate.
const USUAL: u64 = 8 << 20;
/// Round trips that a piece should take at least, so that the one it costs does not matter.
const ROUND_TRIPS: u64 = 16;
/// Pieces for each connection, so that one that is slow does not have the last word.
const TURNS: u64 = 2;
/// Pieces begin at a multiple of this.
const GRAIN: u64 = 64 << 10;
/// Bytes whose transfer says something of the rate.
const TELLING: u64 = 1 << 20;
/// A blob whose size shows only in the answer is asked for again in pieces from so many bytes and so long a delay on. What
/// is under way by then is lost: a round trip's worth, where a connection has just begun to send.
const LATE: (u64, Duration) = (32 << 20, Duration::from_millis(50));

/// How long an upstream is spared further connections that has refused one, at least and at most.
const CROWDED: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);

/// What is known of the way to an upstream's blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// From a request to the head of its answer.
    delay: Duration,
    /// Bytes a second that one connection brings.
    rate: Option<u64>,
    /// The delay is that of blobs, which other hosts may send than those that answer for manifests.
    of_blobs: bool,
    /// Until when upstream wants no connection beside others.
    crowded: Option<Mono>,
}

impl Line {
    pub fn new(delay: Duration, of_blobs: bool) -> Line {
        Line { delay, rate: None, of_blobs, crowded: None }
    }

    /// An answer came after `delay`. The shortest is believed, and forgotten slowly: what is longer had to wait for
    /// something else, such as a connection.
    pub fn answered(&mut self, delay: Duration, of_blobs: bool) {
        if of_blobs && !self.of_blobs {
            (self.delay, self.of_blobs) = (delay, true);
        } else if of_blobs == self.of_blobs {
            self.delay = delay.min(self.delay + delay.saturating_sub(self.delay) / 8);
        }
    }

    /// One connection brought `bytes` in `time`.
    pub fn brought(&mut self, bytes: u64, time: Duration) {
        if bytes < TELLING {
            return;
        }
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = bytes.saturating_mul(1000) / millis;
        self.rate = Some(self.rate.map_or(rate, |before| before / 2 + rate / 2));
    }

    /// A connection beside others was refused.
    pub fn refused(&mut self, wait: Option<Duration>, now: Mono) {
        self.crowded = Some(now.plus(wait.unwrap_or(CROWDED).clamp(CROWDED, LONGEST)));
    }

    /// As it is now.
    pub fn at(&self, now: Mono) -> Line {
        Line { crowded: self.crowded.filter(|until| now < *until), ..*self }
    }

    /// Whether several connections bring more than one.
    fn gains(&self) -> bool {
        self.crowded.is_none()
            && match self.rate {
                Some(rate) => rate < if self.delay >= FAR { FAST } else { SLOW },
                None => self.delay >= FAR,
            }
    }

    /// Bytes of a piece that take long enough on this line.
    fn piece(line: Option<Line>) -> u64 {
        let Some((delay, rate)) = line.and_then(|line| Some((line.delay, line.rate?))) else {
            return USUAL;
        };
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        (rate.saturating_mul(millis) / 1000).saturating_mul(ROUND_TRIPS).clamp(2 * LEAST, MOST)
    }
}

/// How many bytes of a blob of `size` bytes the first request to `source` should ask for. `None`: all of them.
pub fn opening(source: &Source, size: u64, line: Option<Line>) -> Option<u64> {
    // A mirror of ours sends what it is still fetching in order: whoever asks for a later part of it only waits.
    let in_order = source.kind == SourceKind::Entrepot;
    let gains = !in_order && streams(size) > 1 && line.is_none_or(|line| line.gains());
    gains.then(|| piece(size, line))
}

/// As [`opening`], for a blob whose `size` the answer to a request for all of it has shown.
pub fn reopening(source: &Source, size: u64, line: Line) -> Option<u64> {
    let late = size >= LATE.0 && line.delay >= LATE.1;
    opening(source, size, Some(line)).filter(|_| late)
}

/// What of a blob nobody has been asked for yet. Each byte is handed out once, the first ones first.
#[derive(Clone, Debug)]
pub struct Pieces {
    /// In order, and not empty.
    gaps: Vec<Range<u64>>,
    piece: u64,
    streams: usize,
}

impl Pieces {
    /// Of a blob of `size` bytes, of which the first `opened` have been asked for.
    pub fn new(size: u64, opened: u64, line: Option<Line>) -> Pieces {
        let rest = opened.min(size)..size;
        let gaps = if rest.is_empty() { Vec::new() } else { vec![rest] };
        Pieces { gaps, piece: piece(size, line), streams: streams(size) }
    }

    /// Whether another connection is worth having beside the `running` ones.
    pub fn want_another(&self, running: usize, line: Option<Line>) -> bool {
        !self.gaps.is_empty() && running < self.streams && line.is_some_and(|line| line.gains())
    }

    /// The next piece, for a connection that has nothing to do. Where others bring nothing, that is all there is in a row.
    pub fn take(&mut self, line: Option<Line>) -> Option<Range<u64>> {
        let first = self.gaps.first_mut()?;
        let end = if line.is_some_and(|line| line.gains()) {
            first.end.min(first.start.saturating_add(self.piece))
        } else {
            first.end
        };
        let piece = first.start..end;
        first.start = end;
        if first.is_empty() {
            self.gaps.remove(0);
        }
        Some(piece)
    }

    /// A connection failed before it brought `rest`, while `running` others go on: they must do.
    pub fn give_back(&mut self, rest: Range<u64>, running: usize) {
        self.streams = self.streams.min(running);
        if !rest.is_empty() {
            let at = self.gaps.partition_point(|gap| gap.start < rest.start);
            self.gaps.insert(at, rest);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.gaps.is_empty()
    }
}

/// Connections that a blob of `size` bytes can keep busy.
fn streams(size: u64) -> usize {
    usize::try_from(size / (TURNS * LEAST)).unwrap_or(STREAMS).clamp(1, STREAMS)
}

/// Bytes of each piece of a blob of `size` bytes: as many turns for each connection as it takes to keep them small.
fn piece(size: u64, line: Option<Line>) -> u64 {
    let streams = streams(size) as u64;
    let turns = size.div_ceil(streams * Line::piece(line)).max(TURNS);
    (size / (streams * turns)).max(LEAST).next_multiple_of(GRAIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::hub;
    use super::*;

    const MB: u64 = 1_000_000;

    fn line(delay: u64, rate: Option<u64>) -> Line {
        Line { rate, ..Line::new(Duration::from_millis(delay), true) }
    }

    #[test]
    fn only_large_blobs_over_long_lines_come_in_pieces() {
        let far = Some(line(120, None));
        for (size, pieces) in [(1, None), (5_700_000, None), (9_500_000, Some(2)), (256 * MB, Some(8))] {
            assert_eq!(opening(&hub(), size, far).map(|_| streams(size)), pieces, "{size}");
        }
        for (line, gains) in [
            (None, true),
            (Some(line(5, None)), false),
            (Some(line(5, Some(300 * MB))), false),
            (Some(line(5, Some(MB))), true),
            (Some(line(30, Some(30 * MB))), true),
            (Some(line(120, Some(110 * MB))), false),
        ] {
            assert_eq!(opening(&hub(), 256 * MB, line).is_some(), gains, "{line:?}");
        }
        assert!(reopening(&hub(), 256 * MB, line(120, None)).is_some());
        assert!(
            reopening(&hub(), 16 * MB, line(120, None)).is_none(),
            "too much of it would be fetched twice"
        );
        assert!(reopening(&hub(), 256 * MB, line(30, None)).is_none());
        let home = Source { kind: SourceKind::Entrepot, ..hub() };
        assert!(opening(&home, 256 * MB, far).is_none(), "a mirror of ours sends in order");
    }

    #[test]
    fn pieces_are_as_long_as_the_line() {
        // Known only after the first ones: eight pieces at once, then eight more.
        assert_eq!(opening(&hub(), 56_800_000, None), Some(3_604_480));
        assert_eq!(opening(&hub(), 256 * MB, None), Some(8_060_928));
        // 9.6 MB are sixteen round trips' worth.
        assert_eq!(opening(&hub(), 2000 * MB, Some(line(120, Some(5 * MB)))), Some(9_306_112));
        assert_eq!(opening(&hub(), 2000 * MB, Some(line(600, Some(50 * MB)))), Some(16_711_680));
    }

    #[test]
    fn the_shortest_delay_is_believed_and_slowly_forgotten() {
        let millis = |line: &Line| line.delay.as_millis();
        let mut line = Line::new(Duration::from_millis(240), false);
        line.answered(Duration::from_millis(120), false);
        assert_eq!(millis(&line), 120);
        line.answered(Duration::from_millis(200), false);
        assert_eq!(millis(&line), 130);
        line.answered(Duration::from_millis(10), true);
        line.answered(Duration::from_millis(1), false);
        assert_eq!(millis(&line), 10, "blobs come from elsewhere");
    }

    #[test]
    fn an_upstream_that_has_refused_a_connection_is_spared_others_for_a_while() {
        let mut line = line(120, None);
        let now = Mono(1_000_000);
        line.refused(None, now);
        let after =
            |seconds| opening(&hub(), 256 * MB, Some(line.at(now.plus(Duration::from_secs(seconds)))));
        assert!(after(59).is_none() && after(61).is_some());
        assert!(!Pieces::new(256 * MB, 8 * MB, None).want_another(1, Some(line)));
    }

    #[test]
    fn a_line_that_turns_out_fast_takes_the_rest_at_once() {
        let mut pieces = Pieces::new(256 * MB, 8 * MB, Some(line(120, None)));
        assert_eq!(pieces.take(Some(line(120, None))), Some(8 * MB..8 * MB + 8_060_928));
        let fast = Some(line(120, Some(200 * MB)));
        assert!(!pieces.want_another(1, fast));
        assert_eq!(pieces.take(fast), Some(8 * MB + 8_060_928..256 * MB));
        assert!(pieces.is_empty());
    }

    /// What happens to a connection.
    #[derive(Clone, Debug)]
    enum Turn {
        Another,
        /// The n-th of those that run has brought its piece.
        Done(usize),
        /// The n-th breaks for good, after part of it.
        Lost(usize, u64),
        Line(u64, Option<u64>),
    }

    fn turns() -> impl Strategy<Value = Turn> {
        prop_oneof![
            4 => Just(Turn::Another),
            6 => (0..STREAMS).prop_map(Turn::Done),
            1 => (0..STREAMS, any::<u64>()).prop_map(|(which, part)| Turn::Lost(which, part)),
            1 => (0..200u64, proptest::option::of(0..200 * MB)).prop_map(|(delay, rate)| Turn::Line(delay, rate)),
        ]
    }

    proptest! {
        #[test]
        fn every_byte_is_fetched_once_and_in_order(
            size in prop_oneof![0..64 * MB, 0..4_000 * MB, any::<u64>()],
            turns in proptest::collection::vec(turns(), 0..200),
        ) {
            let mut at = Some(line(120, None));
            let first = opening(&hub(), size, at).unwrap_or(size);
            prop_assert!(first <= size && (first == size || (LEAST..=MOST).contains(&first)));
            let mut pieces = Pieces::new(size, first, at);
            let mut running = Vec::from_iter([Range { start: 0, end: first }]);
            let mut brought = Vec::new();
            let (mut mark, mut lost) = (first, false);
            for turn in turns {
                match turn {
                    Turn::Another if pieces.want_another(running.len(), at) => running.extend(pieces.take(at)),
                    Turn::Line(delay, rate) => at = Some(line(delay, rate)),
                    Turn::Done(_) | Turn::Lost(..) if running.is_empty() => running.extend(pieces.take(at)),
                    Turn::Another => {}
                    Turn::Done(which) => {
                        let which = which % running.len();
                        brought.push(running.remove(which));
                        running.extend(pieces.take(at));
                    }
                    Turn::Lost(which, part) => {
                        let which = which % running.len();
                        let piece = running.remove(which);
                        let cut = piece.start + part.checked_rem(piece.end - piece.start).unwrap_or(0);
                        brought.push(piece.start..cut);
                        pieces.give_back(cut..piece.end, running.len());
                        lost = true;
                    }
                }
                prop_assert!(running.len() <= STREAMS);
                if let Some(last) = running.last().filter(|last| !lost && last.start >= mark) {
                    prop_assert_eq!(last.start, mark, "the first ones first");
                    mark = last.end;
                }
            }
            // Where nothing is gained by others, one connection takes what is left.
            brought.append(&mut running);
            while let Some(piece) = pieces.take(Some(line(0, None))) {
                brought.push(piece);
            }
            prop_assert!(pieces.is_empty());
            brought.retain(|piece| !piece.is_empty());
            brought.sort_by_key(|piece| piece.start);
            let mut end = 0;
            for piece in brought {
                prop_assert_eq!(piece.start, end, "every byte, and none twice");
                end = piece.end;
            }
            prop_assert_eq!(end, size);
        }
    }
}
