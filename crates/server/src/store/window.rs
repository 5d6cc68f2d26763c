//! Windows: stretches of a file that the kernel sends to a client, without their bytes passing through here.
//!
//! hyper writes memory. In a window's place it is shown a stretch of memory that nobody reads, and the connection, which
//! knows that memory by its address, sends the window. Which one is due stands in the connection's [`Lane`].

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, LazyLock};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;

use super::layout::failpoint;

/// Bytes of a window at most.
pub(crate) const WINDOW: usize = 1 << 20;
/// What is probed to find out whether a stretch of a file is in memory lies so many bytes apart: what the kernel reads ahead,
/// and gives up, is of about this size.
const STEP: usize = 256 << 10;

/// What hyper is shown. Never touched, so that it takes no memory.
static PLACEHOLDER: LazyLock<Box<[u8]>> = LazyLock::new(|| vec![0; WINDOW].into());

/// Hears why a file could not be read.
pub(crate) type Broken = Arc<dyn Fn(&io::Error) + Send + Sync>;

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Data {
    Bytes(Bytes),
    /// So many bytes of a window in the connection's lane.
    Window(usize),
}

/// The windows that a connection is to send, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane(Arc<Mutex<VecDeque<Window>>>);

/// A stretch of a file.
pub(crate) struct Window {
    pub(crate) file: Arc<File>,
    pub(crate) at: u64,
    /// At most [`WINDOW`].
    pub(crate) length: usize,
    pub(crate) broken: Broken,
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Window").field("at", &self.at).field("length", &self.length).finish_non_exhaustive()
    }
}

impl Buf for Data {
    fn remaining(&self) -> usize {
        match self {
            Data::Bytes(bytes) => bytes.len(),
            Data::Window(left) => *left,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Data::Bytes(bytes) => bytes,
            Data::Window(left) => &PLACEHOLDER[..*left],
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Data::Bytes(bytes) => bytes.advance(count),
            Data::Window(left) => *left -= count,
        }
    }
}

/// Whether `slice` stands for a window.
pub(crate) fn stands_for_window(slice: &[u8]) -> bool {
    !slice.is_empty() && std::ptr::eq(slice.as_ptr(), PLACEHOLDER.as_ptr())
}

impl Lane {
    /// Puts a window behind those that are due. What comes back is to be written after what stands for them.
    pub(super) fn put(&self, window: Window) -> Data {
        let length = window.length;
        self.0.lock().push_back(window);
        Data::Window(length)
    }

    /// Bytes that are due.
    pub(crate) fn due(&self) -> usize {
        self.0.lock().iter().map(|window| window.length).sum()
    }

    /// Sends from the window that is due to a socket that does not block. How many bytes went out, at least one.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes no more. `UnexpectedEof` when the file ends before the window, and what the disk
    /// says when it cannot be read: `broken` has heard of these. All else is the socket's.
    pub(crate) fn send(&self, socket: impl AsFd) -> io::Result<usize> {
        let mut windows = self.0.lock();
        let window = windows.front_mut().ok_or(io::ErrorKind::InvalidInput)?;
        let sent = match window.send(socket) {
            Ok(sent) => sent,
            Err(error) => {
                let broken = is_the_files(&error).then(|| window.broken.clone());
                drop(windows);
                if let Some(broken) = broken {
                    broken(&error);
                }
                return Err(error);
            }
        };
        window.at += sent as u64;
        window.length -= sent;
        if window.length == 0 {
            windows.pop_front();
        }
        Ok(sent)
    }
}

impl Window {
    #[cfg(target_os = "linux")]
    fn send(&self, socket: impl AsFd) -> io::Result<usize> {
        failpoint("store::read")?;
        match rustix::fs::sendfile(socket, &self.file, Some(&mut self.at.clone()), self.length)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            sent => Ok(sent),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn send(&self, _: impl AsFd) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Whether an error of sending a window comes from the file.
fn is_the_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // What file systems say of bytes that are there and cannot be had; no socket says it.
    const UNREADABLE: [Errno; 4] = [Errno::IO, Errno::STALE, Errno::BADMSG, Errno::UCLEAN];
    error.kind() == io::ErrorKind::UnexpectedEof
        || Errno::from_io_error(error).is_some_and(|errno| UNREADABLE.contains(&errno))
}

/// How many of the `most` bytes from `at` on are in memory, so that sending them waits for no disk: to our best knowledge,
/// for it is probed in steps.
pub(super) fn resident(file: &File, at: u64, most: usize) -> usize {
    let there = |at| matches!(read_now(file, &mut [0], at), Ok(1));
    if most == 0 || !there(at) {
        return 0;
    }
    let mut resident = 0;
    while resident < most {
        let next = (resident + STEP).min(most);
        if !there(at + next as u64 - 1) {
            break;
        }
        resident = next;
    }
    resident
}

/// Reads what is in memory.
///
/// # Errors
/// `WouldBlock` when the disk must be waited for. `Unsupported` where that cannot be known.
#[cfg(target_os = "linux")]
pub(super) fn read_now(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    match preadv2(file, &mut [io::IoSliceMut::new(buffer)], at, ReadWriteFlags::NOWAIT) {
        Err(Errno::OPNOTSUPP) if super::layout::is_memory(file) => file.read_at(buffer, at),
        read => Ok(read?),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn read_now(_: &File, _: &mut [u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}
