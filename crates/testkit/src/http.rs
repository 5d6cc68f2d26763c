//! An HTTP/1.1 client on a bare socket: it can say what no proper client says, and it sees exactly how an answer ended.

mod parse;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub use parse::Head;
pub(crate) use parse::all as parse_all;
use parse::{Decoder, Progress};

/// Begins a GET of `http://<host>:<port>/<path>`; the target is sent as it stands.
pub fn get(url: impl AsRef<str>) -> Call {
    request("GET", url)
}

pub fn head(url: impl AsRef<str>) -> Call {
    request("HEAD", url)
}

pub fn request(method: &str, url: impl AsRef<str>) -> Call {
    let rest = url.as_ref().strip_prefix("http://").expect("a URL that begins with http://");
    let (host, target) = match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, "/"),
    };
    Call {
        method: method.to_owned(),
        address: host.to_owned(),
        target: target.to_owned(),
        headers: vec![("host".into(), host.into())],
        body: Vec::new(),
        limit: Duration::from_secs(60),
        keep: true,
    }
}

/// A request in the making.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `send` or `open`"]
pub struct Call {
    method: String,
    address: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    limit: Duration,
    keep: bool,
}

impl Call {
    /// Appends a header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Replaces the `Host` header.
    pub fn host(mut self, host: &str) -> Self {
        self.headers[0].1 = host.to_owned();
        self
    }

    /// A whole `Range` value, for example `bytes=0-9`.
    pub fn range(self, value: &str) -> Self {
        self.header("range", value)
    }

    pub fn basic(self, encoded: &str) -> Self {
        self.header("authorization", format!("Basic {encoded}"))
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Sends a body with its length.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("content-length", length)
    }

    /// How long everything may take; 60 s unless told.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Hashes and counts the body without keeping it.
    pub fn discard(mut self) -> Self {
        self.keep = false;
        self
    }

    /// Sends, and reads to the end, however it ends. Panics if there is no connection, no head, or no end in time.
    pub async fn send(self) -> Response {
        let what = format!("{} http://{}{}", self.method, self.address, self.target);
        self.try_send().await.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// As `send`, but a connection that ends before a head counts as an answer: of status 0, and no clean end.
    pub async fn send_or_broken(self) -> Response {
        let what = format!("{} http://{}{}", self.method, self.address, self.target);
        match self.try_send().await {
            Ok(response) => response,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) =>
            {
                Response::broken()
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// As `send`, but a missing connection, head or end is an error.
    pub async fn try_send(self) -> io::Result<Response> {
        let (limit, keep) = (self.limit, self.keep);
        let run = async {
            let mut stream = self.open_inner().await?;
            stream.read_all(keep).await
        };
        tokio::time::timeout(limit, run).await.unwrap_or_else(|_| Err(timed_out(limit)))
    }

    /// Sends, and reads the head. The body is then read as fast as the caller wants it.
    pub async fn open(self) -> Stream {
        let what = format!("{} http://{}{}", self.method, self.address, self.target);
        let limit = self.limit;
        let opened =
            tokio::time::timeout(limit, self.open_inner()).await.unwrap_or_else(|_| Err(timed_out(limit)));
        opened.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    async fn open_inner(self) -> io::Result<Stream> {
        let start = Instant::now();
        let mut socket = TcpStream::connect(&self.address).await?;
        socket.set_nodelay(true)?;
        // A peer may refuse and hang up before it has read everything; what it said then is still to be read.
        let _ = socket.write_all(&self.bytes()).await;
        let mut buffer = Vec::new();
        let head = loop {
            if let Some((head, used)) = parse::head(&buffer)? {
                buffer.drain(..used);
                if head.status >= 200 {
                    break head;
                }
                continue;
            }
            if socket.read_buf(&mut buffer).await? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection ended before a head",
                ));
            }
        };
        let decoder = Decoder::new(&head, &self.method);
        let time_to_head = start.elapsed();
        Ok(Stream {
            socket,
            buffer,
            head,
            decoder,
            start,
            time_to_head,
            first_byte: None,
            received: 0,
            ended: None,
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.headers.iter().any(|(name, _)| name == "connection") {
            text.push_str("connection: close\r\n");
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// A whole answer.
#[derive(Clone)]
pub struct Response {
    pub head: Head,
    pub status: u16,
    /// Empty when the call said `discard`.
    pub body: Vec<u8>,
    /// Bytes of body.
    pub length: u64,
    /// `sha256:<hex>` of the body.
    pub digest: String,
    /// True if the body ended as its framing promised; false for one cut short.
    pub clean_end: bool,
    /// From before the connection to the end of the head.
    pub time_to_head: Duration,
    /// From before the connection to the first byte of the body, or to its end if it is empty.
    pub ttfb: Duration,
    pub total: Duration,
}

impl Response {
    fn broken() -> Self {
        Self {
            head: Head { status: 0, headers: Vec::new() },
            status: 0,
            body: Vec::new(),
            length: 0,
            digest: crate::script::sha256(b""),
            clean_end: false,
            time_to_head: Duration::ZERO,
            ttfb: Duration::ZERO,
            total: Duration::ZERO,
        }
    }

    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics with the body if it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// `errors[0].code` of the distribution-spec's error body; panics if the answer is not one.
    pub fn error_code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"), "an error in JSON: {self:?}");
        let json = self.json();
        json["errors"][0]["code"].as_str().unwrap_or_else(|| panic!("an error code: {self:?}")).to_owned()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]);
        write!(
            f,
            "{} {:?} {} bytes in {:?} (clean end: {}) {shown:?}",
            self.status, self.head.headers, self.length, self.total, self.clean_end
        )
    }
}

/// An answer whose body is still being read.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    buffer: Vec<u8>,
    pub head: Head,
    decoder: Decoder,
    start: Instant,
    pub time_to_head: Duration,
    first_byte: Option<Duration>,
    received: u64,
    /// How it ended: true if cleanly.
    ended: Option<bool>,
}

impl Stream {
    /// The next bytes of the body; `None` at its end, clean or not.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            if self.ended.is_some() {
                return None;
            }
            match self.decoder.next(&mut self.buffer) {
                Progress::Data(bytes) => {
                    self.first_byte.get_or_insert_with(|| self.start.elapsed());
                    self.received += bytes.len() as u64;
                    return Some(bytes);
                }
                Progress::End => self.ended = Some(true),
                Progress::Broken => self.ended = Some(false),
                Progress::More => {
                    self.buffer.reserve(64 * 1024);
                    match self.socket.read_buf(&mut self.buffer).await {
                        Ok(n) if n > 0 => {}
                        Ok(_) => self.ended = Some(self.decoder.may_end_here()),
                        Err(_) => self.ended = Some(false),
                    }
                }
            }
        }
    }

    /// At least `n` more bytes of the body, fewer only at its end.
    pub async fn read(&mut self, n: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < n {
            let Some(bytes) = self.chunk().await else { break };
            all.extend_from_slice(&bytes);
        }
        all
    }

    /// Reads the rest.
    pub async fn finish(mut self) -> Response {
        self.read_all(true).await.expect("reading the body reports its end, not an error")
    }

    /// Bytes of body so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the body ended, and whether cleanly.
    pub fn ended(&self) -> Option<bool> {
        self.ended
    }

    /// Hangs up with a reset.
    pub fn abort(self) {
        let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    async fn read_all(&mut self, keep: bool) -> io::Result<Response> {
        let mut hash = Sha256::new();
        let mut body = Vec::new();
        while let Some(bytes) = self.chunk().await {
            hash.update(&bytes);
            if keep {
                body.extend_from_slice(&bytes);
            }
        }
        let total = self.start.elapsed();
        Ok(Response {
            status: self.head.status,
            head: self.head.clone(),
            body,
            length: self.received,
            digest: crate::script::hex_digest("sha256", &hash.finalize()),
            clean_end: self.ended == Some(true),
            time_to_head: self.time_to_head,
            ttfb: self.first_byte.unwrap_or(total),
            total,
        })
    }
}

/// What came back on a connection that was sent bare bytes.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Everything received.
    pub bytes: Vec<u8>,
    /// True if the peer closed (or reset) the connection within the time.
    pub closed: bool,
}

impl Raw {
    /// The answers in the bytes, as far as they can be told apart; none of them to HEAD.
    pub fn responses(&self) -> Vec<(Head, Vec<u8>)> {
        parse_all(&self.bytes)
    }

    pub fn statuses(&self) -> Vec<u16> {
        self.responses().iter().map(|(head, _)| head.status).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Sends bytes as they stand and collects what comes back until the peer closes or says nothing for `quiet`.
pub async fn raw(address: SocketAddr, bytes: &[u8], quiet: Duration) -> Raw {
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    let mut received = Vec::new();
    // The peer may refuse and close before it has read everything.
    let _ = socket.write_all(bytes).await;
    loop {
        match tokio::time::timeout(quiet, socket.read_buf(&mut received)).await {
            Err(_) => {
                return Raw { bytes: received, closed: false };
            }
            Ok(Ok(n)) if n > 0 => {}
            Ok(_) => {
                return Raw { bytes: received, closed: true };
            }
        }
    }
}

/// Runs `n` of a thing at the same time and collects what they answer, in order.
pub async fn parallel<T, F>(n: usize, make: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..n).map(|i| tokio::spawn(make(i))).collect();
    let mut results = Vec::with_capacity(n);
    for task in tasks {
        results.push(task.await.expect("a client that does not panic"));
    }
    results
}

fn timed_out(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no end within {limit:?}"))
}
