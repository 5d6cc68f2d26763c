//! Requests to upstreams.
//!
//! No redirect is followed, nothing is decoded and no header added here: core decides all of that. What only a host can
//! see is checked here: the addresses that a name resolves to, before a connection is made to one of them.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use entrepot_core::net::is_public;
use entrepot_core::upstream::{Fault, Outbound, SMALL_WITHIN, SmallFault, Trust};
use entrepot_engine::ports::Http;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Connections that are kept open to one upstream while nobody needs them.
const IDLE_CONNECTIONS: usize = 16;
const IDLE_FOR: Duration = Duration::from_secs(60);
/// A pause that lets other work give descriptors back.
const EXHAUSTED: Duration = Duration::from_millis(50);
/// The largest head of an answer over HTTP/2, in bytes; over HTTP/1 at most [`HEADERS`] lines.
const HEAD: u32 = 64 * 1024;
const HEADERS: usize = 128;

/// One pool of connections for each way of trusting, so that what one source may do never serves another.
#[derive(Debug, Default)]
pub(crate) struct Client {
    pools: Mutex<HashMap<Pool, reqwest::Client>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pool {
    insecure: bool,
    allow_private: bool,
    /// Each request has a connection of its own while it lasts: over HTTP/2 they would share one.
    apart: bool,
    connect: Duration,
}

/// A body on its way in.
#[derive(Debug)]
pub(crate) struct Incoming {
    body: reqwest::Body,
    /// The longest pause that [`Client::read_small`] puts up with.
    stall: Duration,
}

#[cfg(test)]
impl Incoming {
    /// What a test sends: pieces, and at the end perhaps a break.
    pub(crate) fn of(
        pieces: impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static,
    ) -> Incoming {
        use futures_util::TryStreamExt as _;
        let frames = pieces.map_ok(http_body::Frame::data);
        Incoming {
            body: reqwest::Body::wrap(http_body_util::StreamBody::new(frames)),
            stall: Duration::from_secs(1),
        }
    }
}

impl Incoming {
    /// The next bytes; `None` at the end. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Some(Ok(data));
                    }
                }
                Err(error) => return Some(Err(fault(&error))),
            }
        }
    }
}

impl Client {
    fn pool(&self, request: &Outbound) -> Result<reqwest::Client, reqwest::Error> {
        let Outbound { trust: Trust { insecure, allow_private }, apart, connect, .. } = *request;
        let pool = Pool { insecure, allow_private, apart, connect };
        if let Some(client) = self.pools.lock().get(&pool) {
            return Ok(client.clone());
        }
        let client = pool.build()?;
        Ok(self.pools.lock().entry(pool).or_insert(client).clone())
    }
}

impl Pool {
    fn build(self) -> Result<reqwest::Client, reqwest::Error> {
        let builder = reqwest::Client::builder();
        let builder = if self.apart { builder.http1_only() } else { builder };
        builder
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(self.connect)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_FOR)
            .http1_max_headers(HEADERS)
            .http2_max_header_list_size(HEAD)
            .http2_adaptive_window(true)
            .tcp_nodelay(true)
            .tls_danger_accept_invalid_certs(self.insecure)
            .tls_danger_accept_invalid_hostnames(self.insecure)
            .dns_resolver(Resolver { allow_private: self.allow_private })
            .build()
    }
}

impl Http for Client {
    type Body = Incoming;

    async fn send(&self, request: Outbound) -> Result<(http::response::Parts, Incoming), Fault> {
        let client = self.pool(&request).map_err(|error| {
            tracing::error!(error = %causes(&error), "no client for upstream requests can be made");
            Fault::Tls
        })?;
        let mut built = reqwest::Request::new(request.method, request.url);
        *built.headers_mut() = request.headers;
        *built.body_mut() = request.body.map(Into::into);
        let answer =
            tokio::time::timeout(request.connect + request.first_byte, execute(&client, built)).await;
        let response = answer.map_err(|_| Fault::Timeout)?.map_err(|error| {
            let fault = fault(&error);
            tracing::debug!(error = %causes(&error.without_url()), "an upstream request failed");
            fault
        })?;
        let (head, body) = http::Response::<reqwest::Body>::from(response).into_parts();
        let stall = request.stall;
        Ok((head, Incoming { body, stall }))
    }

    async fn read_small(&self, mut body: Incoming, max: usize) -> Result<Bytes, SmallFault> {
        let mut bytes = BytesMut::new();
        let stall = body.stall;
        let all = async {
            loop {
                let next = tokio::time::timeout(stall, body.next()).await;
                let Some(chunk) = next.map_err(|_| SmallFault::Broken)? else {
                    break;
                };
                let chunk = chunk.map_err(|_| SmallFault::Broken)?;
                if bytes.len() + chunk.len() > max {
                    return Err(SmallFault::TooLarge);
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes.freeze())
        };
        tokio::time::timeout(SMALL_WITHIN, all).await.unwrap_or(Err(SmallFault::Broken))
    }
}

/// Resolves as the system does, and drops what is not public unless the source allows it. The connection goes to an
/// address that was checked here, so a name that resolves differently a moment later changes nothing.
#[derive(Debug)]
struct Resolver {
    allow_private: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` resolves to private addresses only; set `allow_private: true` on the source if that is meant")]
struct PrivateAddress(String);

#[derive(Debug, thiserror::Error)]
#[error("`{0}` cannot be resolved: {1}")]
struct Unresolved(String, #[source] std::io::Error);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0))
                .await
                .map_err(|error| Unresolved(host.clone(), error))?;
            let found: Vec<SocketAddr> =
                found.filter(|address| allow_private || is_public(address.ip())).collect();
            if found.is_empty() {
                return Err(Box::from(PrivateAddress(host)));
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Waits while the process is out of descriptors: that is no fault of upstream's, and nothing to hold against it.
async fn execute(client: &reqwest::Client, request: reqwest::Request) -> reqwest::Result<reqwest::Response> {
    loop {
        // Bodies are bytes, which can be sent again.
        let Some(again) = request.try_clone() else {
            return client.execute(request).await;
        };
        match client.execute(again).await {
            Err(error) if is_exhausted(&error) => tokio::time::sleep(EXHAUSTED).await,
            other => return other,
        }
    }
}

fn is_exhausted(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        let code = current.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        if matches!(code, Some(libc::EMFILE | libc::ENFILE)) {
            return true;
        }
        cause = current.source();
    }
    false
}

/// What went wrong, read from the chain of causes.
fn fault(error: &reqwest::Error) -> Fault {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if current.is::<PrivateAddress>() {
            return Fault::PrivateAddress;
        }
        if current.is::<Unresolved>() {
            return Fault::Dns;
        }
        if current.is::<rustls::Error>() {
            return Fault::Tls;
        }
        // An I/O error that wraps another error has that one's source for its own, and would hide it.
        if let Some(io) = current.downcast_ref::<std::io::Error>()
            && let Some(inner) = io.get_ref()
        {
            cause = Some(inner);
            continue;
        }
        if let Some(hyper) = current.downcast_ref::<hyper::Error>()
            && hyper.is_parse()
        {
            return Fault::BadFraming;
        }
        cause = current.source();
    }
    if error.is_timeout() {
        Fault::Timeout
    } else if error.is_connect() {
        Fault::Connect
    } else {
        Fault::Reset
    }
}

/// The whole chain in one line.
fn causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        text.push_str(": ");
        text.push_str(&current.to_string());
        cause = current.source();
    }
    text
}
