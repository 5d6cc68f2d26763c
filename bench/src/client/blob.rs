//! Clients that fetch one path: once, or as fast as they can.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Sink;
use super::wire::Connection;

/// One answer. Times are in seconds since before the connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Fetched {
    pub(crate) bytes: u64,
    /// When the first byte of the body was there.
    pub(crate) first_byte: f64,
    pub(crate) total: f64,
    /// `sha256:<hex>`, if the bytes were hashed.
    pub(crate) digest: String,
}

/// Many answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Flood {
    pub(crate) bytes: u64,
    /// Whole answers.
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
}

/// Random parts, each of `length` bytes, of something that has `of`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) length: u64,
    pub(crate) of: u64,
}

pub(super) fn fetch(address: SocketAddr, path: &str, sink: Sink) -> Result<Fetched> {
    let start = Instant::now();
    let mut connection = Connection::open(address)?;
    let head = connection.get(path, None)?;
    if head.status != 200 {
        bail!("{address}{path}: {}", head.status);
    }
    let (mut hash, mut first) = (Sha256::new(), None);
    connection.body(head.length, sink, &mut hash, |_| {
        first.get_or_insert_with(|| start.elapsed());
        true
    })?;
    let total = start.elapsed();
    let digest = match sink {
        Sink::Hashed => hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        Sink::Dropped | Sink::Copied => String::new(),
    };
    Ok(Fetched {
        bytes: head.length,
        first_byte: first.unwrap_or(total).as_secs_f64(),
        total: total.as_secs_f64(),
        digest: format!("sha256:{digest}"),
    })
}

pub(super) fn flood(
    address: SocketAddr,
    path: &str,
    clients: usize,
    sink: Sink,
    spell: Duration,
    part: Option<Part>,
) -> Result<Flood> {
    let together = Barrier::new(clients + 1);
    let each = |seed: u64| {
        let connection = Connection::open(address);
        together.wait();
        one(connection?, path, sink, Instant::now() + spell, part.map(|part| (part, Dice::new(seed))))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|seed| scope.spawn(move || each(seed as u64))).collect();
        together.wait();
        let start = Instant::now();
        let mut all = Flood { bytes: 0, requests: 0, seconds: 0.0 };
        for thread in threads {
            let (bytes, requests) = thread.join().ok().context("a client panicked")??;
            all.bytes += bytes;
            all.requests += requests;
        }
        all.seconds = start.elapsed().as_secs_f64();
        Ok(all)
    })
}

/// Who is free takes the next path. No request is like another: each is answered for itself.
pub(super) fn round(address: SocketAddr, paths: &[String], clients: usize, rounds: usize) -> Result<Flood> {
    let (next, bytes, most) = (AtomicUsize::new(0), AtomicU64::new(0), paths.len() * rounds);
    let each = || -> Result<()> {
        let mut connection = Connection::open(address)?;
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= most {
                return Ok(());
            }
            let path = &paths[at % paths.len()];
            let head = connection.get_with(path, &format!("x-nth: {at:08}\r\n"))?;
            if head.status != 200 {
                bail!("{path}: {}", head.status);
            }
            connection.body(head.length, Sink::Dropped, &mut Sha256::new(), |_| true)?;
            bytes.fetch_add(head.length, Ordering::Relaxed);
        }
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(each)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().ok().context("a client panicked")?)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Flood { bytes: bytes.into_inner(), requests: most as u64, seconds })
}

/// The bytes and the whole answers that one client got until the end.
fn one(
    mut connection: Connection,
    path: &str,
    sink: Sink,
    end: Instant,
    mut part: Option<(Part, Dice)>,
) -> Result<(u64, u64)> {
    let (mut bytes, mut requests, mut hash) = (0, 0, Sha256::new());
    while Instant::now() < end {
        let range = part.as_mut().map(|(part, dice)| {
            let first = dice.below(part.of - part.length + 1);
            (first, first + part.length - 1)
        });
        let head = connection.get(path, range)?;
        let (status, length) = part.as_ref().map_or((200, head.length), |(part, _)| (206, part.length));
        if (head.status, head.length) != (status, length) {
            bail!("{path}: {head:?} instead of {status} with {length} bytes");
        }
        let mut left = length;
        connection.body(length, sink, &mut hash, |n| {
            bytes += n;
            left -= n;
            Instant::now() < end
        })?;
        if left > 0 {
            break;
        }
        requests += 1;
    }
    Ok((bytes, requests))
}

/// xorshift64*, Vigna 2016: as random as the choice of a range needs to be, and the same in every run.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}
