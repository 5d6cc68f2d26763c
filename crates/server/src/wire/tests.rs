use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use entrepot_engine::ports::{Blobs as _, Stored as _};
use entrepot_oci::Digest;
use entrepot_oci::range::ByteSpan;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};

use super::*;
use crate::store::{BodyBroken, Data, Limits, Pieces, Store};

/// More than the sockets of both sides take.
const SIZE: usize = 24 << 20;
const SMALL: &[u8] = b"a small answer";

/// A stored object, and a server of it.
struct Served {
    bytes: Bytes,
    digest: Digest,
    store: Store,
    dir: tempfile::TempDir,
    address: SocketAddr,
}

/// Serves by hyper, which may flatten what it writes: `/7-99` is that span of the object, and all else a small answer.
async fn served(writev: bool) -> Served {
    // No zero among them: what no file holds would show.
    let bytes: Bytes = (0..SIZE).map(|at| (at % 251) as u8 + 1).collect::<Vec<_>>().into();
    let digest = Digest::sha256(&bytes);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Limits { max_size: 1 << 30, keep: None }).unwrap();
    store.keep(digest, bytes.clone()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let of = store.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (lane, store) = (Lane::default(), of.clone());
            let wire = Wire::new(stream, lane.clone());
            let service = service_fn(move |request| answer(store.clone(), digest, request, lane.clone()));
            let mut builder = http1::Builder::new();
            builder.pipeline_flush(false).writev(writev);
            drop(tokio::spawn(builder.serve_connection(TokioIo::new(wire), service)));
        }
    });
    Served { bytes, digest, store, dir, address }
}

async fn answer(
    store: Store,
    digest: Digest,
    request: Request<Incoming>,
    lane: Lane,
) -> Result<Response<StreamBody<impl futures_util::Stream<Item = Result<Frame<Data>, BodyBroken>>>>, Infallible>
{
    let span = request.uri().path()[1..].split_once('-');
    let (length, pieces): (u64, Pieces) = match span {
        Some((start, end)) => {
            let span = ByteSpan { start: start.parse().unwrap(), end: end.parse().unwrap() };
            let object = store.stored(digest).await.unwrap();
            (span.end - span.start, object.body(span).over(Some(lane)))
        }
        None => {
            let small = Ok(Data::Bytes(Bytes::from_static(SMALL)));
            (SMALL.len() as u64, Box::pin(stream::iter([small])))
        }
    };
    let response = Response::builder().header("content-length", length);
    Ok(response.body(StreamBody::new(pieces.map(|piece| piece.map(Frame::data)))).unwrap())
}

impl Served {
    /// What comes for these targets, asked for at once, up to the end of the connection; read in small pieces at first.
    async fn pipelined(&self, targets: &[&str]) -> Vec<u8> {
        let mut stream = self.asked(targets).await;
        let mut got = Vec::new();
        let mut buffer = vec![0; 3000];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            got.extend_from_slice(&buffer[..read]);
            buffer.resize((buffer.len() * 2).min(1 << 20), 0);
        }
        got
    }

    /// A connection that has asked for these targets.
    async fn asked(&self, targets: &[&str]) -> tokio::net::TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        for (at, target) in targets.iter().enumerate() {
            let close = if at + 1 == targets.len() { "connection: close\r\n" } else { "" };
            let request = format!("GET /{target} HTTP/1.1\r\nhost: x\r\n{close}\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
        }
        stream
    }
}

/// Takes one answer's head and body off what came.
fn answer_in<'a>(got: &mut &'a [u8]) -> &'a [u8] {
    let end = got.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let head = std::str::from_utf8(&got[..end]).expect("a head").to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let length: usize = length.expect("a length").parse().unwrap();
    let body = &got[end..got.len().min(end + length)];
    *got = &got[end + body.len()..];
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_go_out_among_other_bytes() {
    let served = served(true).await;
    let spans: [Option<Range<usize>>; 9] = [
        Some(0..SIZE),
        None,
        Some(1..2),
        Some(SIZE - 40_001..SIZE),
        None,
        None,
        Some(4095..3 << 20),
        Some((1 << 20) - 1..(2 << 20) + 10_000),
        None,
    ];
    let targets = spans.iter().map(|span| match span {
        Some(span) => format!("{}-{}", span.start, span.end),
        None => "small".into(),
    });
    let targets: Vec<String> = targets.collect();
    let got = served.pipelined(&targets.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut got = &got[..];
    for span in spans {
        let expected = span.clone().map_or(SMALL, |span| &served.bytes[span]);
        assert!(answer_in(&mut got) == expected, "{span:?}");
    }
    assert_eq!(got.len(), 0, "and nothing behind the last");
}

/// hyper would copy what stands for a window into a buffer of its own. The client gets none of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_copied_window_breaks_the_connection() {
    let served = served(false).await;
    let got = served.pipelined(&[&format!("0-{SIZE}")]).await;
    assert_eq!(got.len(), 0, "{:?}", String::from_utf8_lossy(&got));
}

/// T-DF2: what is no longer there is missing, and the file is not served again. (Cut in the middle of a page, the kernel
/// would clear the rest of that page, in the socket as well.)
#[tokio::test(flavor = "multi_thread")]
async fn t_df2_a_file_that_is_cut_while_it_is_sent() {
    let served = served(true).await;
    let mut stream = served.asked(&[&format!("0-{SIZE}")]).await;
    let mut got = vec![0; 100_000];
    stream.read_exact(&mut got).await.unwrap();
    let hex = served.digest.hex();
    let file = served.dir.path().join("blobs/sha256").join(&hex[..2]).join(hex);
    std::fs::File::options().write(true).open(&file).unwrap().set_len(0).unwrap();
    let _ = stream.read_to_end(&mut got).await;
    let mut got = &got[..];
    let body = answer_in(&mut got);
    assert!(body.len() < SIZE && served.bytes.starts_with(body), "{} bytes", body.len());
    assert_eq!(served.store.counts().quarantined.load(Ordering::Relaxed), 1);
    assert!(!file.exists());
}

/// A client that has gone is no reason to doubt the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_breaks_nothing() {
    let served = served(true).await;
    let mut stream = served.asked(&[&format!("0-{SIZE}")]).await;
    stream.read_exact(&mut [0; 100_000]).await.unwrap();
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    let got = served.pipelined(&[&format!("0-{SIZE}")]).await;
    assert!(answer_in(&mut &got[..]) == served.bytes);
    assert_eq!(served.store.counts().quarantined.load(Ordering::Relaxed), 0);
}
