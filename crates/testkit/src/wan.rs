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
    let count_up = counts.clone();
    let there =
        pump(near_read, far_write, shape, up, move |n| _ = count_up.up.fetch_add(n, Ordering::Relaxed));
    let back =
        pump(far_read, near_write, shape, down, move |n| _ = counts.down.fetch_add(n, Ordering::Relaxed));
    tokio::join!(there, back);
}

/// One direction: bytes leave as the rates allow, and arrive half a round trip later.
async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    shape: Shape,
    link: Link,
    count: impl Fn(u64),
) {
    let (flying, mut landing) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let send = async move {
        let mut sender = Sender::new(shape, link);
        let mut buffer = vec![0; 8 * SEGMENT as usize];
        loop {
            let n = match from.read(&mut buffer).await {
                Ok(n) if n > 0 => n,
                _ => return,
            };
            let left = sender.depart(n as u64);
            // Never more ahead than what is in flight: back-pressure reaches the other side as it would in reality.
            tokio::time::sleep_until(left).await;
            count(n as u64);
            if flying.send((left + shape.round_trip / 2, buffer[..n].to_vec())).is_err() {
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
    /// Bytes sent since the connection was last idle, which is what the window has grown by.
    grown: u64,
}

impl Sender {
    fn new(shape: Shape, link: Link) -> Self {
        Self { shape, link, free: Instant::now(), grown: 0 }
    }

    fn depart(&mut self, n: u64) -> Instant {
        let now = Instant::now();
        if now > self.free + self.shape.round_trip * 2 {
            self.grown = 0;
        }
        let start = self.free.max(now);
        self.free = start + Duration::from_secs_f64(n as f64 / self.rate());
        self.grown += n;
        let mut link = self.link.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *link = (*link).max(now) + Duration::from_secs_f64(n as f64 * 8.0 / self.shape.link_bits as f64);
        self.free = self.free.max(*link);
        self.free
    }

    /// Bytes a second. A window that grows by what was sent doubles in each round trip at `ln 2` windows a round trip.
    fn rate(&self) -> f64 {
        let window = (self.shape.initial_window * SEGMENT + self.grown) as f64;
        let started = window * std::f64::consts::LN_2 / self.shape.round_trip.as_secs_f64().max(1e-6);
        started.min(self.shape.connection_bits as f64 / 8.0)
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
    }
}
