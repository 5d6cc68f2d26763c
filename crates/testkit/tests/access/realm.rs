//! Where clients are sent to log in.

use entrepot_testkit::script::Image;

use super::guarded::{CLOSED, OPEN, one_token, serve, setup, start};

const FORGED: &str = "evil.example";

/// T-CR9: the realm is the configured endpoint, whatever a request says of hosts and schemes.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr9_the_realm_is_the_configured_endpoint() {
    for endpoint in ["https://mirror.example", "https://mirror.example:8443", "http://mirror.example/"] {
        let setup = setup().proxy("endpoint", endpoint).behind_a_proxy().proxy("access", one_token(""));
        let bench = start(setup);
        let mut paths = serve(&bench.upstream, CLOSED, &Image::small(1));
        paths.push("/v2/".to_owned());
        let realm = format!("Bearer realm=\"{}/token\"", endpoint.trim_end_matches('/'));
        let service = endpoint.trim_end_matches('/').split("//").nth(1).unwrap_or_default().to_owned();
        for path in &paths {
            for trusted in [false, true] {
                for host in [FORGED, "mirror.example", "evil.example:443", "127.0.0.1", "[::1]:80"] {
                    let call = bench
                        .get(path)
                        .host(host)
                        .header("x-forwarded-host", FORGED)
                        .header("x-forwarded-proto", "gopher")
                        .header("x-forwarded-port", "666")
                        .header("x-forwarded-server", FORGED)
                        .header("x-original-host", FORGED)
                        .header("x-host", FORGED)
                        .header("forwarded", format!("for=10.0.0.1;host={FORGED};proto=gopher"))
                        .header("origin", format!("https://{FORGED}"))
                        .header("referer", format!("https://{FORGED}/"));
                    let call = if trusted { call.header("x-forwarded-for", "192.0.2.1") } else { call };
                    let answer = call.send().await;
                    assert_eq!(answer.status, 401, "{host} {path}: {answer:?}");
                    let challenge = answer.header("www-authenticate").unwrap_or_default();
                    assert!(challenge.starts_with(&realm), "{host} {path}: {challenge}");
                    assert!(challenge.contains(&format!("service=\"{service}\"")), "{challenge}");
                    let all = format!("{:?} {}", answer.head.headers, answer.text());
                    assert!(!all.contains("evil") && !all.contains("gopher"), "{all}");
                }
            }
        }
    }
}

/// T-CR9: nor do our links to further pages go anywhere else.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr9_links_stay_with_us() {
    let bench = start(setup());
    serve(&bench.upstream, OPEN, &Image::small(2));
    let path = format!("/v2/{OPEN}/tags/list");
    let tags: Vec<String> = (0..9).map(|n| format!("t{n}")).collect();
    bench.upstream.on(entrepot_testkit::script::Method::Get, &path).reply_with(move |_| {
        let list = serde_json::json!({"name": OPEN, "tags": &tags});
        entrepot_testkit::script::Reply::json(200, &list).header(
            "link",
            format!("<https://{FORGED}{path}?n=3&last=t2>; rel=\"next\"", path = "/v2/open/app/tags/list"),
        )
    });
    let answer = bench
        .get(format!("/v2/{OPEN}/tags/list?n=3"))
        .host(FORGED)
        .header("x-forwarded-host", FORGED)
        .send()
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let link = answer.header("link").expect("a link to the next page");
    assert!(link.starts_with(&format!("</v2/{OPEN}/tags/list?")), "{link}");
    assert!(!format!("{:?}", answer.head.headers).contains("evil"), "{answer:?}");
}
