//! A door before the Worker for clients that try TLS first.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// The first byte of a TLS handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
/// Bytes that are moved at once.
const CHUNK: usize = 256 << 10;

/// Passes connections on to a Worker, but for those that begin in TLS, which it closes as most servers of plain HTTP do.
/// The Worker's runtime waits for what comes next, and most clients give up after ten seconds, for each connection.
pub struct Door {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Door {
    /// On a free port of 127.0.0.1, before `behind`.
    pub fn before(behind: SocketAddr) -> Door {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("testkit")
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let listener = runtime.block_on(TcpListener::bind(any)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        runtime.spawn(async move {
            loop {
                if let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(pass(client, behind));
                }
            }
        });
        Door { address, runtime: Some(runtime) }
    }

    /// `127.0.0.1:<port>`
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("address", &self.address).finish_non_exhaustive()
    }
}

async fn pass(mut client: TcpStream, behind: SocketAddr) {
    let mut first = [0];
    if !matches!(client.peek(&mut first).await, Ok(1)) || first[0] == HANDSHAKE {
        return;
    }
    let Ok(mut behind) = TcpStream::connect(behind).await else { return };
    let _ = client.set_nodelay(true).and_then(|()| behind.set_nodelay(true));
    // However it ends, both ends learn of it.
    let _ = copy_bidirectional_with_sizes(&mut client, &mut behind, CHUNK, CHUNK).await;
}
