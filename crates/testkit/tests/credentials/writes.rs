use std::time::Duration;

use entrepot_testkit::script::{Image, sha256};

use crate::accounts::{access, auth, client_basic, watch};
use crate::common::Bench;

/// T-AZ9: nobody writes, known or not, whatever a header or parameter says of the method.
#[tokio::test(flavor = "multi_thread")]
async fn t_az9_known_clients_do_not_write_either() {
    let bench = watch(
        Bench::setup().source("auth", auth()).source("public", "[\"**\"]").proxy("access", access()).start(),
    );
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "latest", &image);
    let blob = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
    for path in ["/v2/team/app/manifests/latest", &blob] {
        assert_eq!(bench.get(path).send().await.status, 200);
    }
    bench
        .mirror
        .wait_until(Duration::from_secs(5), "both are stored", |mirror| mirror.stored_files().len() == 2);
    let held = bench.mirror.store_hash();
    let asked = bench.upstream.requests().len();
    let digest = sha256(b"x");
    for path in [
        "/v2/team/app/manifests/latest".to_owned(),
        format!("/v2/team/app/manifests/{}", image.digest),
        format!("/v2/team/app/blobs/{}", image.layer_digests[0]),
        "/v2/team/app/blobs/uploads/".to_owned(),
        "/v2/team/app/blobs/uploads/1234".to_owned(),
        format!("/v2/team/app/blobs/uploads/?mount={}&from=team/secret", image.layer_digests[0]),
        format!("/v2/team/app/blobs/uploads/?digest={digest}"),
        "/v2/team/app/tags/list".to_owned(),
        format!("/v2/team/app/referrers/{digest}"),
    ] {
        for method in ["PUT", "POST", "PATCH", "DELETE"] {
            for known in [false, true] {
                let mut call = bench
                    .request(method, &path)
                    .header("x-http-method-override", "GET")
                    .body(image.manifest.clone());
                if known {
                    call = call.basic(&client_basic());
                }
                let answer = call.send().await;
                assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
                assert_eq!(answer.error_code(), "UNSUPPORTED", "{method} {path}");
            }
        }
        // The other way round, a read stays a read.
        let answer = bench
            .get(&path)
            .header("x-http-method-override", "DELETE")
            .header("x-method-override", "PUT")
            .basic(&client_basic())
            .send()
            .await;
        assert!(matches!(answer.status, 200 | 404 | 405 | 502), "{path}: {answer:?}");
    }
    let wrote = bench
        .upstream
        .requests()
        .iter()
        .skip(asked)
        .any(|request| !matches!(request.method.as_str(), "GET" | "HEAD"));
    assert!(!wrote, "{:?}", bench.upstream.summary());
    let _ = bench.upstream.take_unexpected();
    assert_eq!(bench.mirror.store_hash(), held);
}
