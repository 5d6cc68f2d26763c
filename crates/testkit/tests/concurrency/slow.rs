use std::time::{Duration, Instant};

use entrepot_testkit::limits::{RssWatch, raise_open_files};
use entrepot_testkit::script::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::common::Bench;
use crate::{Blob, asked, connected};

/// Slow readers at most; fewer where the limit on open files does not allow as many.
const READERS: usize = 5000;
const BLOBS: usize = 20;
const SIZE: u64 = 6_000_000;
/// What a reader may hold in the mirror, in KiB: a connection with its buffers, and one chunk.
const EACH: u64 = 48;

/// T-OL2
#[tokio::test(flavor = "multi_thread")]
async fn t_ol2_thousands_of_slow_readers() {
    // Here a socket each; in the mirror, which inherits the limit, a quarter of it are connections.
    let files = raise_open_files() as usize;
    let readers = READERS.min(files / 4 - 16).min(files - 500);
    let mut bench = Bench::new();
    let blobs: Vec<Blob> = (0..BLOBS).map(|i| Blob::new(i as u64, SIZE)).collect();
    for blob in &blobs {
        bench.upstream.serve_blob("team/app", blob.body.clone());
        assert_eq!(bench.get(&blob.path).discard().send().await.digest, blob.digest);
    }
    connected(&bench, 0).await;
    let before = bench.mirror.rss_anon_kb();
    let watch = RssWatch::start(bench.mirror.pid());
    let mut slow = Vec::with_capacity(readers);
    for i in 0..readers {
        slow.push(slow_reader(&bench, &blobs[i % BLOBS].path).await);
    }
    connected(&bench, readers).await;
    let grown = watch.peak_kb().saturating_sub(before);
    println!("T-OL2: {readers} slow readers: RssAnon +{grown} kB, {} kB each", grown / readers as u64);
    assert!(grown < readers as u64 * EACH + 32 * 1024, "{grown} kB for {readers} readers");

    let quick = bench.get(&blobs[0].path).discard().send().await;
    assert_eq!((quick.clean_end, &quick.digest), (true, &blobs[0].digest), "others are served meanwhile");
    assert!(quick.total < Duration::from_secs(20), "{:?}", quick.total);
    // A reader that comes to life again has not lost a byte.
    for stream in slow.into_iter().take(3) {
        assert_eq!(rest(stream).await, SIZE);
    }
    // The allocator keeps what thousands of connections left behind for those to come: more than a test may leave.
    bench.mirror.kill9();
}

/// Asks, reads a few bytes of the head, and no more for now.
async fn slow_reader(bench: &Bench, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(bench.mirror.address()).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.expect("a head");
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

/// Bytes of body in what is left.
async fn rest(mut stream: TcpStream) -> u64 {
    let mut head = Vec::new();
    let end = loop {
        assert!(stream.read_buf(&mut head).await.expect("the answer goes on") > 0);
        if let Some(at) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let mut all = (head.len() - end) as u64;
    let mut buffer = vec![0; 64 * 1024];
    while let n @ 1.. = stream.read(&mut buffer).await.expect("the answer goes on") {
        all += n as u64;
    }
    all
}

/// T-OL2, T-CC2: the first reader of a cold blob reads nothing, and the second has it at full speed all the same.
#[tokio::test(flavor = "multi_thread")]
async fn t_ol2_a_stalled_first_reader_holds_up_nobody() {
    let bench = Bench::new();
    let blob = Blob::new(100, 60_000_000);
    bench.upstream.serve_blob("team/app", blob.body.clone());
    let stalled = slow_reader(&bench, &blob.path).await;
    let since = Instant::now();
    let second = bench.get(&blob.path).discard().send().await;
    assert_eq!((second.clean_end, &second.digest), (true, &blob.digest));
    println!("T-OL2: {} MB behind a stalled first reader in {:?}", blob.size / 1_000_000, since.elapsed());
    // It is stored although its first reader has next to nothing of it.
    bench.mirror.wait_until(Duration::from_secs(10), "the blob is stored", |mirror| {
        mirror.stored_files().iter().any(|file| file.starts_with("blobs"))
    });
    assert_eq!(asked(&bench.upstream, &blob.path), ["GET"]);
    assert_eq!(bench.upstream.count(Method::Any, "/v2/*"), 1);
    assert_eq!(rest(stalled).await, blob.size, "and the first has it when it wants it");
}
