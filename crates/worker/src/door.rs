//! Requests in, answers out.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use entrepot_core::access::MAX_TOKEN_BODY;
use entrepot_core::answer::Answer;
use entrepot_core::event::RequestLog;
use entrepot_engine::{Engine, Reply};
use http::header::{CONTENT_LENGTH, HeaderName};
use http::request::Parts;
use http::{HeaderMap, Uri};
use wasm_bindgen::JsValue;
use web_sys::ResponseInit;
use worker::{Context, Env, Request, Response};

use crate::host::{Edge, Site};
use crate::isolate;
use crate::log;
use crate::metrics;
use crate::objects::Body;
use crate::outward;
use crate::spawn::Spawn;

/// The client's address, which the platform sets.
const ADDRESS: &str = "cf-connecting-ip";
/// Says by which configuration an answer was made.
const STAMP: HeaderName = HeaderName::from_static("entrepot-config");

/// Answers one request.
pub(crate) async fn answer(mut request: Request, env: Env, context: Context) -> worker::Result<Response> {
    let isolate = match isolate::enter(&env) {
        Ok(isolate) => isolate,
        Err(problems) => return refused(&problems),
    };
    let since = isolate::now().wall;
    let edge = Edge::new(isolate, env, Spawn::Request(Rc::new(context)), Site::Request)?;
    let head = head(&request)?;
    if let ("GET" | "HEAD", "/healthz") = (head.method.as_str(), head.uri.path()) {
        return healthy(&edge, head.method == http::Method::HEAD);
    }
    let colo = request.cf().map_or_else(|| "-".to_owned(), |cf| cf.colo());
    let form = form(&head, &mut request).await;
    let (engine, peer) = (Engine::new(edge.clone()), peer(&head));
    let reply = match engine.watcher(&head, peer) {
        Some(watcher) => engine.told(&watcher, metrics::text(&edge).await),
        None => engine.serve(&head, form, peer).await,
    };
    let Reply { answer, body, facts } = reply;
    let mut log = facts.log(edge.configuration(), &head, answer.status);
    let response = respond(&edge, &head, answer, body, &mut log).await?;
    log.total = isolate::now().wall.since(since);
    log::request(&edge, &log, &colo);
    let after = edge.clone();
    edge.spawn().run(async move {
        after.recall().await;
        after.remember().await;
    });
    Ok(response)
}

/// Answers a request whose work was lost.
pub(crate) fn panicked(request: &Request, env: Env, context: Context) -> worker::Result<Response> {
    let isolate = match isolate::enter(&env) {
        Ok(isolate) => isolate,
        Err(problems) => return refused(&problems),
    };
    let edge = Edge::new(isolate, env, Spawn::Request(Rc::new(context)), Site::Request)?;
    let head = head(request)?;
    let Reply { answer, facts, .. } = Engine::new(edge.clone()).panicked(peer(&head));
    let mut log = facts.log(edge.configuration(), &head, answer.status);
    let response = whole(&edge, &head, &answer, &mut log)?;
    log::request(&edge, &log, "-");
    Ok(response)
}

fn peer(head: &Parts) -> IpAddr {
    let address = head.headers.get(ADDRESS).and_then(|address| address.to_str().ok()?.parse().ok());
    address.unwrap_or(UNKNOWN)
}

/// Nobody's address.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What was deployed cannot be used: nothing is served, and the log says why.
fn refused(problems: &str) -> worker::Result<Response> {
    worker::console_error!("the configuration is refused:\n{problems}");
    let body =
        r#"{"errors":[{"code":"UNAVAILABLE","message":"this mirror is not configured; its log says why"}]}"#;
    let mut response = Response::from_bytes(body.as_bytes().to_vec())?.with_status(503);
    response.headers_mut().set("content-type", "application/json")?;
    Ok(response)
}

fn healthy(edge: &Edge, head_only: bool) -> worker::Result<Response> {
    let mut response = if head_only { Response::empty()? } else { Response::ok("ok\n")? };
    response.headers_mut().set("cache-control", "no-store")?;
    response.headers_mut().set(STAMP.as_str(), &edge.isolate().stamp)?;
    Ok(response)
}

/// The request as the engine reads it. The runtime has checked the framing and undone dot segments.
fn head(request: &Request) -> worker::Result<Parts> {
    let url = request.url()?;
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    // What is no target for HTTP is nothing of ours either.
    let uri = target.parse::<Uri>().unwrap_or_default();
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.method = http::Method::from_bytes(request.method().to_string().as_bytes()).unwrap_or_default();
    head.uri = uri;
    head.headers = outward::headers(&request.headers().0).unwrap_or_default();
    Ok(head)
}

async fn form(head: &Parts, request: &mut Request) -> Option<Bytes> {
    let announced: usize = head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    if head.method != http::Method::POST || announced > MAX_TOKEN_BODY {
        return None;
    }
    request.bytes().await.ok().filter(|bytes| bytes.len() <= MAX_TOKEN_BODY).map(Bytes::from)
}

async fn respond(
    edge: &Arc<Edge>,
    head: &Parts,
    answer: Answer,
    body: Option<Body>,
    log: &mut RequestLog,
) -> worker::Result<Response> {
    match body {
        None => whole(edge, head, &answer, log),
        Some(body) => {
            let stream = match body {
                Body::Whole(stream) => stream,
                Body::Part { objects, digest, span } => match objects.part(&digest, span).await {
                    Some(stream) => Some(stream),
                    None => {
                        objects.forget(&digest).await;
                        return gone(edge, head, log);
                    }
                },
            };
            log.bytes = announced(&answer.headers);
            built(edge, &answer, |init| {
                web_sys::Response::new_with_opt_readable_stream_and_init(stream.as_ref(), init)
            })
        }
    }
}

/// An answer whose body is at hand.
fn whole(edge: &Edge, head: &Parts, answer: &Answer, log: &mut RequestLog) -> worker::Result<Response> {
    let has_body = !answer.body.is_empty() && head.method != http::Method::HEAD;
    log.bytes = if has_body { answer.body.len() as u64 } else { 0 };
    let array = has_body.then(|| js_sys::Uint8Array::from(answer.body.as_ref()));
    built(edge, answer, |init| web_sys::Response::new_with_opt_js_u8_array_and_init(array.as_ref(), init))
}

/// An object left the store between the look and the read: the next request fetches it anew.
fn gone(edge: &Arc<Edge>, head: &Parts, log: &mut RequestLog) -> worker::Result<Response> {
    let failure = Engine::new(edge.clone()).lost();
    log.status = failure.status.as_u16();
    whole(edge, head, &failure, log)
}

fn built(
    edge: &Edge,
    answer: &Answer,
    make: impl FnOnce(&ResponseInit) -> Result<web_sys::Response, JsValue>,
) -> worker::Result<Response> {
    let headers = web_sys::Headers::new()?;
    for (name, value) in &answer.headers {
        // Of the connection, which is the platform's.
        if name == http::header::CONNECTION {
            continue;
        }
        if let Ok(value) = value.to_str() {
            headers.append(name.as_str(), value)?;
        }
    }
    headers.set(STAMP.as_str(), &edge.isolate().stamp)?;
    let init = ResponseInit::new();
    init.set_status(answer.status.as_u16());
    init.set_headers(&headers);
    Ok(make(&init)?.into())
}

fn announced(headers: &HeaderMap) -> u64 {
    headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0)
}
