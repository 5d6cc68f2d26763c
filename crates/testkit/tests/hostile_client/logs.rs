use std::time::Duration;

use entrepot_testkit::http::raw;
use entrepot_testkit::script::Image;
use serde_json::Value;

use crate::common::Bench;

/// Text that would break a record out of its line, its quotes or its colours.
const NASTY: &[&str] = &[
    "\"},{\"level\":\"error\",\"msg\":\"forged",
    "a\u{1b}[31mred\u{1b}[0m",
    "a\tb",
    "%0d%0a2026-01-01 INFO forged=1",
    "\u{202e}detsrever",
    "\u{2028}line",
    "{{7*7}}${jndi:ldap://evil}",
    "\\\\\\\"",
    "%1b]0;title%07",
];

/// The records that speak of a request: those that have a status, at the top or among `fields`.
fn request_records(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line:?}")))
        .filter(|record| record.get("status").or(record.pointer("/fields/status")).is_some())
        .collect()
}

/// T-HC9
#[tokio::test(flavor = "multi_thread")]
async fn t_hc9_one_escaped_record_for_each_request() {
    let bench = Bench::new();
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "1", &image);
    assert_eq!(bench.get("/v2/team/app/manifests/1").send().await.status, 200);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begin = bench.mirror.log().len();

    let mut sent = 0;
    let host = bench.mirror.address();
    for nasty in NASTY {
        let spaceless = nasty.replace([' ', '\t'], "+");
        for request in [
            format!("GET /v2/team/app/manifests/1 HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {nasty}\r\n"),
            format!(
                "GET /v2/team/app/manifests/1 HTTP/1.1\r\nHost: {host}\r\ntraceparent: {nasty}\r\nX-Request-Id: {nasty}\r\n"
            ),
            format!(
                "GET /v2/team/app/manifests/1 HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {nasty}\r\n"
            ),
            format!("GET /v2/team/app/manifests/1 HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: {nasty}\r\n"),
            format!("GET /v2/{spaceless}/manifests/1 HTTP/1.1\r\nHost: {host}\r\n"),
            format!("GET /v2/team/app/manifests/{spaceless} HTTP/1.1\r\nHost: {host}\r\n"),
            format!(
                "GET /v2/team/app/tags/list?last={spaceless} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: x\r\n"
            ),
        ] {
            let text = format!("{request}Connection: close\r\n\r\n");
            let answer = raw(host, text.as_bytes(), Duration::from_secs(5)).await;
            // What is not HTTP at all is refused before it is a request; it may leave no record.
            let refused_unread = answer.responses().iter().all(|(_, body)| body.is_empty());
            sent += usize::from(!refused_unread);
        }
    }
    let records = || request_records(&bench.mirror.log()[begin..]);
    bench.mirror.wait_until(Duration::from_secs(5), "a record for each request", |_| records().len() >= sent);
    assert_eq!(records().len(), sent, "one record each:\n{}", &bench.mirror.log()[begin..]);
    let log = bench.mirror.log();
    for forbidden in ['\u{1b}', '\r', '\u{7}', '\u{202e}', '\u{2028}'] {
        assert!(!log[begin..].contains(forbidden), "{forbidden:?} in the log:\n{}", &log[begin..]);
    }
    assert!(!records().iter().any(|record| record["level"] == "error" && record["msg"] == "forged"));
    let _ = bench.upstream.take_unexpected();
}
