use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::body::Body;
use super::request::Request;

/// What a scripted upstream answers. Starts as a well-formed answer; each fault is one more method.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Body,
    /// First byte of `body` that is sent, and where to stop.
    pub(crate) start: u64,
    pub(crate) end: Option<u64>,
    pub(crate) framing: Framing,
    pub(crate) opening: Opening,
    pub(crate) before_head: Duration,
    pub(crate) before_body: Duration,
    pub(crate) informational: usize,
    pub(crate) pace: Option<u64>,
    pub(crate) flip: Option<u64>,
    pub(crate) cut: Option<(u64, Cut)>,
    pub(crate) gates: Vec<(u64, Gate)>,
    pub(crate) head_gate: Option<Gate>,
    pub(crate) close: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length,
    Declared(u64),
    Chunked,
    ChunkedWithoutEnd,
    UntilClose,
}

#[derive(Clone, Debug)]
pub(crate) enum Opening {
    Normal,
    Close,
    Reset,
    Raw(Bytes),
    RawThenOpen(Bytes),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    Close,
    Reset,
    Stall,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Bytes(Bytes::new()),
            start: 0,
            end: None,
            framing: Framing::Length,
            opening: Opening::Normal,
            before_head: Duration::ZERO,
            before_body: Duration::ZERO,
            informational: 0,
            pace: None,
            flip: None,
            cut: None,
            gates: Vec::new(),
            head_gate: None,
            close: false,
        }
    }

    pub fn ok(body: impl Into<Body>) -> Self {
        Self::status(200).body(body)
    }

    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::status(status).header("content-type", "application/json").body(value.to_string())
    }

    /// The error body of the distribution-spec with one error.
    pub fn oci_error(status: u16, code: &str) -> Self {
        Self::json(
            status,
            &serde_json::json!({"errors": [{"code": code, "message": "scripted", "detail": null}]}),
        )
    }

    pub fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::status(status).header("location", location.into())
    }

    /// `401` with a bearer challenge; a `scope` that is empty is left out.
    pub fn challenge(realm: &str, service: &str, scope: &str) -> Self {
        let scope = if scope.is_empty() { String::new() } else { format!(",scope=\"{scope}\"") };
        Self::oci_error(401, "UNAUTHORIZED")
            .header("www-authenticate", format!("Bearer realm=\"{realm}\",service=\"{service}\"{scope}"))
    }

    /// A blob as a good registry serves it: `ETag`, `Docker-Content-Digest`, and `206` or `416` when `request` has a
    /// `Range` that `If-Range` does not void.
    pub fn blob(request: &Request, digest: &str, body: Body) -> Self {
        let size = body.len().unwrap_or(0);
        let etag = format!("\"{digest}\"");
        let reply = Self::status(200)
            .header("content-type", "application/octet-stream")
            .header("docker-content-digest", digest)
            .header("accept-ranges", "bytes")
            .header("etag", etag.clone());
        let holds = request.header("if-range").is_none_or(|tag| tag == etag);
        match request.range() {
            Some((first, _)) if holds && first >= size => {
                Self::status(416).header("content-range", format!("bytes */{size}"))
            }
            Some((first, last)) if holds => {
                let end = last.map_or(size, |last| (last + 1).min(size));
                let mut reply =
                    reply.header("content-range", format!("bytes {first}-{}/{size}", end - 1)).body(body);
                (reply.status, reply.start, reply.end) = (206, first, Some(end));
                reply
            }
            _ => reply.body(body),
        }
    }

    /// Sends exactly these bytes instead of an answer, then closes.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        let mut reply = Self::status(0);
        reply.opening = Opening::Raw(bytes.into());
        reply
    }

    /// Sends exactly these bytes instead of an answer, then waits for the peer to hang up.
    pub fn raw_then_open(bytes: impl Into<Bytes>) -> Self {
        let mut reply = Self::status(0);
        reply.opening = Opening::RawThenOpen(bytes.into());
        reply
    }

    /// Closes the connection before the head.
    pub fn close_before_head() -> Self {
        let mut reply = Self::status(0);
        reply.opening = Opening::Close;
        reply
    }

    /// Resets the connection (RST) before the head.
    pub fn reset() -> Self {
        let mut reply = Self::status(0);
        reply.opening = Opening::Reset;
        reply
    }

    /// A head that is not HTTP.
    pub fn garbage_head() -> Self {
        Self::raw_then_open(
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\nSSH-2.0-nonsense\r\n\r\n"[..],
        )
    }

    /// The same answer with another status.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Appends a header; the value may hold any bytes, line breaks included.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Removes every header of that name (in lower case).
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self
    }

    /// `n` headers of 20 bytes or so.
    pub fn many_headers(mut self, n: usize) -> Self {
        self.headers.extend((0..n).map(|i| (format!("x-filler-{i}"), b"filler".to_vec())));
        self
    }

    /// `n` times `103 Early Hints` before the head.
    pub fn informational(mut self, n: usize) -> Self {
        self.informational = n;
        self
    }

    /// `Content-Encoding`, whatever the body is.
    pub fn encoding(self, encoding: &str) -> Self {
        self.header("content-encoding", encoding)
    }

    /// Waits before the first byte of the head.
    pub fn delay(mut self, time: Duration) -> Self {
        self.before_head = time;
        self
    }

    /// Waits between the head and the first byte of the body.
    pub fn delay_body(mut self, time: Duration) -> Self {
        self.before_body = time;
        self
    }

    /// Says this `Content-Length`, whatever is sent.
    pub fn declared_length(mut self, length: u64) -> Self {
        self.framing = Framing::Declared(length);
        self
    }

    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Chunks of which the last, empty one never comes: the connection is closed instead.
    pub fn chunked_without_end(mut self) -> Self {
        self.framing = Framing::ChunkedWithoutEnd;
        self
    }

    /// Neither length nor chunks: the body ends with the connection.
    pub fn until_close(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self
    }

    /// A body without end, in chunks.
    pub fn endless(mut self) -> Self {
        self.body = Body::Endless;
        self.framing = Framing::Chunked;
        self
    }

    /// Closes after `n` bytes of the body (of this answer).
    pub fn truncate_after(mut self, n: u64) -> Self {
        self.cut = Some((n, Cut::Close));
        self
    }

    /// Resets (RST) after `n` bytes of the body.
    pub fn reset_after(mut self, n: u64) -> Self {
        self.cut = Some((n, Cut::Reset));
        self
    }

    /// Sends nothing more after `n` bytes of the body, and leaves the connection open.
    pub fn stall_after(mut self, n: u64) -> Self {
        self.cut = Some((n, Cut::Stall));
        self
    }

    /// Sends at most so many bytes of the body a second.
    pub fn drip(mut self, bytes_per_second: u64) -> Self {
        self.pace = Some(bytes_per_second);
        self
    }

    /// Inverts byte `k`, counted from the start of the whole object.
    pub fn flip(mut self, k: u64) -> Self {
        self.flip = Some(k);
        self
    }

    /// Sends `n` bytes of the body (of this answer), then waits until the gate opens.
    pub fn hold_at(mut self, n: u64, gate: &Gate) -> Self {
        self.gates.push((n, gate.clone()));
        self.gates.sort_by_key(|(at, _)| *at);
        self
    }

    /// Sends nothing until the gate opens.
    pub fn hold_head(mut self, gate: &Gate) -> Self {
        self.head_gate = Some(gate.clone());
        self
    }

    /// `Connection: close`, and closes.
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }
}

/// Holds answers until a test lets them go.
#[derive(Clone, Debug)]
pub struct Gate {
    open: watch::Sender<bool>,
}

impl Gate {
    /// A gate that is shut.
    pub fn new() -> Self {
        Self { open: watch::Sender::new(false) }
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    pub fn shut(&self) {
        self.open.send_replace(false);
    }

    pub(crate) async fn passed(&self) {
        // The sender lives in `self`, so the channel cannot be closed.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}
