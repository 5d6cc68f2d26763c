//! The digest of an object on its way in, which follows the bytes that are there without a gap.

use std::fs::File;
use std::io;

use entrepot_oci::{Algorithm, Digest, Hasher};
use parking_lot::{Condvar, Mutex};

use super::layout::read_at;

/// Bytes read back at once.
const PIECE: usize = 256 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Hashing {
    state: Mutex<State>,
    free: Condvar,
}

#[derive(Debug)]
struct State {
    /// `None`: a thread is at it.
    hasher: Option<Hasher>,
    /// Bytes hashed, from the object's first one.
    at: u64,
    /// A thread reads back what others have written.
    reading: bool,
}

impl Hashing {
    pub(super) fn new(algorithm: Algorithm) -> Hashing {
        let state = State { hasher: Some(Hasher::new(algorithm)), at: 0, reading: false };
        Hashing { state: Mutex::new(state), free: Condvar::new() }
    }

    /// Hashes bytes that begin at byte `start`, if they are next. Blocks for no longer than that takes.
    pub(super) fn follow(&self, start: u64, bytes: &[u8]) {
        let hasher = {
            let mut state = self.state.lock();
            if state.at == start { state.hasher.take() } else { None }
        };
        if let Some(mut hasher) = hasher {
            hasher.update(bytes);
            self.set(hasher, start + bytes.len() as u64);
        }
    }

    /// What the hasher will be once the bytes from `start` on count as well. `None`: they are not next. Blocks.
    pub(super) fn beyond(&self, start: u64, bytes: &[u8]) -> Option<Hasher> {
        let mut hasher = {
            let mut state = self.state.lock();
            while state.hasher.is_none() {
                self.free.wait(&mut state);
            }
            state.hasher.clone().filter(|_| state.at == start)?
        };
        hasher.update(bytes);
        Some(hasher)
    }

    /// The bytes up to `at` count, and `hasher` knows them.
    pub(super) fn set(&self, hasher: Hasher, at: u64) {
        self.put(&mut self.state.lock(), hasher, at);
    }

    /// Whether somebody should read up to byte `end`. Who is told so must: nobody else will be.
    pub(super) fn lags(&self, end: u64) -> bool {
        let mut state = self.state.lock();
        let lags = !state.reading && state.hasher.is_some() && state.at < end;
        state.reading |= lags;
        lags
    }

    /// Reads and hashes what is missing up to `end`, which may move on meanwhile. Blocks.
    pub(super) fn read_up(&self, file: &File, end: impl Fn() -> u64) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let (mut hasher, at, missing) = {
                let mut state = self.state.lock();
                while state.hasher.is_none() {
                    self.free.wait(&mut state);
                }
                let missing = end().saturating_sub(state.at);
                let hasher = if missing > 0 { state.hasher.take() } else { None };
                let Some(hasher) = hasher else {
                    state.reading = false;
                    return Ok(());
                };
                (hasher, state.at, missing)
            };
            let most = usize::try_from(missing).unwrap_or(PIECE).min(PIECE);
            buffer.resize(most, 0);
            let read = match read_at(file, &mut buffer, at) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other,
            };
            let read_bytes = read.as_ref().map_or(0, |read| *read);
            hasher.update(&buffer[..read_bytes]);
            let mut state = self.state.lock();
            self.put(&mut state, hasher, at + read_bytes as u64);
            if let Err(error) = read {
                state.reading = false;
                return Err(error);
            }
        }
    }

    /// The digest of the first `size` bytes, when exactly those are hashed.
    pub(super) fn digest(&self, size: u64) -> Option<Digest> {
        let state = self.state.lock();
        state.hasher.clone().filter(|_| state.at == size).map(Hasher::finish)
    }

    fn put(&self, state: &mut State, hasher: Hasher, at: u64) {
        state.hasher = Some(hasher);
        state.at = at;
        self.free.notify_one();
    }
}
