//! What stands before every registry: it counts, it can be stopped, and it may send blobs elsewhere, as S3 does.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION, RANGE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sha2::{Digest as _, Sha256};

use super::image::hex;
use super::listener::{Body, Handler, Listener, answer};

/// How long a signed link is good for, in seconds.
const LINK_LIFE: u64 = 300;

/// One request that reached a registry or its blob host.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: Option<String>,
    pub status: u16,
    /// The `Range` header.
    pub range: Option<String>,
    /// Whether the request carried `Authorization`.
    pub authorized: bool,
    /// Whether it reached the host that blobs were redirected to.
    pub blob_host: bool,
    sent: Arc<AtomicU64>,
}

impl Seen {
    /// Bytes of the body handed to the connection so far.
    pub fn bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The digest, when this was a request for a blob.
    pub fn blob(&self) -> Option<&str> {
        let (_, digest) = self.path.rsplit_once("/blobs/")?;
        digest.contains(':').then_some(digest)
    }
}

pub(crate) type Log = Arc<Mutex<Vec<Seen>>>;

/// What lets the blob host into a registry that wants tokens: from a repository's name to a token for it.
pub(crate) type Pass = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// What a gateway does with a request for a blob.
#[derive(Clone)]
pub(crate) enum Role {
    /// Hands it to the registry.
    Registry,
    /// Answers a GET that the registry would serve with 307 to `blob_host`, by a link signed with `key`.
    Redirecting { blob_host: SocketAddr, key: String },
    /// Is that host: takes signed links only, and refuses `Authorization` with 400.
    BlobHost { key: String, pass: Pass },
}

/// Listens on a free port of `ip`, before the registry at `backend`.
pub(crate) fn gateway(ip: std::net::IpAddr, backend: SocketAddr, role: Role, log: Log) -> Listener {
    let client: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new()).build_http();
    let gate = Arc::new(Gate { backend, role, log, client });
    let handler: Handler = Arc::new(move |request| {
        let gate = gate.clone();
        Box::pin(async move { gate.handle(request).await })
    });
    Listener::start(ip, handler)
}

struct Gate {
    backend: SocketAddr,
    role: Role,
    log: Log,
    client: Client<HttpConnector, Body>,
}

impl Gate {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let sent = Arc::new(AtomicU64::new(0));
        let mut seen = Seen {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().map(str::to_owned),
            status: 0,
            range: header(RANGE),
            authorized: request.headers().contains_key(AUTHORIZATION),
            blob_host: matches!(self.role, Role::BlobHost { .. }),
            sent: sent.clone(),
        };
        let response = self.reply(request, &seen).await;
        seen.status = response.status().as_u16();
        self.log.lock().expect("no holder panics").push(seen);
        response.map(|inner| Counted { inner, sent }.boxed())
    }

    async fn reply(&self, request: Request<Incoming>, seen: &Seen) -> Response<Body> {
        let mut request = request.map(BodyExt::boxed);
        match &self.role {
            Role::Registry => {}
            Role::Redirecting { blob_host, key } => {
                if request.method() == Method::GET && seen.blob().is_some() {
                    let granted = self.forward(as_head(&request)).await;
                    if granted.status() == StatusCode::OK {
                        let link = format!("http://{blob_host}{}", sign(&seen.path, key, now() + LINK_LIFE));
                        return answer(StatusCode::TEMPORARY_REDIRECT, &[(LOCATION.as_str(), &link)], "");
                    }
                }
            }
            Role::BlobHost { key, pass } => {
                if let Some(refusal) = refuse(seen, key) {
                    return refusal;
                }
                let repository =
                    seen.path.trim_start_matches("/v2/").split("/blobs/").next().unwrap_or_default();
                let token = format!("Bearer {}", pass(repository));
                let token = HeaderValue::from_str(&token).expect("a token is ASCII");
                request.headers_mut().insert(AUTHORIZATION, token);
            }
        }
        self.forward(request).await
    }

    async fn forward(&self, mut request: Request<Body>) -> Response<Body> {
        let target = request.uri().path_and_query().map_or("/", |p| p.as_str());
        let Ok(uri) = format!("http://{}{target}", self.backend).parse::<Uri>() else {
            return answer(StatusCode::BAD_REQUEST, &[], "bad target");
        };
        *request.uri_mut() = uri;
        match self.client.request(request).await {
            Ok(response) => response.map(BodyExt::boxed),
            Err(e) => {
                answer(StatusCode::BAD_GATEWAY, &[], format!("the registry behind does not answer: {e}"))
            }
        }
    }
}

/// The same request as a HEAD.
fn as_head(request: &Request<Body>) -> Request<Body> {
    let mut head = Request::new(Empty::new().map_err(|never| match never {}).boxed());
    *head.method_mut() = Method::HEAD;
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    head
}

/// `path` with an expiry (Unix seconds) and the signature of both.
fn sign(path: &str, key: &str, expires: u64) -> String {
    let signature = hex(&Sha256::digest(format!("{key}\n{path}\n{expires}")));
    format!("{path}?X-Expires={expires}&X-Signature={signature}")
}

fn refuse(seen: &Seen, key: &str) -> Option<Response<Body>> {
    let xml = |status, code: &str| {
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code></Error>");
        Some(answer(status, &[("content-type", "application/xml")], body))
    };
    if seen.authorized {
        return xml(StatusCode::BAD_REQUEST, "InvalidArgument");
    }
    if seen.method != "GET" {
        // A link is signed for the method it was asked for with.
        return xml(StatusCode::FORBIDDEN, "SignatureDoesNotMatch");
    }
    let query = seen.query.as_deref().unwrap_or_default();
    let expires =
        query.strip_prefix("X-Expires=").and_then(|q| q.split('&').next()).and_then(|e| e.parse().ok());
    match expires {
        Some(expires) if expires < now() => xml(StatusCode::FORBIDDEN, "AccessDenied"),
        Some(expires) if sign(&seen.path, key, expires) == format!("{}?{query}", seen.path) => None,
        _ => xml(StatusCode::FORBIDDEN, "SignatureDoesNotMatch"),
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A body whose bytes are counted as they leave.
struct Counted {
    inner: Body,
    sent: Arc<AtomicU64>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(data)) = &frame
            && let Some(data) = data.data_ref()
        {
            self.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
