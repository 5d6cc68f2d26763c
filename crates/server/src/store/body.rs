//! The bytes of an answer, from a file, from a fill under way, or straight through from upstream.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use bytes::{Buf as _, Bytes};
use entrepot_oci::range::ByteSpan;
use futures_util::stream;
use futures_util::task::AtomicWaker;
use futures_util::{Stream, StreamExt as _};
use parking_lot::Mutex;

use super::fill::{Piece, Place};
use super::layout::read_at;
use super::window::{Broken, Data, Lane, WINDOW, Window, read_now, resident};

/// Bytes that all bodies together may hold before each gets the smallest chunk only. A body holds one chunk at a time.
const BUDGET: usize = 16 << 20;
const CHUNK: std::ops::RangeInclusive<usize> = (8 << 10)..=(256 << 10);
/// What part of the free budget one chunk may take.
const PART: usize = 16;
/// Chunks of the largest size that are kept for bodies to come.
const SPARE: usize = 8;
/// Bytes from which on a window costs less than a copy.
const WORTH_A_WINDOW: usize = 32 << 10;

/// A body that breaks never ends cleanly: the client must see that bytes are missing.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BodyBroken(pub String);

/// The pieces of a body, none of them empty.
pub(crate) type Pieces = Pin<Box<dyn Stream<Item = Result<Data, BodyBroken>> + Send>>;

/// Bytes on their way to a client.
pub(crate) struct Body(Box<dyn FnOnce(Option<Lane>) -> Pieces + Send>);

impl Body {
    pub(super) fn new(stream: impl Stream<Item = Result<Bytes, BodyBroken>> + Send + 'static) -> Body {
        Body(Box::new(|_| Box::pin(stream.map(|bytes| bytes.map(Data::Bytes)))))
    }

    /// Its pieces. Those that are windows are in `lane`, which is of a connection that sends them; without one, all are
    /// bytes.
    pub(crate) fn over(self, lane: Option<Lane>) -> Pieces {
        self.0(lane)
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body")
    }
}

/// Divides the memory for chunks among the bodies that are being sent: the more is held, the smaller the next chunk.
#[derive(Debug, Default)]
pub(crate) struct Chunks(Arc<Budget>);

#[derive(Debug, Default)]
struct Budget {
    /// Bytes that all bodies hold.
    held: AtomicUsize,
    /// Chunks of the largest size that nobody holds.
    spare: Mutex<Vec<Vec<u8>>>,
}

/// One body's share: the chunk that is on its way to the client.
#[derive(Debug)]
pub(crate) struct Share(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    budget: Arc<Budget>,
    /// Bytes that this one holds.
    chunk: AtomicUsize,
    sent: AtomicWaker,
}

/// Bytes that are given back to the budget when the connection has let go of them.
struct Chunk {
    bytes: Vec<u8>,
    /// How many of them were read.
    read: usize,
    of: Arc<Shared>,
}

impl Chunks {
    pub(crate) fn share(&self) -> Share {
        Share(Arc::new(Shared {
            budget: self.0.clone(),
            chunk: AtomicUsize::new(0),
            sent: AtomicWaker::new(),
        }))
    }
}

impl Share {
    /// Waits until the last chunk is sent. A connection gathers all that it is given while its client does not read; so
    /// that a slow client holds one chunk only, it is given the next one then.
    async fn sent(&self) {
        let held = |share: &Shared| share.chunk.load(Ordering::Acquire) > 0;
        poll_fn(|cx| {
            if !held(&self.0) {
                return Poll::Ready(());
            }
            self.0.sent.register(cx.waker());
            // It may have been sent in between.
            if held(&self.0) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Takes memory for the next chunk, of which `most` bytes can be used.
    fn take(&self, most: u64) -> Chunk {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        // Of few sizes only, so that the memory of one serves the next.
        let size = |held: usize| {
            let part = (BUDGET.saturating_sub(held) / PART).clamp(*CHUNK.start(), *CHUNK.end());
            (1 << part.ilog2()).min(most)
        };
        let mut taken = 0;
        let _ = self.0.budget.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            taken = size(held);
            Some(held + taken)
        });
        self.0.chunk.store(taken, Ordering::Release);
        let spare = if taken == *CHUNK.end() { self.0.budget.spare.lock().pop() } else { None };
        // Allocated here and not where it is read: each of those many threads would gather free memory of its own.
        Chunk { bytes: spare.unwrap_or_else(|| vec![0; taken]), read: 0, of: self.0.clone() }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.read]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let budget = &self.of.budget;
        budget.held.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        if self.bytes.len() == *CHUNK.end() {
            let mut spare = budget.spare.lock();
            if spare.len() < SPARE {
                spare.push(std::mem::take(&mut self.bytes));
            }
        }
        self.of.chunk.store(0, Ordering::Release);
        self.of.sent.wake();
    }
}

/// How a body's bytes get from a file to its connection.
struct Way {
    lane: Option<Lane>,
    share: Share,
    broken: Broken,
}

impl Way {
    /// Up to `most` bytes of `file` from `at` on, never none.
    async fn take(&self, file: &Arc<File>, at: u64, most: u64) -> io::Result<Data> {
        if let Some(lane) = &self.lane {
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(WINDOW);
            let length = if most < WORTH_A_WINDOW { 0 } else { resident(file, at, most) };
            if length >= WORTH_A_WINDOW {
                let (file, broken) = (file.clone(), self.broken.clone());
                return Ok(lane.put(Window { file, at, length, broken }));
            }
        }
        self.share.sent().await;
        match read(file, at, self.share.take(most)).await {
            Ok(bytes) => Ok(Data::Bytes(bytes)),
            Err(error) => {
                (self.broken)(&error);
                Err(error)
            }
        }
    }
}

/// The bytes of `span` of a whole file. `broken` lives as long as the body, and hears of a read error.
pub(crate) fn from_file(file: Arc<File>, span: ByteSpan, share: Share, broken: Broken) -> Body {
    Body(Box::new(move |lane| {
        let state = (span.start, file, Way { lane, share, broken });
        Box::pin(stream::try_unfold(state, move |(at, file, way)| async move {
            if at >= span.end {
                return Ok(None);
            }
            let piece = way
                .take(&file, at, span.end - at)
                .await
                .map_err(|error| BodyBroken(format!("reading the stored object at byte {at}: {error}")))?;
            let next = at + piece.remaining() as u64;
            Ok(Some((piece, (next, file, way))))
        }))
    }))
}

/// The bytes of `span` of an object that is being filled, as they are released.
pub(crate) fn following(place: Place, span: ByteSpan, share: Share) -> Body {
    place.move_to(span.start);
    Body(Box::new(move |lane| {
        // The fill hears of its disk's errors itself.
        let state = (span.start, place, Way { lane, share, broken: Arc::new(|_| {}) });
        Box::pin(stream::try_unfold(state, move |(at, mut place, way)| async move {
            if at >= span.end {
                return Ok(None);
            }
            // Asked for when it can be sent: more may be there by then.
            way.share.sent().await;
            let max = usize::try_from(span.end - at).unwrap_or(usize::MAX).min(WINDOW);
            let piece = match place.piece(at, max).await.map_err(|failure| BodyBroken(failure.to_string()))? {
                Piece::Memory(bytes) => Data::Bytes(bytes),
                Piece::File(file, there) => way.take(&file, at, there).await.map_err(|error| {
                    BodyBroken(format!("reading the object being filled at byte {at}: {error}"))
                })?,
                Piece::Lost => {
                    return Err(BodyBroken("too slow for an object that the disk cannot take".into()));
                }
            };
            let next = at + piece.remaining() as u64;
            place.move_to(next);
            Ok(Some((piece, (next, place, way))))
        }))
    }))
}

/// Up to a chunk of bytes from `at`, never none. What is in memory is read at once, all else where waiting is allowed.
async fn read(file: &Arc<File>, at: u64, mut chunk: Chunk) -> io::Result<Bytes> {
    if let Ok(read @ 1..) = read_now(file, &mut chunk.bytes, at) {
        chunk.read = read;
        return Ok(Bytes::from_owner(chunk));
    }
    let file = file.clone();
    let read = tokio::task::spawn_blocking(move || {
        chunk.read = read_at(&file, &mut chunk.bytes, at)?;
        Ok::<_, io::Error>(chunk)
    });
    let chunk = read.await.map_err(io::Error::other)??;
    if chunk.read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Bytes::from_owner(chunk))
}
