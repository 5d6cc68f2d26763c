//! Connections from clients: accepting them, bounding them, and turning their requests over to the engine.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use entrepot_core::access::MAX_TOKEN_BODY;
use entrepot_core::answer::Answer;
use entrepot_core::config::Config;
use entrepot_core::event::{RequestLog, Text};
use entrepot_core::repeat::Question;
use entrepot_engine::{Engine, Reply};
use futures_util::FutureExt;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::host::Native;
use crate::store::{Body, BodyBroken, Data, Lane, Pieces};
use crate::strict::Strict;
use crate::threads::Threads;
use crate::tls::Acceptor;
use crate::wire::Wire;

/// A client must send a request's head within this time, and may be idle for it between requests.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
const FORM_WITHIN: Duration = Duration::from_secs(10);
/// A peer that acknowledges nothing for this long is gone.
const DEAD_AFTER: Duration = Duration::from_secs(60);
/// Bytes of a request's head.
const HEAD: usize = 64 * 1024;
const STREAMS: u32 = 256;
/// Bytes that the kernel takes from us before it has sent them. Without a bound, thousands of slow readers fill its memory;
/// with a small one, what is sent is still in the processor's caches when the client reads it.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 * 1024;
/// Connections at once that are being told that there is no room.
const REFUSALS: usize = 1024;
/// How long such a connection is held so that its peer can read the answer.
const REFUSE_WITHIN: Duration = Duration::from_secs(1);

/// What every connection needs.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) engine: Engine<Native>,
    /// One permit for each connection.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) tls: Option<Acceptor>,
}

/// Accepts until `stop`, then hands back what waits for the connections to end.
pub(crate) async fn accept(
    listener: TcpListener,
    door: Door,
    threads: Threads,
    stop: CancellationToken,
) -> GracefulShutdown {
    let graceful = GracefulShutdown::new();
    let builder = Arc::new(builder());
    let refusal = spelt(&door.engine.overloaded());
    let refusals = Arc::new(Semaphore::new(REFUSALS.min(door.room.available_permits())));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return graceful,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                wait_after(&error).await;
                continue;
            }
        };
        let Ok(permit) = door.room.clone().try_acquire_owned() else {
            match refusals.clone().try_acquire_owned() {
                Ok(permit) => drop(tokio::spawn(turn_away(stream, refusal.clone(), permit))),
                Err(_) => turn_away_at_once(stream, &refusal),
            }
            continue;
        };
        tune(&stream, peer.ip());
        let Ok(stream) = stream.into_std() else { continue };
        let (door, builder, watcher) = (door.clone(), builder.clone(), graceful.watcher());
        threads.take(stream, move |stream| connection(stream, peer, door, builder, watcher, permit));
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The library's own bound is 100 headers; saying so would cost each request the clearing of a list.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD)
        // Never copied together: windows are known by their address.
        .writev(true)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD as u32)
        .keep_alive_interval(DEAD_AFTER / 2)
        .keep_alive_timeout(DEAD_AFTER / 2);
    builder
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    door: Door,
    builder: Arc<auto::Builder<TokioExecutor>>,
    watcher: Watcher,
    permit: OwnedSemaphorePermit,
) {
    let open = Open::new(&door, permit);
    match door.tls.clone() {
        None => {
            let lane = Lane::default();
            serve(Wire::new(stream, lane.clone()), Some(lane), peer, door, &builder, watcher).await;
        }
        Some(acceptor) => match tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => serve(stream, None, peer, door, &builder, watcher).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS handshake"),
            Err(_) => tracing::debug!(%peer, "no TLS handshake in time"),
        },
    }
    drop(open);
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    lane: Option<Lane>,
    peer: SocketAddr,
    door: Door,
    builder: &auto::Builder<TokioExecutor>,
    watcher: Watcher,
) {
    let session = Arc::new(Session { engine: door.engine, peer: peer.ip(), lane });
    let service = service_fn(move |request| {
        let session = session.clone();
        // In a box of its own, which goes when the answer begins: the connection would keep room for it to its end.
        Box::pin(async move { Ok::<_, Infallible>(respond(session, request).await) })
    });
    let connection = builder.serve_connection(TokioIo::new(Strict::new(stream)), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!(%peer, error = %error, "a connection ended early");
    }
}

/// What the requests of one connection share. It is counted for itself: a count that belonged to the process would be written by
/// every request, and fetched anew each time by every other processor.
struct Session {
    engine: Engine<Native>,
    peer: IpAddr,
    /// `None`: over TLS.
    lane: Option<Lane>,
}

async fn respond(session: Arc<Session>, request: http::Request<Incoming>) -> http::Response<Outgoing> {
    let since = Instant::now();
    let (engine, peer) = (&session.engine, session.peer);
    let (head, body) = request.into_parts();
    let in_force = engine.host().in_force();
    let question = Question::of(&in_force, &head, peer);
    if let Some(reply) = question.as_ref().and_then(|question| in_force.replies().get(question, since)) {
        return sent(session.clone(), &in_force, &head, reply, since);
    }
    let form = form(&head, body).await;
    // Over HTTP/1 the engine sees what the client sent: an absolute form shows there as an authority.
    let served = AssertUnwindSafe(async {
        fail::fail_point!("server::respond");
        engine.serve(&head, form, peer).await
    });
    // One request's panic is no reason to break the connection; nothing half-done is kept, and no lock of ours is poisoned.
    let reply = served.catch_unwind().await.unwrap_or_else(|_| engine.panicked(peer));
    if let Some(question) = &question {
        in_force.replies().keep(question, &reply, since);
    }
    sent(session.clone(), &in_force, &head, reply, since)
}

/// `reply` as hyper sends it.
fn sent(
    session: Arc<Session>,
    config: &Config,
    head: &Parts,
    reply: Reply<Body>,
    since: Instant,
) -> http::Response<Outgoing> {
    let Reply { answer, body, facts } = reply;
    let fetched = facts.fetched;
    let mut log = facts.log(config, head, answer.status);
    log.first_byte = since.elapsed();
    let expected = answer.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    // HTTP/2 frames what it sends, and sends several answers at once.
    let lane = session.lane.as_ref().filter(|_| head.version != http::Version::HTTP_2);
    let mut response = http::Response::new(Outgoing {
        source: match body {
            Some(body) => Source::Stream(body.over(lane.cloned())),
            None => Source::Bytes(Some(answer.body).filter(|bytes| !bytes.is_empty())),
        },
        log: Some(Box::new(log)),
        since,
        session,
        fetched,
        expected: expected.unwrap_or(0),
    });
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// The body of a POST that says how long it is. No other is read: hyper closes the connection behind what is left.
async fn form(head: &Parts, body: Incoming) -> Option<Bytes> {
    let announced: u64 = head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    if head.method != http::Method::POST || announced > MAX_TOKEN_BODY as u64 {
        return None;
    }
    let read = Limited::new(body, MAX_TOKEN_BODY).collect();
    tokio::time::timeout(FORM_WITHIN, read).await.ok()?.ok().map(|collected| collected.to_bytes())
}

/// An answer's body. Counts what goes out, and writes the request's log line when it ends or is dropped.
pub(crate) struct Outgoing {
    source: Source,
    log: Option<Box<RequestLog>>,
    since: Instant,
    session: Arc<Session>,
    /// What goes out was fetched from upstream for this request.
    fetched: bool,
    /// Bytes that the head announced.
    expected: u64,
}

enum Source {
    Bytes(Option<Bytes>),
    Stream(Pieces),
}

impl http_body::Body for Outgoing {
    type Data = Data;
    type Error = BodyBroken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Data>, BodyBroken>>> {
        let next = match &mut self.source {
            Source::Bytes(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Data::Bytes(bytes)))),
            Source::Stream(pieces) => pieces.as_mut().poll_next(cx),
        };
        if let Poll::Ready(ready) = &next {
            self.note(ready.as_ref());
        }
        next.map(|next| next.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Bytes(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Bytes(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Stream(_) => SizeHint::default(),
        }
    }
}

impl Outgoing {
    fn note(&mut self, ready: Option<&Result<Data, BodyBroken>>) {
        let since = self.since;
        let Some(log) = &mut self.log else { return };
        if log.bytes == 0 && matches!(self.source, Source::Stream(_)) {
            log.first_byte = since.elapsed();
        }
        match ready {
            Some(Ok(piece)) => log.bytes += piece.remaining() as u64,
            Some(Err(broken)) => {
                log.aborted = true;
                log.internal = Some(Text::new(&broken.0));
                self.write();
            }
            None => self.write(),
        }
    }

    fn write(&mut self) {
        let Some(mut log) = self.log.take() else { return };
        log.total = self.since.elapsed();
        if self.fetched {
            log.upstream_bytes = log.bytes;
        }
        crate::log::request(&log);
        self.session.engine.host().metrics().request(*log);
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // Dropped before its end: the client has left. A body that is out is dropped without being polled to its end.
        if let (Some(log), Source::Stream(_)) = (&mut self.log, &self.source) {
            log.aborted = log.bytes < self.expected;
        }
        self.write();
    }
}

/// Counts a connection as long as it lasts.
struct Open {
    engine: Engine<Native>,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(door: &Door, permit: OwnedSemaphorePermit) -> Open {
        door.engine.host().metrics().connections().inc();
        Open { engine: door.engine.clone(), _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.engine.host().metrics().connections().dec();
    }
}

/// An answer as HTTP/1.1 spells it, for a connection that nothing serves.
fn spelt(answer: &Answer) -> Bytes {
    let status = answer.status;
    let mut spelt =
        format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default())
            .into_bytes();
    for (name, value) in &answer.headers {
        spelt.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    spelt.extend(b"\r\n");
    spelt.extend(&answer.body);
    spelt.into()
}

/// Too many connections: says so at once, so that the client goes elsewhere.
async fn turn_away(mut stream: TcpStream, refusal: Bytes, _permit: OwnedSemaphorePermit) {
    let refuse = async {
        stream.write_all(&refusal).await?;
        stream.shutdown().await?;
        // Closing on a request that was not read would reset the connection, and the answer with it (RFC 9112 §9.6).
        let mut request = [0; 4096];
        while stream.read(&mut request).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(REFUSE_WITHIN, refuse).await;
}

/// As [`turn_away`], when too many are being turned away already: most peers still get to read it.
fn turn_away_at_once(stream: TcpStream, refusal: &Bytes) {
    if let Ok(mut stream) = stream.into_std() {
        let _ = std::io::Write::write(&mut stream, refusal);
    }
}

fn tune(stream: &TcpStream, peer: IpAddr) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(DEAD_AFTER).with_interval(DEAD_AFTER / 4);
    // Each of these makes things better where it works; a connection works without.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    {
        let _ = socket.set_tcp_user_timeout(Some(DEAD_AFTER));
        let _ = socket.set_tcp_notsent_lowat(UNSENT);
        // Where the default is BBR, it paces what is sent by timers. That costs five times what sending does, and on the way
        // from a machine to itself nothing is ever congested.
        if peer.to_canonical().is_loopback() {
            let _ = socket.set_tcp_congestion(b"cubic");
        }
    }
}

/// Out of descriptors or memory: a pause lets connections end. Anything else concerns one connection only.
async fn wait_after(error: &io::Error) {
    let exhausted =
        matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM));
    if exhausted {
        tracing::warn!(%error, "no connection can be accepted; raise the limit on open files");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
