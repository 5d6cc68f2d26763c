//! Clients that take different types of manifest, at one tag.

use entrepot_testkit::http::Response;
use entrepot_testkit::script::{Image, Method, Reply, media};

use crate::common::{Bench, FIRST_OF_MANY, assert_error};

const TAG: &str = "/v2/team/app/manifests/latest";

/// What a client sends, and whether it takes an OCI index, an OCI manifest, a Docker list, a Docker manifest.
fn classes() -> Vec<(Option<String>, [bool; 4])> {
    let all = [media::INDEX, media::MANIFEST, media::DOCKER_LIST, media::DOCKER_MANIFEST];
    let flood: Vec<String> = (0..200).map(|n| format!("application/vnd.invented.v{n}+json")).collect();
    let text = |text: &str| Some(text.to_owned());
    vec![
        (None, [true; 4]),
        (text("*/*"), [true; 4]),
        (text("application/*"), [true; 4]),
        (Some(all.join(", ")), [true; 4]),
        (Some(all.join(",")), [true; 4]),
        (Some(all.map(str::to_uppercase).join(", ")), [true; 4]),
        (text(media::INDEX), [true, false, false, false]),
        (text(media::MANIFEST), [false, true, false, false]),
        (text(media::DOCKER_LIST), [false, false, true, false]),
        (text(media::DOCKER_MANIFEST), [false, false, false, true]),
        (Some(format!("{};q=0.5, {};q=0.1", media::INDEX, media::MANIFEST)), [true, true, false, false]),
        (Some(format!("*/*;q=0.1, {};q=0", media::INDEX)), [false, true, true, true]),
        (Some(format!("*/*, {};q=0.000", media::DOCKER_LIST)), [true, true, false, true]),
        (Some(flood.join(", ")), [false; 4]),
        (Some(format!("{}, {}", flood.join(", "), media::MANIFEST)), [false, true, false, false]),
        (text("text/html, application/json"), [false; 4]),
        (text("application/vnd.docker.distribution.manifest.v1+prettyjws"), [false; 4]),
    ]
}

#[track_caller]
fn check(answer: &Response, takes: bool, media_type: &str, digest: &str, what: &str) {
    if takes {
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some(media_type), "{what}");
        assert_eq!(answer.header("docker-content-digest"), Some(digest), "{what}");
    } else {
        assert_eq!(answer.status, 404, "{what}: {answer:?}");
        if answer.length > 0 {
            assert_error(answer, 404, "MANIFEST_UNKNOWN");
            let message = answer.json()["errors"][0]["message"].to_string();
            assert!(message.contains(media_type) && message.contains("Accept"), "it says why: {message}");
        }
    }
}

fn contents() -> [(usize, &'static str, Vec<u8>); 4] {
    let image = Image::small(1);
    let index = Image::index(std::slice::from_ref(&image));
    let retyped = |bytes: &[u8], from: &str, to: &str| {
        String::from_utf8_lossy(bytes).replacen(from, to, 1).into_bytes()
    };
    let docker_list = retyped(&index, media::INDEX, media::DOCKER_LIST);
    let docker_manifest = retyped(&image.manifest, media::MANIFEST, media::DOCKER_MANIFEST);
    [
        (0, media::INDEX, index),
        (1, media::MANIFEST, image.manifest),
        (2, media::DOCKER_LIST, docker_list),
        (3, media::DOCKER_MANIFEST, docker_manifest),
    ]
}

/// T-CP3: whoever came before, each client gets a type that it takes, or is told why not.
#[tokio::test(flavor = "multi_thread")]
async fn t_cp3_each_client_gets_a_type_it_takes() {
    let classes = classes();
    for (kind, media_type, bytes) in contents() {
        // Who comes first, and so fills the cache: with GET, and with HEAD.
        for first in [3, 0, 6, 13, 16].into_iter().take(FIRST_OF_MANY) {
            for first_method in ["GET", "HEAD"] {
                let bench = Bench::new();
                let digest = bench.upstream.serve_manifest("team/app", "latest", &bytes, media_type);
                let mut order: Vec<usize> = (0..classes.len()).collect();
                order.rotate_left(first);
                for (turn, class) in order.into_iter().enumerate() {
                    let (accept, takes) = &classes[class];
                    let methods = if turn == 0 { [first_method, first_method] } else { ["HEAD", "GET"] };
                    for method in methods {
                        let call = bench.request(method, TAG);
                        let call = accept.iter().fold(call, |call, accept| call.header("accept", accept));
                        let answer = call.send().await;
                        let what =
                            format!("{method} with {accept:.60?}, first was {first} by {first_method}");
                        check(&answer, takes[kind], media_type, &digest, &what);
                        if answer.status == 200 && method == "GET" {
                            assert_eq!(answer.digest, digest, "{what}");
                        }
                    }
                }
                assert!(
                    bench.upstream.count(Method::Get, TAG) <= 1,
                    "one copy serves all: {:?}",
                    bench.upstream.summary()
                );
            }
        }
    }
}

/// T-CP3: several `Accept` headers are one list.
#[tokio::test(flavor = "multi_thread")]
async fn t_cp3_several_headers_are_one_list() {
    let bench = Bench::new();
    let (_, media_type, bytes) = contents()[0].clone();
    let digest = bench.upstream.serve_manifest("team/app", "latest", &bytes, media_type);
    let answer = bench.get(TAG).header("accept", media::MANIFEST).header("accept", media::INDEX).send().await;
    check(&answer, true, media_type, &digest, "two headers");
}

/// T-CP3: a digest leaves no choice, so it is served as it is.
#[tokio::test(flavor = "multi_thread")]
async fn t_cp3_a_digest_is_what_it_is() {
    for (_, media_type, bytes) in contents() {
        let bench = Bench::new();
        let digest = bench.upstream.serve_manifest("team/app", "", &bytes, media_type);
        for (accept, _) in classes() {
            let call = bench.get(format!("/v2/team/app/manifests/{digest}"));
            let call = accept.iter().fold(call, |call, accept| call.header("accept", accept));
            check(&call.send().await, true, media_type, &digest, "by digest");
        }
    }
}

/// T-CP3: a registry that answers by `Accept` is asked for everything, by whomever: one tag has one meaning.
#[tokio::test(flavor = "multi_thread")]
async fn t_cp3_a_registry_that_negotiates_is_always_asked_for_all() {
    let image = Image::small(2);
    let index = Image::index(std::slice::from_ref(&image));
    for accept in [media::MANIFEST, media::INDEX, "*/*"] {
        let bench = Bench::new();
        let (small, large) = (image.manifest.clone(), index.clone());
        bench.upstream.on(Method::Read, TAG).reply_with(move |request| {
            let takes_index = request.header("accept").is_some_and(|accept| accept.contains(media::INDEX));
            if takes_index {
                Reply::manifest(&large, media::INDEX)
            } else {
                Reply::manifest(&small, media::MANIFEST)
            }
        });
        bench.upstream.serve_image("team/app", "", &image);
        let first = bench.get(TAG).header("accept", accept).send().await;
        assert_eq!(first.status, if accept == media::MANIFEST { 404 } else { 200 }, "{first:?}");
        let capable = bench.get(TAG).header("accept", media::INDEX).send().await;
        assert_eq!(capable.header("content-type"), Some(media::INDEX), "after {accept}: {capable:?}");
        for request in bench.upstream.requests() {
            let asked = request.header("accept").unwrap_or_default().to_owned();
            for wanted in [media::INDEX, media::MANIFEST, media::DOCKER_LIST, media::DOCKER_MANIFEST] {
                assert!(asked.contains(wanted), "{asked}");
            }
        }
    }
}
