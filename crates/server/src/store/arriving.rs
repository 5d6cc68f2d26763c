//! A body on its way in, in batches that are worth a write.

use std::time::{Duration, Instant};

use bytes::Bytes;
use entrepot_core::upstream::Fault;
use futures_util::FutureExt as _;

use crate::client::Incoming;

/// Bytes gathered for one write at most, more or less. Each costs a switch to another thread and back.
pub(super) const BATCH: usize = 1 << 20;
/// How long bytes may wait for others. It bounds how often a slow fill wakes who follows it.
const GATHER: Duration = Duration::from_millis(10);
/// Bytes. What is smaller is copied: it would keep a whole read buffer of the connection alive.
const SMALL: usize = 16 * 1024;
/// Bytes a second, averaged over a stall time-out, below which a body counts as stalled.
const SLOWEST: u64 = 4 * 1024;

/// See the module.
pub(super) struct Arriving {
    body: Incoming,
    /// Bytes that are held already.
    skip: u64,
    pace: Pace,
    most: usize,
    begun: bool,
    ended: Option<Result<(), Fault>>,
}

/// Bytes that came in a row.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    pub(super) chunks: Vec<Bytes>,
    pub(super) bytes: u64,
}

impl Arriving {
    /// `body` without its first `skip` bytes, in batches of about `most`. A pause longer than `stall` ends it.
    pub(super) fn new(body: Incoming, skip: u64, stall: Duration, most: usize) -> Arriving {
        Arriving { body, skip, pace: Pace::new(stall), most, begun: false, ended: None }
    }

    /// At least one byte; `None` at the end. The first bytes wait for no others.
    pub(super) async fn batch(&mut self) -> Result<Option<Batch>, Fault> {
        let mut gathered = Gathered::default();
        let mut due = None;
        while gathered.bytes < self.most && self.ended.is_none() {
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
                    gathered.add(chunk.slice(skipped as usize..));
                    if gathered.bytes > 0 {
                        due.get_or_insert_with(|| Instant::now() + GATHER);
                    }
                }
            }
        }
        match (gathered.bytes, self.ended) {
            (0, Some(Err(fault))) => Err(fault),
            (0, _) => Ok(None),
            _ => {
                self.begun = true;
                Ok(Some(gathered.batch()))
            }
        }
    }
}

#[derive(Default)]
struct Gathered {
    chunks: Vec<Bytes>,
    /// Copies of small ones that came last.
    small: Vec<u8>,
    bytes: usize,
}

impl Gathered {
    fn add(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        if chunk.len() < SMALL {
            self.small.extend_from_slice(&chunk);
        } else {
            self.close();
            self.chunks.push(chunk);
        }
    }

    fn close(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push(std::mem::take(&mut self.small).into());
        }
    }

    fn batch(mut self) -> Batch {
        self.close();
        Batch { chunks: self.chunks, bytes: self.bytes as u64 }
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
