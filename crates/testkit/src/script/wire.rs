use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::body::Body;
use super::reply::{Cut, Framing, Opening, Reply};
use super::request::Request;

/// More than any client of ours sends.
const MAX_HEAD: usize = 1 << 20;

/// One connection of a scripted upstream, on bare TCP so that it can break every rule.
pub(crate) struct Wire {
    stream: TcpStream,
    peer: SocketAddr,
    buffer: Vec<u8>,
}

pub(crate) enum Received {
    Request(Request),
    Closed,
    Nonsense(String),
}

/// Whether the connection may carry another request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    KeepAlive,
    Close,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream, peer, buffer: Vec::new() }
    }

    pub(crate) async fn receive(&mut self) -> io::Result<Received> {
        let head_len = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if self.buffer.len() > MAX_HEAD {
                return Ok(Received::Nonsense("a head of more than 1 MiB".into()));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(Received::Closed);
                }
                return Ok(Received::Nonsense(format!(
                    "an unfinished head: {:?}",
                    String::from_utf8_lossy(&self.buffer)
                )));
            }
        };
        let mut request = match parse(&self.buffer[..head_len], self.peer) {
            Ok(request) => request,
            Err(why) => return Ok(Received::Nonsense(why)),
        };
        let length: usize = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        if request.header("transfer-encoding").is_some() || length > MAX_HEAD {
            return Ok(Received::Nonsense(format!("a body that is chunked or large: {request:?}")));
        }
        while self.buffer.len() < head_len + length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(Received::Nonsense("an unfinished body".into()));
            }
        }
        request.body = self.buffer[head_len..head_len + length].to_vec();
        self.buffer.drain(..head_len + length);
        Ok(Received::Request(request))
    }

    pub(crate) async fn answer(&mut self, request: &Request, reply: &Reply) -> io::Result<After> {
        if let Some(gate) = &reply.head_gate {
            gate.passed().await;
        }
        if !reply.before_head.is_zero() {
            tokio::time::sleep(reply.before_head).await;
        }
        match &reply.opening {
            Opening::Normal => {}
            Opening::Close => return Ok(After::Close),
            Opening::Reset => return self.reset(),
            Opening::Raw(bytes) => {
                self.stream.write_all(bytes).await?;
                self.stream.shutdown().await?;
                return Ok(After::Close);
            }
            Opening::RawThenOpen(bytes) => {
                self.stream.write_all(bytes).await?;
                self.until_hung_up().await;
                return Ok(After::Close);
            }
        }
        self.stream.write_all(&head(reply)).await?;
        if request.method == "HEAD" || matches!(reply.status, 204 | 304) {
            return Ok(if reply.close { After::Close } else { After::KeepAlive });
        }
        if !reply.before_body.is_zero() {
            tokio::time::sleep(reply.before_body).await;
        }
        let after = self.body(request, reply).await?;
        let keeps = matches!(reply.framing, Framing::Length | Framing::Chunked) && !reply.close;
        if after == After::Close || !keeps {
            let _ = self.stream.shutdown().await;
            return Ok(After::Close);
        }
        Ok(After::KeepAlive)
    }

    async fn body(&mut self, request: &Request, reply: &Reply) -> io::Result<After> {
        let end = reply.end.or(reply.body.len()).unwrap_or(u64::MAX);
        let chunked = matches!(reply.framing, Framing::Chunked | Framing::ChunkedWithoutEnd);
        let mut gates = reply.gates.iter().peekable();
        let mut pace = reply.pace.map(Pace::new);
        let mut sent = 0;
        loop {
            while let Some((_, gate)) = gates.next_if(|(at, _)| *at <= sent) {
                gate.passed().await;
            }
            if let Some((_, how)) = reply.cut.filter(|(after, _)| *after <= sent) {
                return self.cut(how).await;
            }
            let from = reply.start + sent;
            if from >= end {
                break;
            }
            let mut to = end;
            for stop in gates.peek().map(|(at, _)| *at).into_iter().chain(reply.cut.map(|(after, _)| after)) {
                to = to.min(reply.start + stop);
            }
            if let Some(pace) = &mut pace {
                to = to.min(from + pace.next().await);
            }
            let piece = flipped(&reply.body, from..to, reply.flip);
            if chunked {
                self.stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            }
            self.stream.write_all(&piece).await?;
            if chunked {
                self.stream.write_all(b"\r\n").await?;
            }
            sent += piece.len() as u64;
            request.sent.store(sent, Ordering::Relaxed);
        }
        if reply.framing == Framing::Chunked {
            self.stream.write_all(b"0\r\n\r\n").await?;
        }
        Ok(After::KeepAlive)
    }

    async fn cut(&mut self, how: Cut) -> io::Result<After> {
        match how {
            Cut::Close => {}
            Cut::Reset => return self.reset(),
            Cut::Stall => self.until_hung_up().await,
        }
        Ok(After::Close)
    }

    /// Closing with a linger of zero makes the kernel send RST.
    fn reset(&self) -> io::Result<After> {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
        Ok(After::Close)
    }

    async fn until_hung_up(&mut self) {
        let mut sink = [0; 1024];
        while matches!(self.stream.read(&mut sink).await, Ok(n) if n > 0) {}
    }
}

fn parse(head: &[u8], peer: SocketAddr) -> Result<Request, String> {
    let mut slots = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Request::new(&mut slots);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        other => return Err(format!("{other:?}: {:?}", String::from_utf8_lossy(head))),
    }
    let target = parsed.path.unwrap_or_default().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Ok(Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: parsed
            .headers
            .iter()
            .map(|header| {
                (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned())
            })
            .collect(),
        body: Vec::new(),
        peer,
        at: Instant::now(),
        sent: Arc::new(AtomicU64::new(0)),
        target,
    })
}

fn head(reply: &Reply) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..reply.informational {
        out.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n");
    }
    out.extend_from_slice(format!("HTTP/1.1 {} Scripted\r\n", reply.status).as_bytes());
    for (name, value) in &reply.headers {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    if reply.close {
        out.extend_from_slice(b"connection: close\r\n");
    }
    let bodiless = matches!(reply.status, 204 | 304);
    match reply.framing {
        Framing::Length if bodiless => {}
        Framing::Length => {
            let end = reply.end.or(reply.body.len()).unwrap_or(0);
            out.extend_from_slice(format!("content-length: {}\r\n", end - reply.start).as_bytes());
        }
        Framing::Declared(length) => {
            out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes())
        }
        Framing::Chunked | Framing::ChunkedWithoutEnd => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n")
        }
        Framing::UntilClose => {}
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn flipped(body: &Body, range: std::ops::Range<u64>, flip: Option<u64>) -> bytes::Bytes {
    let from = range.start;
    let piece = body.read(range);
    match flip.and_then(|at| at.checked_sub(from)) {
        Some(at) if at < piece.len() as u64 => {
            let mut changed = piece.to_vec();
            changed[at as usize] ^= 0xff;
            changed.into()
        }
        _ => piece,
    }
}

/// Lets a tenth of the rate through every tenth of a second.
struct Pace {
    slice: u64,
    next: tokio::time::Instant,
    every: Duration,
}

impl Pace {
    fn new(per_second: u64) -> Self {
        let slice = (per_second / 10).max(1);
        let every = Duration::from_secs_f64(slice as f64 / per_second.max(1) as f64);
        Self { slice, next: tokio::time::Instant::now(), every }
    }

    async fn next(&mut self) -> u64 {
        tokio::time::sleep_until(self.next).await;
        self.next += self.every;
        self.slice
    }
}
