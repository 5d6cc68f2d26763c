//! A body on its way in, in batches that are worth a write.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use entrepot_core::upstream::Fault;
use futures_util::FutureExt as _;

use crate::client::Incoming;

/// Bytes gathered for one write, where as many come. Each write costs a switch to another thread and back.
pub(super) const BATCH: usize = 512 * 1024;
/// How long bytes may wait for others. It bounds how often a slow fill wakes who follows it.
const GATHER: Duration = Duration::from_millis(10);
/// Bytes a second, averaged over a stall time-out, below which a body counts as stalled.
const SLOWEST: u64 = 4 * 1024;
/// Batches that are worth keeping for those to come: one is gathered while another is written.
const SPARE: usize = 2;

/// See the module. The bytes are copied: the connection reads into the same memory again as soon as it is let go of, and
/// that is worth more than the copy, as fresh memory has to be cleared first.
pub(super) struct Arriving {
    body: Incoming,
    /// Bytes that are held already.
    skip: u64,
    pace: Pace,
    most: usize,
    begun: bool,
    ended: Option<Result<(), Fault>>,
    spare: Vec<BytesMut>,
}

impl Arriving {
    /// `body` without its first `skip` bytes, in batches of `most` and what came with the last of them. A pause longer than
    /// `stall` ends it.
    pub(super) fn new(body: Incoming, skip: u64, stall: Duration, most: usize) -> Arriving {
        let (pace, spare) = (Pace::new(stall), Vec::new());
        Arriving { body, skip, pace, most, begun: false, ended: None, spare }
    }

    /// At least one byte; `None` at the end. The first bytes wait for no others.
    pub(super) async fn batch(&mut self) -> Result<Option<Bytes>, Fault> {
        let mut batch = self.spare.pop().unwrap_or_default();
        let mut due = None;
        while batch.len() < self.most && self.ended.is_none() {
            let next = match due {
                None => self.pace.wait(self.body.next()).await,
                Some(due) => match self.body.next().now_or_never() {
                    Some(next) => next,
                    None if !self.begun => break,
                    None => match self.pace.wait_until(due, self.body.next()).await {
                        Some(next) => next,
                        None => break,
                    },
                },
            };
            match next {
                None => self.ended = Some(Ok(())),
                Some(Err(fault)) => self.ended = Some(Err(fault)),
                Some(Ok(chunk)) => {
                    self.pace.took(chunk.len());
                    let skipped = self.skip.min(chunk.len() as u64);
                    self.skip -= skipped;
                    batch.extend_from_slice(&chunk[skipped as usize..]);
                    if !batch.is_empty() {
                        due.get_or_insert_with(|| Instant::now() + GATHER);
                    }
                }
            }
        }
        match (batch.is_empty(), self.ended) {
            (true, Some(Err(fault))) => Err(fault),
            (true, _) => Ok(None),
            (false, _) => {
                self.begun = true;
                Ok(Some(batch.freeze()))
            }
        }
    }

    /// Takes the memory of a batch back that nobody needs any more.
    pub(super) fn recycle(&mut self, batch: Bytes) {
        if self.spare.len() < SPARE
            && let Ok(mut memory) = batch.try_into_mut()
        {
            memory.clear();
            self.spare.push(memory);
        }
    }
}

/// Tells a slow body from a stalled one: in each stall time-out spent waiting, some bytes must come. Time in which the
/// disk or the clients are waited for does not count.
struct Pace {
    stall: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn new(stall: Duration) -> Pace {
        Pace { stall, waited: Duration::ZERO, bytes: 0 }
    }

    async fn wait(
        &mut self,
        next: impl Future<Output = Option<Result<Bytes, Fault>>>,
    ) -> Option<Result<Bytes, Fault>> {
        let since = Instant::now();
        let left = self.stall.saturating_sub(self.waited);
        let next = tokio::time::timeout(left, next).await.unwrap_or(Some(Err(Fault::Stalled)));
        self.waited += since.elapsed();
        next
    }

    /// `None`: nothing came until then.
    async fn wait_until<T>(&mut self, due: Instant, next: impl Future<Output = T>) -> Option<T> {
        let since = Instant::now();
        let next = tokio::time::timeout_at(due.into(), next).await.ok();
        self.waited += since.elapsed();
        next
    }

    fn took(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.bytes >= SLOWEST.saturating_mul(self.stall.as_secs().max(1)) {
            self.waited = Duration::ZERO;
            self.bytes = 0;
        }
    }
}
