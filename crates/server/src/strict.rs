//! Line ends as RFC 9112 §2.2 has them, and no others.
//!
//! A lone LF ends a line for some readers and not for others, and two requests for one of them are one request for the
//! other. Requests carry nothing but heads and, at the token endpoint, a URL-encoded form, in which no LF stands by
//! itself: one that does is made a byte that no head may hold, and the connection ends with a 400.
//!
//! And an end that the client hears: we say first that no more comes, and close when the client has heard it (RFC 9112
//! §9.6). A socket that is closed at once is the kernel's to reset, when bytes came in that nobody read or memory is
//! short, and the end of the answer is lost with it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a client may take to hear that no more comes.
const LINGER: Duration = Duration::from_secs(1);

/// How HTTP/2 begins; what follows is not lines.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n";

/// A connection whose inbound HTTP/1 lines end in CR LF.
#[derive(Debug)]
pub(crate) struct Strict<S> {
    stream: S,
    seen: Seen,
    /// We have said that no more comes, and wait this long at most for the client.
    lingering: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug)]
enum Seen {
    /// So many bytes of [`HTTP_2`], and the last byte.
    Start(usize, u8),
    Lines(u8),
    Http2,
}

impl<S> Strict<S> {
    pub(crate) fn new(stream: S) -> Strict<S> {
        Strict { stream, seen: Seen::Start(0, 0), lingering: None }
    }
}

impl Seen {
    fn pass(self, bytes: &mut [u8]) -> Seen {
        let (last, bytes) = match self {
            Seen::Http2 => return Seen::Http2,
            Seen::Lines(last) => (last, bytes),
            Seen::Start(at, last) => {
                let same = bytes.iter().zip(&HTTP_2[at..]).take_while(|(byte, known)| byte == known).count();
                let last = if same > 0 { bytes[same - 1] } else { last };
                match at + same {
                    at if at == HTTP_2.len() => return Seen::Http2,
                    at if same == bytes.len() => return Seen::Start(at, last),
                    _ => (last, &mut bytes[same..]),
                }
            }
        };
        let mut from = 0;
        while let Some(found) = memchr::memchr(b'\n', &bytes[from..]) {
            let at = from + found;
            let before = if at > 0 { bytes[at - 1] } else { last };
            if before != b'\r' {
                bytes[at] = 0;
            }
            from = at + 1;
        }
        Seen::Lines(bytes.last().copied().unwrap_or(last))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.seen = self.seen.pass(&mut buf.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.lingering = Some(Box::pin(sleep(LINGER)));
        }
        let Strict { stream, lingering, .. } = &mut *self;
        loop {
            if lingering.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(Ok(()));
            }
            let mut unheard = [0; 1024];
            let mut unheard = ReadBuf::new(&mut unheard);
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut unheard));
            if read.is_err() || unheard.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In pieces of every size.
    fn through(bytes: &[u8]) -> Vec<u8> {
        let in_pieces = |size| {
            let mut bytes = bytes.to_vec();
            bytes.chunks_mut(size).fold(Seen::Start(0, 0), |seen, piece| seen.pass(piece));
            bytes
        };
        let whole = in_pieces(bytes.len());
        for size in 1..bytes.len() {
            assert_eq!(in_pieces(size), whole, "{size}");
        }
        whole
    }

    /// T-HC3: what ends a line for one reader only ends it for none.
    #[test]
    fn t_hc3_a_lone_line_feed_becomes_invalid() {
        assert_eq!(through(b"GET / HTTP/1.1\r\nA: b\n\nGET /"), b"GET / HTTP/1.1\r\nA: b\0\0GET /");
        assert_eq!(through(b"\nGET"), b"\0GET");
        assert_eq!(through(b"PRI * HTTP/1.1\n"), b"PRI * HTTP/1.1\0");
    }

    #[test]
    fn whole_line_ends_and_http_2_pass_unchanged() {
        for bytes in [
            &b"GET / HTTP/1.1\r\nA: b\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\n\n\0",
            b"a=b&c=d",
        ] {
            assert_eq!(through(bytes), bytes);
        }
    }
}
