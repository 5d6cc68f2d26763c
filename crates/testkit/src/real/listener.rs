//! A small HTTP/1.1 server that can be stopped, with every live connection cut, and started again on the same port.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, JoinSet};

use super::process::until;

pub(crate) type Body = BoxBody<Bytes, hyper::Error>;
pub(crate) type Handler =
    Arc<dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync>;

/// A listener on a runtime of its own.
pub(crate) struct Listener {
    address: SocketAddr,
    /// Bound for as long as the listener lives, and never listening: while it is stopped, connections are refused and
    /// nobody else can be given the port.
    _reserve: Socket,
    handler: Handler,
    runtime: Option<Runtime>,
    accepting: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on a free port of `ip`.
    pub(crate) fn start(ip: IpAddr, handler: Handler) -> Listener {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("testkit")
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let reserve = bind(SocketAddr::new(ip, 0));
        let address =
            reserve.local_addr().ok().and_then(|a| a.as_socket()).expect("a bound socket has an address");
        let mut listener =
            Listener { address, _reserve: reserve, handler, runtime: Some(runtime), accepting: None };
        listener.restart();
        listener
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Refuses from now on, and cuts every connection.
    pub(crate) fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            assert!(until(Duration::from_secs(5), || accepting.is_finished()), "the listener did not stop");
        }
    }

    /// Listens again on the same port.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let runtime = self.runtime.as_ref().expect("the runtime lives until drop");
        let socket = bind(self.address);
        socket.listen(1024).expect("a bound socket can listen");
        socket.set_nonblocking(true).expect("a socket can be made non-blocking");
        let socket = std::net::TcpListener::from(socket);
        let handler = self.handler.clone();
        self.accepting = Some(runtime.spawn(async move {
            let socket = TcpListener::from_std(socket).expect("the socket is non-blocking");
            accept(socket, handler).await;
        }));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A socket that shares its port with others of ours.
fn bind(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket can be made");
    let shared = socket.set_reuse_address(true).and_then(|()| socket.set_reuse_port(true));
    shared
        .and_then(|()| socket.bind(&address.into()))
        .unwrap_or_else(|e| panic!("cannot bind {address}: {e}"));
    socket
}

async fn accept(socket: TcpListener, handler: Handler) {
    // Dropping the set with this task is what cuts the connections.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = socket.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// An answer of our own.
pub(crate) fn answer(status: StatusCode, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed();
    response.body(body).expect("the headers of a test server are valid")
}
