//! The operator's own address: `/healthz`, `/readyz`, `/metrics`. Never on the public one.

use std::convert::Infallible;

use bytes::Bytes;
use entrepot_core::upstream::Breaker;
use entrepot_engine::Engine;
use entrepot_engine::ports::Host;
use http::{Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::host::Native;

/// Answers until `stop`. `draining`: the process is about to end, so no new pulls should come.
pub(crate) async fn serve(
    listener: TcpListener,
    engine: Engine<Native>,
    draining: CancellationToken,
    stop: CancellationToken,
) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = stop.cancelled() => return,
        };
        let (engine, draining) = (engine.clone(), draining.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&engine, &draining, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            // A connection that breaks is the scraper's business.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn answer(
    engine: &Engine<Native>,
    draining: &CancellationToken,
    request: &http::Request<Incoming>,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => ready(engine, draining),
        "/metrics" => {
            let host = engine.host();
            let mut response = text(StatusCode::OK, &host.metrics().text(host.store()));
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                header::HeaderValue::from_static(
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                ),
            );
            response
        }
        _ => text(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n"),
    }
}

/// 503 while pulls suffer: the disk is not usable, or the process is about to end. An upstream that is away is told, and
/// is no reason to take us out of service: what is held is served.
fn ready(engine: &Engine<Native>, draining: &CancellationToken) -> Response<Full<Bytes>> {
    let host = engine.host();
    let mut lines = Vec::new();
    let mut status = StatusCode::OK;
    if draining.is_cancelled() {
        status = StatusCode::SERVICE_UNAVAILABLE;
        lines.push("draining: no new pulls".to_owned());
    }
    if host.store().healthy() {
        lines.push("store: ok".to_owned());
    } else {
        status = StatusCode::SERVICE_UNAVAILABLE;
        lines.push(
            "store: the disk does not take objects; pulls go straight through (see the log)".to_owned(),
        );
    }
    let now = host.now();
    for upstream in host.state(|state| state.health(now)) {
        let breaker = match upstream.breaker {
            Breaker::Closed => "ok",
            Breaker::Open { .. } => "failing; not asked for a moment, what is held is served",
            Breaker::HalfOpen => "failing; being tried again",
        };
        lines.push(format!("upstream {}: {breaker}", upstream.origin.as_str()));
    }
    lines.push(String::new());
    text(status, &lines.join("\n"))
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_owned()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
