use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use entrepot_testkit::http::Response;
use entrepot_testkit::script::{Image, sha256};

use crate::common::{BEFORE_IT, Bench};

const PASSWORD: &str = "canary-correct-horse";

fn basic(user_and_password: &str) -> String {
    format!("Basic {}", STANDARD.encode(user_and_password))
}

async fn closed_bench(image: &Image) -> Bench {
    let digest = sha256(PASSWORD.as_bytes());
    let hash = digest.trim_start_matches("sha256:");
    let access = format!("{{ anonymous: false, tokens: [{{ name: \"ci\", sha256: \"{hash}\" }}] }}");
    let mut bench = Bench::setup().proxy("access", access).start();
    bench.mirror.canary(PASSWORD);
    bench.mirror.canary(STANDARD.encode(format!("ci:{PASSWORD}")));
    bench.upstream.serve_image("team/app", "1", image);
    for path in [format!("/v2/team/app/blobs/{}", image.layer_digests[0]), "/v2/team/app/manifests/1".into()]
    {
        let warm = bench.get(&path).header("authorization", basic(&format!("ci:{PASSWORD}"))).send().await;
        assert_eq!(warm.status, 200, "{warm:?}");
    }
    bench.settle();
    bench
}

fn assert_shut_out(answer: &Response, image: &Image, what: &str) {
    let refused = matches!(answer.status, 400 | 401 | 404 | 405 | 414 | 431);
    assert!(refused || BEFORE_IT.contains(&answer.status), "{what}: {answer:?}");
    assert_ne!(answer.digest, image.digest, "{what}");
    assert_ne!(answer.digest, image.layer_digests[0], "{what}");
}

/// T-HC4: who shows nothing gets nothing, however the request is spelt.
#[tokio::test(flavor = "multi_thread")]
async fn t_hc4_no_spelling_gets_past_the_door() {
    let image = Image::small(1);
    let bench = closed_bench(&image).await;
    let asked = bench.upstream.requests().len();
    let manifest = "/v2/team/app/manifests/1".to_owned();
    let blob = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
    let escaped = blob.replace("sha256:", "sha256%3A");
    for path in [&manifest, &blob, &escaped] {
        let get = bench.get(path).send().await;
        let head = bench.head(path).send().await;
        assert_eq!((get.status, head.status), (401, 401), "the same verdict for GET and HEAD");
        let challenge = get.header("www-authenticate").unwrap_or_default();
        assert!(challenge.contains(&bench.mirror.url()), "our own realm: {challenge}");
        assert_eq!(get.error_code(), "UNAUTHORIZED");
    }
    let spellings = [
        format!("{manifest}/"),
        manifest.replace("/manifests", "//manifests"),
        manifest.replace("team", "%74eam"),
        manifest.replace("/team/app", "/team%2fapp"),
        manifest.replace("/team", "/./team"),
        manifest.replace("/team", "/x/../team"),
        manifest.replace("/v2", "/V2"),
        manifest.replace("/v2", "/up.test/v2"),
        manifest.replace("/v2", "/v2/up.test"),
        format!("{manifest}?ns=up.test"),
        format!("{manifest}?token=x&access_token=x"),
        format!("{manifest};x=y"),
        format!("{manifest}%00"),
        format!("{blob}%20"),
        blob.replace("sha256:", "SHA256:"),
    ];
    for path in &spellings {
        for method in ["GET", "HEAD", "get", "OPTIONS", "POST", "PROPFIND", "TRACE"] {
            let answer = bench.request(method, path).send().await;
            let preflight = method == "OPTIONS" && answer.status == 204 && answer.length == 0;
            if !preflight {
                assert_shut_out(&answer, &image, &format!("{method} {path}"));
            }
        }
    }
    assert_eq!(bench.upstream.requests().len(), asked, "strangers cost no request upstream");
}

/// T-HC4: credentials of odd form are no credentials, and do not make the mirror stumble.
#[tokio::test(flavor = "multi_thread")]
async fn t_hc4_credentials_of_odd_form() {
    let image = Image::small(2);
    let bench = closed_bench(&image).await;
    let manifest = "/v2/team/app/manifests/1";
    let good = basic(&format!("ci:{PASSWORD}"));
    let million = "a".repeat(1_000_000);
    for value in [
        basic("ci:"),
        basic(":"),
        basic("ci"),
        basic(""),
        basic("a\0:wrong"),
        basic("ci:wrong\0"),
        basic(&format!("ci:{PASSWORD}\0")),
        basic(&format!("ci:{PASSWORD} ")),
        basic(&format!("ci:{}", &PASSWORD[..PASSWORD.len() - 1])),
        basic(&million),
        format!("Basic {million}"),
        format!("Bearer {million}"),
        "Basic".into(),
        "Basic ====".into(),
        "Basic not base64!".into(),
        "Bearer".into(),
        "Bearer null".into(),
        format!("Bearer {PASSWORD}."),
        "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJjaSJ9.".into(),
        "Negotiate AAAA".into(),
        format!("{good}, {good}"),
        "\u{0}".into(),
    ] {
        for method in ["GET", "HEAD"] {
            let shown: String = value.chars().take(60).collect();
            let call = bench.request(method, manifest).header("authorization", &value);
            match call.try_send().await {
                Ok(answer) => assert_shut_out(&answer, &image, &format!("{method} with {shown:?}")),
                // More than a head may hold: the connection may be gone before the answer can be read.
                Err(error) => assert!(value.len() > 500_000, "{method} with {shown:?}: {error}"),
            }
        }
    }
    for (first, second) in [(good.as_str(), "Basic AAAA"), ("Basic AAAA", good.as_str()), (&good, &good)] {
        let answer =
            bench.get(manifest).header("authorization", first).header("authorization", second).send().await;
        assert_shut_out(&answer, &image, "two Authorization headers");
    }
    // The scheme is case-insensitive (RFC 9110 §11.1), and the same verdict goes for every spelling of it.
    for scheme in ["Basic", "basic", "BASIC", "bAsIc"] {
        let value = good.replacen("Basic", scheme, 1);
        for method in ["GET", "HEAD"] {
            let answer = bench.request(method, manifest).header("authorization", &value).send().await;
            assert_eq!(answer.status, 200, "{scheme}: {answer:?}");
        }
    }
}
