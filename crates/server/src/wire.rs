//! A connection without TLS, over which windows of files go out as the kernel sends them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::store::{Lane, stands_for_window};

/// Bytes of windows that one connection sends before others have their turn: a client that takes everything at once would
/// hold a thread for long.
const TURN: usize = 4 << 20;

/// See the module. What is written in place of a window is checked against the lane: nothing else ever goes out.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    lane: Lane,
    /// Bytes of windows sent in this turn.
    sent: usize,
}

impl Wire {
    /// Sends what `lane` has, when its turn comes among the other bytes.
    pub(crate) fn new(stream: TcpStream, lane: Lane) -> Wire {
        Wire { stream, lane, sent: 0 }
    }

    fn poll_window(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.sent >= TURN {
            self.sent = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let sent = self.poll_try(cx, |wire| wire.lane.send(&wire.stream));
        match &sent {
            Poll::Ready(Ok(bytes)) => self.sent += bytes,
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.sent = 0,
        }
        sent
    }

    /// What goes before a window: it waits for the window, so as not to be a packet of its own.
    fn poll_ahead(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        #[cfg(target_os = "linux")]
        const MORE: i32 = libc::MSG_MORE;
        #[cfg(not(target_os = "linux"))]
        const MORE: i32 = 0;
        self.poll_try(cx, |wire| SockRef::from(&wire.stream).send_vectored_with_flags(slices, MORE))
    }

    /// Tries until the socket takes something.
    fn poll_try(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&Wire) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_io(Interest::WRITABLE, || write(self)) {
                Err(error) if again(&error) => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let windows = || slices.iter().filter(|slice| stands_for_window(slice));
        // Were it ever copied or cut short on the way, the client would get what no file holds.
        if windows().map(|slice| slice.len()).sum::<usize>() != self.lane.due() {
            return Poll::Ready(Err(io::Error::other("the windows of an answer are not where they belong")));
        }
        match slices.iter().position(|slice| stands_for_window(slice)) {
            Some(0) => self.poll_window(cx),
            Some(window) => self.poll_ahead(cx, &slices[..window]),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
