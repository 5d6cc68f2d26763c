//! Where log lines gather on their way out: the lines of requests are written together, many at once, by a thread of
//! their own, so that no request waits for whoever reads the log.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// How long a line may wait for others.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that wait at most; what comes on top is lost, and counted.
const WAITING: usize = 4 << 20;
/// Bytes of memory that are kept for the next lines in any case.
const KEPT: usize = 64 << 10;

/// Cloning shares them.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    come: Condvar,
    /// Held by whoever writes, so that lines stay in their order; what is in it is empty when nobody does.
    out: Mutex<Vec<u8>>,
    sink: fn(&[u8]) -> io::Result<()>,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    lost: u64,
}

impl Lines {
    /// Lines for standard error.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn to_stderr() -> io::Result<Lines> {
        Lines::to(|bytes| io::stderr().write_all(bytes))
    }

    fn to(sink: fn(&[u8]) -> io::Result<()>) -> io::Result<Lines> {
        let lines = Lines(Arc::new(Shared {
            waiting: Mutex::default(),
            come: Condvar::new(),
            out: Mutex::default(),
            sink,
        }));
        let writing = lines.clone();
        std::thread::Builder::new().name("log-writer".into()).spawn(move || {
            loop {
                writing.0.come.wait_while(&mut writing.0.waiting.lock(), |waiting| waiting.bytes.is_empty());
                std::thread::sleep(GATHER);
                writing.flush();
                let lost = std::mem::take(&mut writing.0.waiting.lock().lost);
                if lost > 0 {
                    tracing::warn!(lost, "the log is read too slowly for some lines about requests");
                }
            }
        })?;
        Ok(lines)
    }

    /// A whole line, with its end.
    pub(super) fn push(&self, line: &[u8]) {
        let mut waiting = self.0.waiting.lock();
        if waiting.bytes.len() + line.len() > WAITING {
            waiting.lost += 1;
            return;
        }
        let first = waiting.bytes.is_empty();
        waiting.bytes.extend_from_slice(line);
        drop(waiting);
        if first {
            self.0.come.notify_one();
        }
    }

    /// Writes what waits. Blocks while the reader does not read.
    pub(super) fn flush(&self) {
        let mut out = self.0.out.lock();
        std::mem::swap(&mut self.0.waiting.lock().bytes, &mut *out);
        // There is nowhere to say that the log cannot be written.
        let _ = (self.0.sink)(&out);
        // As much memory as the next lines will need, if as many come.
        let used = out.len();
        out.clear();
        out.shrink_to(KEPT.max(2 * used));
    }
}

/// What is not about a request is written at once, behind what waits.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.waiting.lock().bytes.extend_from_slice(line);
        Lines::flush(self);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static WRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());

    #[test]
    fn lines_keep_their_order_and_are_few_writes() {
        let lines = Lines::to(|bytes| {
            WRITTEN.lock().extend_from_slice(bytes);
            Ok(())
        })
        .unwrap();
        for line in 0..1000 {
            lines.push(format!("{line}\n").as_bytes());
        }
        lines.clone().write_all(b"at once\n").unwrap();
        lines.push(b"last\n");
        let expected: String =
            (0..1000).map(|line| format!("{line}\n")).chain(["at once\n".to_owned()]).collect();
        assert!(WRITTEN.lock().starts_with(expected.as_bytes()));
        lines.flush();
        assert_eq!(*WRITTEN.lock(), (expected + "last\n").into_bytes());
        // A reader that is too slow loses lines about requests, and nothing else.
        let held = lines.0.out.lock();
        let line = vec![b'x'; WAITING / 2];
        for _ in 0..3 {
            lines.push(&line);
        }
        let waiting = lines.0.waiting.lock();
        assert_eq!((waiting.bytes.len(), waiting.lost), (WAITING, 1));
        drop((waiting, held));
    }
}
