use entrepot_testkit::script::{Method, Reply};
use serde_json::json;

use crate::common::{Bench, TOO_LONG};

const TAGS: &str = "/v2/team/app/tags/list";

/// An upstream with 3000 tags, which it pages as the spec says.
fn serve_tags(bench: &Bench) {
    bench.upstream.on(Method::Get, TAGS).reply_with(|request| {
        let last = request.query_param("last").unwrap_or_default();
        let n = request.query_param("n").and_then(|text| text.parse::<usize>().ok()).unwrap_or(100).min(1000);
        let tags: Vec<String> =
            (0..3000).map(|i| format!("v{i:04}")).filter(|tag| tag.as_str() > last.as_str()).collect();
        let page: Vec<&String> = tags.iter().take(n).collect();
        let reply = Reply::json(200, &json!({"name": "team/app", "tags": page}));
        match page.last() {
            Some(end) if page.len() < tags.len() => {
                reply.header("link", format!("<{TAGS}?n={n}&last={end}>; rel=\"next\""))
            }
            _ => reply,
        }
    });
}

/// T-HC6
#[tokio::test(flavor = "multi_thread")]
async fn t_hc6_page_sizes_and_starts() {
    let bench = Bench::new();
    serve_tags(&bench);
    assert_eq!(bench.get(TAGS).send().await.status, 200);
    let before = bench.mirror.rss_anon_kb();
    let long = format!("last={}", "a".repeat(100_000));
    let queries = [
        "n=1",
        "n=1000",
        "n=1001",
        "n=10000000000",
        "n=9223372036854775808",
        "n=18446744073709551616",
        "n=-1",
        "n=+5",
        "n=abc",
        "n=1.5",
        "n=1e3",
        "n=0x10",
        "n=",
        "n=%31%30",
        "n=5&n=100000000",
        "n=%00",
        "n",
        "last=",
        "last=v0100",
        "last=%00",
        "last=%0d%0aX-Evil:%201",
        "last=../../etc/passwd",
        "last=%F0%9F%92%A9",
        "last=%22%3E%3Cscript%3E",
        "last=a&last=b",
        "n=5&last=zzzz",
        "N=5",
        long.as_str(),
    ];
    for query in queries {
        let answer = bench.get(format!("{TAGS}?{query}")).send().await;
        let shown = format!("{query:.60}: {answer:?}");
        match answer.status {
            200 => {
                let tags = answer.json()["tags"].as_array().map_or(0, Vec::len);
                assert!(tags <= 1000, "{tags} tags for {shown}");
                assert!(answer.header("x-evil").is_none());
                if let Some(link) = answer.header("link") {
                    assert!(!link.contains('\r') && !link.contains("script"), "{shown}");
                    assert!(!link.contains(&bench.upstream.host()), "{shown}");
                }
            }
            status if TOO_LONG.contains(&status) => assert!(query.len() > 10_000, "{shown}"),
            status => {
                assert_eq!(status, 400, "{shown}");
                assert!(!answer.error_code().is_empty());
            }
        }
    }
    for request in bench.upstream.requests() {
        let n: Option<u64> = request.query_param("n").and_then(|text| text.parse().ok());
        assert!(n.is_none_or(|n| n <= 1000), "upstream is asked for {n:?} at once");
    }
    let grown = bench.mirror.rss_anon_kb().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} kB more");
}

/// T-HC6
#[tokio::test(flavor = "multi_thread")]
async fn t_hc6_no_tags_asked_for_none_given() {
    let bench = Bench::new();
    serve_tags(&bench);
    let answer = bench.get(format!("{TAGS}?n=0")).send().await;
    assert_eq!((answer.status, answer.header("link")), (200, None), "{answer:?}");
    assert_eq!(answer.json(), json!({"name": "team/app", "tags": []}));
}

/// T-HC6: the pages follow one another to the end, through our own links.
#[tokio::test(flavor = "multi_thread")]
async fn t_hc6_every_page_once() {
    let bench = Bench::new();
    serve_tags(&bench);
    let mut path = format!("{TAGS}?n=700");
    let mut all = Vec::new();
    loop {
        let answer = bench.get(&path).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        assert_eq!(json["name"], "team/app");
        all.extend(
            json["tags"]
                .as_array()
                .expect("tags")
                .iter()
                .map(|tag| tag.as_str().unwrap_or_default().to_owned()),
        );
        let Some(link) = answer.header("link") else { break };
        let target = link.split(['<', '>']).nth(1).expect("a target in the link");
        path = target.strip_prefix(&bench.mirror.url()).unwrap_or(target).to_owned();
        assert!(path.starts_with(TAGS), "{link}");
    }
    assert_eq!(all, (0..3000).map(|i| format!("v{i:04}")).collect::<Vec<_>>());
}
