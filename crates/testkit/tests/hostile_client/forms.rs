use std::time::Duration;

use entrepot_testkit::http::{Raw, raw};
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::common::Bench;

const QUIET: Duration = Duration::from_secs(3);

async fn send(bench: &Bench, text: &str) -> Raw {
    raw(bench.mirror.address(), text.replace("HOST", &bench.mirror.address().to_string()).as_bytes(), QUIET)
        .await
}

/// T-HC1
#[tokio::test(flavor = "multi_thread")]
async fn t_hc1_forms_of_a_request_that_are_not_for_us() {
    let bench = Bench::new();
    for text in [
        "GET http://HOST/v2/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET http://evil.example/v2/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "GET https://registry-1.docker.io/v2/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET HOST HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "CONNECT HOST HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET /v2/\r\n\r\n",
        "GET /v2/ HTTP/1.0\r\nHost: HOST\r\n\r\n",
        "GET /v2/ HTTP/1.0\r\n\r\n",
        "GET /v2/ HTTP/2.0\r\nHost: HOST\r\n\r\n",
        "GET /v2/ HTTP/1.2\r\nHost: HOST\r\n\r\n",
        "GET /v2/ HTTP/9.9\r\nHost: HOST\r\n\r\n",
        "GET /v2/ http/1.1\r\nHost: HOST\r\n\r\n",
        "get /v2/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "Get /v2/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET\t/v2/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET v2/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "G\0T /v2/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ] {
        let answer = send(&bench, text).await;
        let statuses = answer.statuses();
        assert!(statuses.len() == 1 && matches!(statuses[0], 400 | 405 | 505), "{text:?}: {}", answer.text());
        assert!(answer.closed, "{text:?} leaves the connection open: {}", answer.text());
    }
    assert_eq!(bench.upstream.connections(), 0);
}

/// T-HC1: the preface of HTTP/2 with an HTTP/1 request behind it is neither.
#[tokio::test(flavor = "multi_thread")]
async fn t_hc1_a_preface_with_something_else_behind_it() {
    let bench = Bench::new();
    let answer =
        send(&bench, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: HOST\r\n\r\n").await;
    assert!(!answer.text().contains("HTTP/1.1 200"), "{}", answer.text());
    assert!(answer.closed);
    let answer = send(&bench, "PRI * HTTP/2.0\r\nHost: HOST\r\n\r\n").await;
    assert!(!answer.text().contains("HTTP/1.1 200"), "{}", answer.text());
    assert!(answer.closed);
}

/// T-HC2
#[tokio::test(flavor = "multi_thread")]
async fn t_hc2_hosts_that_are_none() {
    let bench = Bench::new();
    let long = format!("Host: {}\r\n", "a".repeat(300));
    for lines in [
        "",
        "Host:\r\n",
        "Host: HOST\r\nHost: HOST\r\n",
        "Host: HOST\r\nHost: evil.example\r\n",
        "Host: HOST/v2/\r\n",
        "Host: HOST?ns=docker.io\r\n",
        "Host: HOST#x\r\n",
        "Host: docker.io@HOST\r\n",
        "Host: user:pass@HOST\r\n",
        "Host: HOST evil.example\r\n",
        "Host: HOST, evil.example\r\n",
        "Host: a b\r\n",
        "Host: a:b\r\n",
        "Host: a:99999\r\n",
        "Host: a:80:80\r\n",
        "Host: [::1\r\n",
        "Host: [not-an-address]\r\n",
        "Host: http://HOST/\r\n",
        "Host: a\\b\r\n",
        "Host: a%2fb\r\n",
        "Host: \u{ff41}.example\r\n",
        &long,
    ] {
        let answer = send(&bench, &format!("GET /v2/ HTTP/1.1\r\n{lines}\r\n")).await;
        let statuses = answer.statuses();
        assert!(statuses.len() == 1 && matches!(statuses[0], 400 | 421), "{lines:?}: {}", answer.text());
        let (head, body) = &answer.responses()[0];
        // What is refused before it is a request at all may have no body; ours are in the registry's words.
        if !body.is_empty() {
            assert_eq!(head.header("content-type"), Some("application/json"), "{lines:?}: {}", answer.text());
        }
    }
    assert_eq!(bench.upstream.connections(), 0);
}

/// T-HC2: HTTP/2 says the host twice.
#[tokio::test(flavor = "multi_thread")]
async fn t_hc2_authority_and_host_disagree() {
    let bench = Bench::new();
    let own = bench.mirror.address().to_string();
    for (host, expected) in [(None, 200), (Some(own.as_str()), 200), (Some("evil.example"), 400)] {
        let socket = tokio::net::TcpStream::connect(bench.mirror.address()).await.expect("a connection");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
                .await
                .expect("HTTP/2");
        let driver = tokio::spawn(connection);
        let mut request = Request::get(format!("http://{own}/v2/"));
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).expect("a request");
        let status = sender.send_request(request).await.expect("an answer").status().as_u16();
        assert!(status == expected || (expected == 400 && status == 421), "{host:?}: {status}");
        driver.abort();
    }
}
