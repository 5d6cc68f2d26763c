//! One line of JSON for each request, a point for Analytics Engine, and the errors that KV keeps for a while.

use std::time::Duration;

use entrepot_core::event::RequestLog;
use serde_json::{Value, json};
use worker::{AnalyticsEngineDataPointBuilder, Env};

use crate::host::{Edge, KV};
use crate::isolate;

const DATASET: &str = "METRICS";
/// Errors that one isolate keeps are so many milliseconds apart: KV takes a thousand writes a day on the free plan.
const APART: u64 = 10_000;

/// Writes the request down. `colo` is the data centre that answers.
pub(crate) fn request(edge: &Edge, log: &RequestLog, colo: &str) {
    let line = line(edge, log, colo);
    worker::console_log!("{line}");
    edge.isolate().notes.borrow_mut().request(log);
    point(edge.env(), log, colo);
    if log.status >= 500 {
        keep(edge, &line);
    }
}

/// The same names as at home.
fn line(edge: &Edge, log: &RequestLog, colo: &str) -> Value {
    json!({
        "message": "request",
        "client": log.client.as_deref().unwrap_or("-"),
        "address": log.address.to_string(),
        "method": log.method.label(),
        "route": log.route.label(),
        "path": log.target.as_str(),
        "user_agent": log.user_agent.as_ref().map(|agent| agent.as_str()),
        "source": log.source.as_deref(),
        "status": log.status,
        "verdict": log.verdict.map(|verdict| verdict.label()),
        "reason": log.reason.map(|reason| reason.label()),
        "detail": log.internal.as_ref().map(|internal| internal.as_str()),
        "bytes": log.bytes,
        "total_ms": millis(log.total),
        "colo": colo,
        "config": edge.isolate().stamp,
        "subrequests": edge.tally().used(),
    })
}

fn point(env: &Env, log: &RequestLog, colo: &str) {
    let Ok(dataset) = env.analytics_engine(DATASET) else { return };
    let source = log.source.as_deref().unwrap_or("-");
    let texts = [
        log.verdict.map_or("-", |verdict| verdict.label()),
        source,
        colo,
        log.route.label(),
        log.reason.map_or("-", |reason| reason.label()),
    ];
    let point = AnalyticsEngineDataPointBuilder::new()
        .indexes([source])
        .blobs(texts)
        .doubles([f64::from(log.status), log.bytes as f64, millis(log.total)])
        .build();
    if let Err(error) = dataset.write_data_point(&point) {
        worker::console_error!("no point was written: {error}");
    }
}

/// Under the time, so that a list of keys tells what went wrong when.
fn keep(edge: &Edge, line: &Value) {
    let isolate = edge.isolate();
    let now = isolate::now().wall;
    if now.since(isolate.error_kept.get()) < Duration::from_millis(APART) {
        return;
    }
    isolate.error_kept.set(now);
    let Ok(kv) = edge.env().kv(KV) else { return };
    let at = js_sys::Date::new(&(now.0 as f64).into()).to_iso_string();
    let ttl = isolate.config.edge.error_ttl.as_secs();
    edge.tally().note();
    let put = kv.put(&format!("error:{}", String::from(at)), line.to_string());
    edge.spawn().run(async move {
        let kept = match put {
            Ok(put) => put.expiration_ttl(ttl).execute().await,
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            worker::console_error!("an error is not kept: {error}");
        }
    });
}

fn millis(duration: Duration) -> f64 {
    duration.as_millis() as f64
}
