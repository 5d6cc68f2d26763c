//! Threads that serve connections. Each has a runtime of its own, and a connection stays with one of them: what wakes it,
//! reads from it and writes to it shares a processor's caches, and no thread has to be woken to take work from another.
//! What outlives a request is a job, and jobs are the main runtime's.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Further threads of each that wait for the disk, at least.
const DISK_THREADS: usize = 4;

/// See the module. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct Threads(Arc<[Thread]>);

#[derive(Debug)]
struct Thread {
    runtime: Handle,
    /// Each of its connections holds it.
    held: Arc<()>,
}

/// What waits for [`Threads`] to end.
#[derive(Debug)]
pub(crate) struct Ending(Vec<JoinHandle<()>>);

impl Threads {
    /// Starts one for each processor that the process may use. They serve until `stop`, and have about `disk_threads` that wait
    /// for the disk between them.
    ///
    /// # Errors
    /// When the system gives no more threads or descriptors.
    pub(crate) fn start(disk_threads: usize, stop: &CancellationToken) -> io::Result<(Threads, Ending)> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let disk_threads = (disk_threads / count).max(DISK_THREADS);
        let started = (0..count).map(|_| Thread::start(disk_threads, stop.clone()));
        let (threads, ending): (Vec<_>, _) = started.collect::<io::Result<Vec<_>>>()?.into_iter().unzip();
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
    fn start(disk_threads: usize, stop: CancellationToken) -> io::Result<(Thread, JoinHandle<()>)> {
        let runtime =
            Builder::new_current_thread().enable_all().max_blocking_threads(disk_threads).build()?;
        let handle = runtime.handle().clone();
        let running = thread::Builder::new().name("connections".into()).spawn(move || {
            runtime.block_on(stop.cancelled());
            // A disk that hangs is not waited for.
            runtime.shutdown_background();
        })?;
        Ok((Thread { runtime: handle, held: Arc::default() }, running))
    }
}

impl Ending {
    /// Waits until they have ended: what they still served by then is cut off, and logged. Blocks.
    pub(crate) fn join(self) {
        for thread in self.0 {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread::ThreadId;
    use std::time::Duration;

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
}
