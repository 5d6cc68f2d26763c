//! Logs: for people on a terminal, JSON otherwise; one line for each request.

use std::io::IsTerminal;
use std::time::Duration;

use entrepot_core::event::RequestLog;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// Sets logging up for the process; `ENTREPOT_LOG` says how much (`info`, `debug`, …).
pub fn init() {
    let filter = EnvFilter::try_from_env("ENTREPOT_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,hyper=warn,reqwest=warn"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_timer(SystemTime);
    // A process that already has a subscriber keeps it.
    let _ = if std::io::stderr().is_terminal() {
        builder.with_target(false).compact().try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
}

/// The line of one request. What clients wrote has been made fit for a log by core.
pub(crate) fn request(log: &RequestLog) {
    tracing::info!(
        target: "entrepot::request",
        client = log.client.as_deref().unwrap_or("-"),
        address = %log.address,
        method = log.method.label(),
        route = log.route.label(),
        path = %log.target,
        user_agent = log.user_agent.as_ref().map(tracing::field::display),
        source = log.source.as_deref(),
        status = log.status,
        verdict = log.verdict.map(|verdict| verdict.label()),
        reason = log.reason.map(|reason| reason.label()),
        detail = log.internal.as_ref().map(tracing::field::display),
        bytes = log.bytes,
        upstream_bytes = log.upstream_bytes,
        first_byte_ms = millis(log.first_byte),
        total_ms = millis(log.total),
        aborted = log.aborted,
        "request"
    );
}

/// With three decimals, so that a line says no more than it knows.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
