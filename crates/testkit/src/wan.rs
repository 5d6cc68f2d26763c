//! A TCP proxy that is as slow as a long link: round trips, a rate for each connection, a rate for all of them
//! together, and slow start.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;

const SEGMENT: u64 = 1460;
/// Bytes that are moved at once, at most: 13 ms at 40 Mbit/s.
const PIECE: u64 = 64 * 1024;
/// Pieces on their way that the other side has not taken, at most: 8 MiB, about what a receive window grows to.
const WINDOW: usize = 128;
/// How far behind a sender may catch up, so that timers, which are late by a millisecond and more, cost no rate.
const SLACK: Duration = Duration::from_millis(20);
/// The longest request line that is looked at.
const LINE: usize = 16 * 1024;

/// How a link behaves.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// There and back.
    pub round_trip: Duration,
    /// Bits a second that one connection reaches, in each direction.
    pub connection_bits: u64,
    /// Bits a second of all connections together, in each direction.
    pub link_bits: u64,
    /// Segments (1460 bytes) that a fresh or idle connection sends in its first round trip; doubled in each one after.
    pub initial_window: u64,
}

impl Default for Shape {
    /// A registry on another continent: 120 ms, 40 Mbit/s a connection, 1 Gbit/s in all, ten segments to begin with.
    fn default() -> Self {
        Self {
            round_trip: Duration::from_millis(120),
            connection_bits: 40_000_000,
            link_bits: 1_000_000_000,
            initial_window: 10,
        }
    }
}

/// A proxy on a free port of 127.0.0.1 to one upstream.
pub struct Wan {
    address: SocketAddr,
    counts: Arc<Counts>,
    runtime: Option<Runtime>,
}

#[derive(Debug, Default)]
struct Counts {
    up: AtomicU64,
    down: AtomicU64,
    connections: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

impl Wan {
    /// To `upstream`, shaped as a long link.
    pub fn start(upstream: SocketAddr) -> Self {
        Self::shaped(upstream, Shape::default())
    }

    pub fn shaped(upstream: SocketAddr, shape: Shape) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for the link");
        let listener = listener(&runtime);
        let address = listener.local_addr().expect("a bound listener has an address");
        let counts = Arc::new(Counts::default());
        runtime.spawn(accept(listener, upstream, shape, counts.clone()));
        Self { address, counts, runtime: Some(runtime) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes towards the upstream, heads included.
    pub fn bytes_up(&self) -> u64 {
        self.counts.up.load(Ordering::Relaxed)
    }

    /// Bytes from the upstream, heads included.
    pub fn bytes_down(&self) -> u64 {
        self.counts.down.load(Ordering::Relaxed)
    }

    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// What was asked for, in plain HTTP/1.1: `GET /v2/`.
    pub fn requests(&self) -> Vec<String> {
        self.counts.requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Wan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wan").field("address", &self.address).field("counts", &self.counts).finish()
    }
}

/// Bound without waiting on the runtime, so that a link may be started from within an asynchronous test.
fn listener(runtime: &Runtime) -> TcpListener {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a listener that does not block");
    let _context = runtime.enter();
    TcpListener::from_std(listener).expect("a listener on this runtime")
}

/// When the shared link is free again, for one direction.
type Link = Arc<Mutex<Instant>>;

async fn accept(listener: TcpListener, upstream: SocketAddr, shape: Shape, counts: Arc<Counts>) {
    let (link_up, link_down): (Link, Link) =
        (Arc::new(Mutex::new(Instant::now())), Arc::new(Mutex::new(Instant::now())));
    loop {
        let Ok((near, _)) = listener.accept().await else {
            continue;
        };
        counts.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(connection(near, upstream, shape, counts.clone(), link_up.clone(), link_down.clone()));
    }
}

async fn connection(
    near: TcpStream,
    upstream: SocketAddr,
    shape: Shape,
    counts: Arc<Counts>,
    up: Link,
    down: Link,
) {
    // The loopback handshake cost nothing; the real one takes a round trip.
    tokio::time::sleep(shape.round_trip).await;
    let Ok(far) = TcpStream::connect(upstream).await else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let (count_up, mut lines) = (counts.clone(), Lines::default());
    let there = pump(near_read, far_write, shape, up, move |bytes| {
        count_up.up.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        lines.read(bytes, &count_up.requests);
    });
    let back = pump(far_read, near_write, shape, down, move |bytes| {
        counts.down.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    });
    tokio::join!(there, back);
}

/// One direction: bytes leave as the rates allow, and arrive half a round trip later.
async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    shape: Shape,
    link: Link,
    mut count: impl FnMut(&[u8]),
) {
    let (flying, mut landing) = mpsc::channel::<(Instant, Vec<u8>)>(WINDOW);
    let send = async move {
        let mut sender = Sender::new(shape, link);
        let mut buffer = vec![0; PIECE as usize];
        loop {
            if from.readable().await.is_err() {
                return;
            }
            let n = match from.read(&mut buffer[..sender.next_piece()]).await {
                Ok(n) if n > 0 => n,
                _ => return,
            };
            let left = sender.depart(n as u64);
            // Never more ahead than what is in flight: back-pressure reaches the other side as it would in reality.
            tokio::time::sleep_until(left).await;
            count(&buffer[..n]);
            if flying.send((left + shape.round_trip / 2, buffer[..n].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let arrive = async move {
        while let Some((at, bytes)) = landing.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    // Where nobody takes the bytes any more, nobody shall read them either.
    tokio::pin!(send, arrive);
    tokio::select! {
        () = &mut send => arrive.await,
        () = &mut arrive => {}
    }
}

/// When the next bytes of a connection may leave.
struct Sender {
    shape: Shape,
    link: Link,
    free: Instant,
    /// When the connection began to send, or to send again after a pause.
    began: Instant,
    /// Bytes sent since then.
    grown: u64,
}

impl Sender {
    fn new(shape: Shape, link: Link) -> Self {
        let now = Instant::now();
        Self { shape, link, free: now, began: now, grown: 0 }
    }

    /// Bytes that may leave together now: not more than the window of this round trip has left.
    fn next_piece(&mut self) -> usize {
        let now = Instant::now();
        if self.grown == 0 || now > self.free + self.shape.round_trip * 2 {
            (self.grown, self.began) = (0, now);
        }
        let windows = (2_u64 << self.round().min(32)) - 1;
        (windows * self.window() - self.grown).min(PIECE) as usize
    }

    fn depart(&mut self, n: u64) -> Instant {
        let now = Instant::now();
        let late = |at: Instant| at.max(now.checked_sub(SLACK).unwrap_or(now));
        let taking = |bits: u64| Duration::from_secs_f64(n as f64 * 8.0 / bits as f64);
        // The window is sent at once, and doubled by the acknowledgements that are there a round trip later.
        let acknowledged = self.began + self.shape.round_trip * self.round();
        self.free = (late(self.free) + taking(self.shape.connection_bits)).max(acknowledged);
        self.grown += n;
        let mut link = self.link.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *link = late(*link) + taking(self.shape.link_bits);
        self.free = self.free.max(*link);
        self.free
    }

    /// How often the window has doubled: after `n` round trips `2ⁿ - 1` initial windows have been sent.
    fn round(&self) -> u32 {
        (self.grown / self.window() + 1).ilog2()
    }

    /// The initial window, in bytes.
    fn window(&self) -> u64 {
        self.shape.initial_window * SEGMENT
    }
}

/// Looks for request lines in what a client sends.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    fn read(&mut self, bytes: &[u8], requests: &Mutex<Vec<String>>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.partial.len() < LINE {
                self.partial.extend_from_slice(piece);
            }
            if !piece.ends_with(b"\n") {
                continue;
            }
            let line = String::from_utf8_lossy(&self.partial);
            if let Some(request) = line.trim_end().strip_suffix(" HTTP/1.1") {
                requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(request.to_owned());
            }
            self.partial.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::get;
    use crate::script::{Body, Method, Pattern, Reply, Upstream};

    #[tokio::test]
    async fn a_link_is_slow_at_first_and_as_fast_as_it_may_be_then() {
        let upstream = Upstream::start();
        let body = Body::from(Pattern::new(1, 2_000_000));
        upstream.on(Method::Get, "/x").reply(Reply::ok(body.clone()));
        let shape = Shape { round_trip: Duration::from_millis(40), ..Shape::default() };
        let wan = Wan::shaped(upstream.address(), shape);
        let answer = get(format!("{}/x", wan.url())).send().await;
        assert_eq!(answer.digest, body.sha256());
        // A round trip for the connection and one for the answer; then 2 MB at 5 MB/s, and slow start before it.
        assert!(answer.time_to_head > Duration::from_millis(75), "{:?}", answer.time_to_head);
        assert!(answer.total > Duration::from_millis(500), "{:?}", answer.total);
        assert!(answer.total < Duration::from_millis(1500), "{:?}", answer.total);
        assert!(wan.bytes_down() > 2_000_000 && wan.bytes_down() < 2_001_000);
        assert_eq!(wan.connections(), 1);
        assert_eq!(wan.requests(), ["GET /x"]);
    }

    #[test]
    fn a_window_doubles_with_each_round_trip_until_the_rate_is_reached() {
        let shape = Shape { round_trip: Duration::from_secs(1), ..Shape::default() };
        let mut sender = Sender::new(shape, Arc::new(Mutex::new(Instant::now())));
        let mut rounds = Vec::new();
        for _ in 0..3 {
            let n = sender.next_piece() as u64;
            let left = sender.depart(n);
            rounds.push((n / SEGMENT, left.duration_since(sender.began).as_millis() / 100));
        }
        assert_eq!(rounds, [(10, 0), (20, 10), (40, 20)]);
    }

    #[test]
    fn a_request_line_may_come_in_pieces() {
        let (mut lines, requests) = (Lines::default(), Mutex::default());
        for piece in ["GET /v2/ HT", "TP/1.1\r\nhost: a HTTP/1.0\r", "\n\r\nHEAD /x HTTP/1.1\r\n"] {
            lines.read(piece.as_bytes(), &requests);
        }
        assert_eq!(requests.into_inner().unwrap(), ["GET /v2/", "HEAD /x"]);
    }
}
