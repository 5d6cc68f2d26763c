use std::time::Duration;

use entrepot_testkit::http::raw;
use entrepot_testkit::script::Image;

use crate::common::Bench;

const QUIET: Duration = Duration::from_secs(2);
const SMUGGLED: &str = "GET /v2/smuggled/app/manifests/canary HTTP/1.1\r\nHost: HOST\r\n\r\n";

/// Requests with another one hidden behind them. `TARGET` is a path that is served from the cache.
fn corpus() -> Vec<(&'static str, String)> {
    let hidden = SMUGGLED;
    // The address has five digits of port.
    let n = hidden.replace("HOST", "127.0.0.1:00000").len();
    let start = "GET TARGET HTTP/1.1\r\nHost: HOST\r\n";
    let chunk = format!("{n:x}\r\n{hidden}\r\n0\r\n\r\n");
    let behind = format!("0\r\n\r\n{hidden}");
    let both = n + 5;
    let mut cases = vec![
        ("CL.TE", format!("{start}Content-Length: {both}\r\nTransfer-Encoding: chunked\r\n\r\n{behind}")),
        ("TE.CL", format!("{start}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{chunk}")),
        ("CL.0 on a hit", format!("{start}Content-Length: {n}\r\n\r\n{hidden}")),
        ("a chunked body on GET", format!("{start}Transfer-Encoding: chunked\r\n\r\n{chunk}")),
        (
            "POST with a body",
            format!("POST TARGET HTTP/1.1\r\nHost: HOST\r\nContent-Length: {n}\r\n\r\n{hidden}"),
        ),
        ("two lengths", format!("{start}Content-Length: 0\r\nContent-Length: {n}\r\n\r\n{hidden}")),
        ("two lengths, turned", format!("{start}Content-Length: {n}\r\nContent-Length: 0\r\n\r\n{hidden}")),
        (
            "HTTP/1.0 with chunks",
            format!("GET TARGET HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n{behind}"),
        ),
        ("a bare LF", format!("{start}X-A: b\n\n{hidden}")),
        ("only bare LF", format!("GET TARGET HTTP/1.1\nHost: HOST\nContent-Length: 0\n\n{hidden}")),
        ("a bare CR", format!("{start}X-A: b\rContent-Length: {n}\r\n\r\n{hidden}")),
        ("a folded length", format!("{start}Content-Length:\r\n {n}\r\n\r\n{hidden}")),
        ("a folded coding", format!("{start}Transfer-Encoding:\r\n chunked\r\n\r\n{behind}")),
        (
            "a folded first line",
            format!("GET TARGET HTTP/1.1\r\n Host: HOST\r\nContent-Length: {n}\r\n\r\n{hidden}"),
        ),
        (
            "an upgrade to h2c",
            format!(
                "{start}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\
                 Content-Length: {n}\r\n\r\n{hidden}"
            ),
        ),
        (
            "a websocket",
            format!(
                "{start}Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: {n}\r\n\r\n{hidden}"
            ),
        ),
        (
            "a chunk extension with a line break",
            format!("{start}Transfer-Encoding: chunked\r\n\r\n2;\n{n:x}\r\n{hidden}\r\n0\r\n\r\n"),
        ),
        ("a chunk that is negative", format!("{start}Transfer-Encoding: chunked\r\n\r\n-1\r\n{hidden}")),
        ("a chunk in 0x", format!("{start}Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{hidden}")),
        (
            "a chunk of 2^64",
            format!("{start}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n{hidden}"),
        ),
        ("chunks ended by LF", format!("{start}Transfer-Encoding: chunked\r\n\r\n0\n\n{hidden}")),
        ("a NUL in the coding", format!("{start}Transfer-Encoding: chunked\0\r\n\r\n{behind}")),
        ("a coding in quotes", format!("{start}Transfer-Encoding: \"chunked\"\r\n\r\n{behind}")),
    ];
    for length in ["+5", "5,5", "5, 6", "-1", "0x5", "5 5", "5;", "\"5\"", "18446744073709551616", "5e0", ""]
    {
        cases.push(("a length of odd form", format!("{start}Content-Length: {length}\r\n\r\n{behind}")));
    }
    for coding in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunk",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "Transfer_Encoding: x\r\nTransfer-Encoding: gzip, chunked",
    ] {
        cases.push(("TE.TE", format!("{start}{coding}\r\nContent-Length: {both}\r\n\r\n{behind}")));
        cases.push(("TE alone", format!("{start}{coding}\r\n\r\n{behind}")));
    }
    cases
}

/// T-HC3
#[tokio::test(flavor = "multi_thread")]
async fn t_hc3_nothing_is_smuggled_behind_a_request() {
    let bench = Bench::new();
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "1", &image);
    let warm = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
    assert_eq!(bench.get(&warm).send().await.digest, image.layer_digests[0]);
    let host = bench.mirror.address().to_string();

    let mut wrong = Vec::new();
    for target in ["/v2/", warm.as_str()] {
        for (name, text) in corpus() {
            let text = text.replace("HOST", &host).replace("TARGET", target);
            let answer = raw(bench.mirror.address(), text.as_bytes(), QUIET).await;
            let statuses = answer.statuses();
            // Exactly one answer, and a refusal that closes the connection.
            if statuses.len() != 1 || (statuses[0] == 400 && !answer.closed) {
                wrong.push(format!("{name}: {text:?} is answered {statuses:?}, closed: {}", answer.closed));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let asked = bench.upstream.summary();
    assert!(!asked.iter().any(|line| line.contains("smuggled")), "{asked:#?}");
    assert_eq!(bench.get("/v2/?last").send().await.status, 200);
    let log = bench.mirror.log_with(&["/v2/?last"]);
    assert!(!log.contains("/v2/smuggled"), "the router saw it:\n{log}");
}

/// T-HC3: two honest requests on one connection are two requests, or the test above would prove nothing.
#[tokio::test(flavor = "multi_thread")]
async fn t_hc3_honest_pipelining_works() {
    let bench = Bench::new();
    let ping = format!("GET /v2/ HTTP/1.1\r\nHost: {}\r\n\r\n", bench.mirror.address());
    let answer = raw(bench.mirror.address(), ping.repeat(2).as_bytes(), QUIET).await;
    assert_eq!(answer.statuses(), [200, 200]);
}
