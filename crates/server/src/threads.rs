//! Threads that serve connections. Each has a runtime of its own, and a connection stays with one of them: what wakes it,
//! reads from it and writes to it shares a processor's caches, and no thread has to be woken to take work from another.
//! What outlives a request is a job, and jobs are the main runtime's.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Further threads of each that wait for the disk, at least.
const DISK_THREADS: usize = 4;
/// How long they may take to end. One that hangs in a call of the system's, on a dead disk, would hold up the end for ever.
const END_WITHIN: Duration = Duration::from_secs(1);

/// See the module. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct Threads(Arc<[Thread]>);

#[derive(Debug)]
struct Thread {
    runtime: Handle,
    /// Each of its connections holds it.
    held: Arc<()>,
}

/// What waits for [`Threads`] to end: each of them holds the other half.
#[derive(Debug)]
pub(crate) struct Ending(mpsc::Receiver<()>);

impl Threads {
    /// Starts one for each processor that the process may use. They serve until `stop`, and have about `disk_threads` that wait
    /// for the disk between them.
    ///
    /// # Errors
    /// When the system gives no more threads or descriptors.
    pub(crate) fn start(disk_threads: usize, stop: &CancellationToken) -> io::Result<(Threads, Ending)> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let disk_threads = (disk_threads / count).max(DISK_THREADS);
        let (running, ending) = mpsc::channel();
        let started = (0..count).map(|_| Thread::start(disk_threads, stop.clone(), running.clone()));
        let threads = started.collect::<io::Result<Vec<_>>>()?;
        Ok((Threads(threads.into()), Ending(ending)))
    }

    /// Has the thread with the fewest connections do with one more what `serve` says.
    pub(crate) fn take<F>(
        &self,
        connection: std::net::TcpStream,
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let Some(thread) = self.0.iter().min_by_key(|thread| Arc::strong_count(&thread.held)) else { return };
        let held = thread.held.clone();
        thread.runtime.spawn(async move {
            match TcpStream::from_std(connection) {
                Ok(connection) => serve(connection).await,
                Err(error) => tracing::warn!(%error, "a connection cannot be served"),
            }
            drop(held);
        });
    }
}

impl Thread {
    /// Drops `running` when it has ended.
    fn start(disk_threads: usize, stop: CancellationToken, running: mpsc::Sender<()>) -> io::Result<Thread> {
        let runtime =
            Builder::new_current_thread().enable_all().max_blocking_threads(disk_threads).build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new().name("connections".into()).spawn(move || {
            runtime.block_on(stop.cancelled());
            // A disk that hangs is not waited for.
            runtime.shutdown_background();
            drop(running);
        })?;
        Ok(Thread { runtime: handle, held: Arc::default() })
    }
}

impl Ending {
    /// Waits until they have ended, for [`END_WITHIN`] at the longest: what they still served is cut off, and logged. Blocks.
    pub(crate) fn join(self) {
        // Nothing is ever sent: it ends when the last of them does.
        let _ = self.0.recv_timeout(END_WITHIN);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::TcpListener;
    use std::thread::ThreadId;
    use std::time::Instant;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Both ends of a connection.
    fn connected() -> (std::net::TcpStream, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        (client, server)
    }

    /// Says when it is dropped.
    struct Told(mpsc::Sender<()>);

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    #[test]
    fn connections_are_spread_and_stay_where_they_are() {
        let stop = CancellationToken::new();
        let (threads, ending) = Threads::start(8, &stop).unwrap();
        let count = threads.0.len();
        let (tell, told) = mpsc::channel::<(ThreadId, ThreadId)>();
        let mut clients = Vec::new();
        for _ in 0..3 * count {
            let (client, server) = connected();
            let tell = tell.clone();
            threads.take(server, move |mut stream| async move {
                let begun = thread::current().id();
                // Until the client goes.
                let _ = stream.read(&mut [0]).await;
                let _ = tell.send((begun, thread::current().id()));
            });
            clients.push(client);
        }
        drop(clients);
        let mut each: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..3 * count {
            let (begun, ended) = told.recv_timeout(LIMIT).unwrap();
            assert_eq!(begun, ended);
            *each.entry(format!("{begun:?}")).or_default() += 1;
        }
        assert_eq!(each.into_values().collect::<Vec<_>>(), vec![3; count]);
        stop.cancel();
        ending.join();
    }

    #[test]
    fn what_is_served_when_they_end_is_cut_off_before_they_are_joined() {
        let stop = CancellationToken::new();
        let (threads, ending) = Threads::start(8, &stop).unwrap();
        let ((_client, server), (tell, told)) = (connected(), mpsc::channel());
        let (begin, begun) = mpsc::channel();
        let told_by = Told(tell);
        threads.take(server, move |_stream| async move {
            let _told_by = told_by;
            let _ = begin.send(());
            std::future::pending::<()>().await;
        });
        begun.recv_timeout(LIMIT).unwrap();
        assert!(told.try_recv().is_err());
        stop.cancel();
        ending.join();
        told.try_recv().unwrap();
        // Whoever comes now is let go.
        let (mut client, server) = connected();
        threads.take(server, |_| std::future::pending());
        client.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!(std::io::Read::read(&mut client, &mut [0]).unwrap(), 0);
    }

    #[test]
    fn one_that_hangs_does_not_hold_up_the_end() {
        let stop = CancellationToken::new();
        let (threads, ending) = Threads::start(8, &stop).unwrap();
        let (_client, server) = connected();
        let ((begin, begun), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
        threads.take(server, move |_stream| async move {
            let _ = begin.send(());
            // As a call of the system's that does not come back.
            let _ = released.recv();
        });
        begun.recv_timeout(LIMIT).unwrap();
        stop.cancel();
        let since = Instant::now();
        ending.join();
        assert!(since.elapsed() < LIMIT, "{:?}", since.elapsed());
        drop(release);
    }
}
