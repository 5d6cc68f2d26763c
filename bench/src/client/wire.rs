//! One keep-alive connection, blocking, with nothing between the socket and who measures.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use super::Sink;
use crate::upstream::ACCEPT;

/// A server that says nothing for so long has failed.
const SILENCE: Duration = Duration::from_secs(300);
/// What is taken from the socket in one call, at most.
const PIECE: usize = 256 * 1024;
/// As whom clients name themselves: mirrors may tell those that pull an image from those that look at it.
const PULLER: &str = "containerd/1.7.24";

/// A connection to a server, and what was read beyond the last head.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    ahead: Vec<u8>,
    buffer: Vec<u8>,
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    /// Bytes of the body.
    pub(super) length: u64,
}

impl Connection {
    pub(super) fn open(address: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        Ok(Connection { stream, ahead: Vec::new(), buffer: vec![0; PIECE] })
    }

    /// Asks, and reads the head. `range` is of the first and the last byte.
    pub(super) fn get(&mut self, path: &str, range: Option<(u64, u64)>) -> Result<Head> {
        let range = range.map(|(first, last)| format!("range: bytes={first}-{last}\r\n"));
        self.get_with(path, &range.unwrap_or_default())
    }

    /// As [`Connection::get`], with further header lines.
    pub(super) fn get_with(&mut self, path: &str, headers: &str) -> Result<Head> {
        self.stream.write_all(request(path, headers).as_bytes())?;
        loop {
            if let Some((head, used)) = parse(&self.ahead)? {
                self.ahead.drain(..used);
                return Ok(head);
            }
            let n = self.stream.read(&mut self.buffer[..16 * 1024])?;
            if n == 0 {
                bail!("the server closed the connection before its answer to {path}");
            }
            self.ahead.extend_from_slice(&self.buffer[..n]);
        }
    }

    /// Reads `length` bytes of a body, and tells `seen` of each piece as it comes; it ends the reading early by `false`.
    pub(super) fn body(
        &mut self,
        length: u64,
        sink: Sink,
        hash: &mut Sha256,
        mut seen: impl FnMut(u64) -> bool,
    ) -> Result<()> {
        let mut left = length;
        let early = self.ahead.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if early > 0 {
            if sink == Sink::Hashed {
                hash.update(&self.ahead[..early]);
            }
            self.ahead.drain(..early);
            left -= early as u64;
            if !seen(early as u64) {
                return Ok(());
            }
        }
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let n = match sink {
                Sink::Dropped => drop_bytes(self.stream.as_raw_fd(), most)?,
                Sink::Copied | Sink::Hashed => self.stream.read(&mut self.buffer[..most.min(PIECE)])?,
            };
            if n == 0 {
                bail!("the server closed the connection {left} bytes before the end");
            }
            if sink == Sink::Hashed {
                hash.update(&self.buffer[..n]);
            }
            left -= n as u64;
            if !seen(n as u64) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// A GET; `headers` are further lines of its head.
pub(super) fn request(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: bench.test\r\nuser-agent: {PULLER}\r\naccept: {ACCEPT}\r\n{headers}\r\n"
    )
}

/// Takes bytes off a socket without copying them anywhere.
pub(super) fn drop_bytes(socket: RawFd, most: usize) -> io::Result<usize> {
    // SAFETY: with MSG_TRUNC a TCP socket writes nothing to the buffer (tcp(7)), so that there need not be one.
    let n = unsafe { libc::recv(socket, std::ptr::null_mut(), most.min(4 * PIECE), libc::MSG_TRUNC) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// The head and its length, once the bytes hold all of it.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>> {
    let mut slots = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut slots);
    let httparse::Status::Complete(used) = answer.parse(bytes).context("the head of an answer")? else {
        return Ok(None);
    };
    let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    let length = length.context("an answer without a length")?;
    Ok(Some((Head { status: answer.code.unwrap_or(0), length }, used)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_whole_or_awaited() {
        let text = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 7\r\n\r\nbo";
        assert!(parse(&text[..40]).unwrap().is_none());
        let (head, used) = parse(text).unwrap().unwrap();
        assert_eq!((head.status, head.length, used), (206, 7, text.len() - 2));
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
