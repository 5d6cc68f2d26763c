//! A new configuration, without a restart.

use std::cell::OnceCell;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use base64::Engine as _;
use entrepot_testkit::http;
use entrepot_testkit::mirror::Mirror;
use entrepot_testkit::script::{Body, Gate, Image, Method, Pattern, Reply, Upstream, sha256};

const SOON: Duration = Duration::from_secs(20);

fn config(sources: &[(&str, &Upstream)], more: &str) -> String {
    let sources: String = sources
        .iter()
        .map(|(name, upstream)| {
            format!(
                "    - {{ name: {name}, type: registry, url: \"{}\", names: [\"{name}.test\"], insecure: true, allow_private: true, mirror: true }}\n",
                upstream.url()
            )
        })
        .collect();
    format!(
        "proxy:\n  endpoint: \"__ENDPOINT__\"\n  listen: \"__LISTEN__\"\n  admin: \"__ADMIN__\"\n  cache: {{ dir: \"__CACHE__\" }}\n{more}  sources:\n{sources}"
    )
}

async fn status(mirror: &Mirror, path: &str) -> u16 {
    http::get(format!("{}{path}", mirror.url())).send().await.status
}

async fn until(mirror: &Mirror, path: &str, wanted: u16) {
    let start = std::time::Instant::now();
    while status(mirror, path).await != wanted {
        assert!(start.elapsed() < SOON, "{path} does not become {wanted}:\n{}", mirror.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn images() -> (Upstream, Upstream) {
    let (one, two) = (Upstream::start(), Upstream::start());
    one.serve_image("team/app", "1", &Image::small(1));
    two.serve_image("team/app", "1", &Image::small(2));
    (one, two)
}

/// A source that is added is served, and a download that was under way goes on over the same connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_reloaded_without_dropping_a_connection() {
    let (one, two) = images();
    let body = Body::from(Pattern::new(3, 1_000_000));
    let digest = body.sha256();
    let gate = Gate::new();
    let path = format!("/v2/team/app/blobs/{digest}");
    one.on(Method::Get, &path).reply(Reply::ok(body).hold_at(500_000, &gate));
    let mut mirror = Mirror::start(config(&[("one", &one)], ""));
    assert_eq!(status(&mirror, "/v2/two.test/team/app/manifests/1").await, 404);

    let mut download =
        http::get(format!("{}/v2/one.test/team/app/blobs/{digest}", mirror.url())).open().await;
    let mut got = download.chunk().await.expect("the download has begun");
    mirror.write_config(config(&[("one", &one), ("two", &two)], ""));
    until(&mirror, "/v2/two.test/team/app/manifests/1", 200).await;

    gate.open();
    while let Some(chunk) = download.chunk().await {
        got.extend(chunk);
    }
    assert_eq!(
        (download.ended(), sha256(&got)),
        (Some(true), digest),
        "the download that was under way ends whole"
    );
}

/// A file that changes after it was read for the start, and before anything is served, is taken up.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_during_the_start_is_reloaded() {
    let (one, two) = images();
    // The start reads the password after the file that names it, and waits for it: nobody has written to the pipe yet.
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("password");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let slow = config(&[("one", &one)], "").replace(
        "mirror: true }",
        &format!("mirror: true, auth: {{ username: u, password_file: \"{}\" }} }}", pipe.display()),
    );
    let mut mirror = Mirror::builder(slow).without_waiting().start();
    let open = || OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&pipe);
    let writer = OnceCell::new();
    // Refused until somebody reads.
    mirror.wait_until(SOON, "the password is being read", |_| {
        open().is_ok_and(|opened| writer.set(opened).is_ok())
    });
    let mut writer = writer.into_inner().unwrap();
    mirror.write_config(config(&[("one", &one), ("two", &two)], ""));
    writer.write_all(b"password").unwrap();
    drop(writer);
    mirror.wait_until(SOON, "it is reloaded", |mirror| mirror.log().contains("is reloaded"));
    until(&mirror, "/v2/two.test/team/app/manifests/1", 200).await;
}

/// A file that is wrong changes nothing, and the log lists what is wrong; once it is mended it is taken up.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_keeps_the_old_one_and_says_so() {
    let (one, two) = images();
    let mut mirror = Mirror::start(config(&[("one", &one)], ""));
    mirror.write_config(config(&[("two", &two)], "  cach: {}\n  rate_limit: { anonymous: \"often\" }\n"));
    mirror.wait_until(SOON, "the log says what is wrong", |mirror| {
        let log = mirror.log();
        log.contains("proxy.cach") && log.contains("rate_limit.anonymous")
    });
    assert_eq!(status(&mirror, "/v2/one.test/team/app/manifests/1").await, 200);
    assert_eq!(status(&mirror, "/v2/two.test/team/app/manifests/1").await, 404);
    mirror.write_config(config(&[("two", &two)], ""));
    until(&mirror, "/v2/two.test/team/app/manifests/1", 200).await;
    assert_eq!(status(&mirror, "/v2/one.test/team/app/manifests/1").await, 404);
}

/// What was answered under a configuration is not given again under the next one, though it was asked a moment ago.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_outlives_its_configuration() {
    let (one, two) = images();
    let mut mirror = Mirror::start(config(&[("one", &one)], ""));
    let path = "/v2/one.test/team/app/manifests/1";
    assert_eq!(status(&mirror, path).await, 200);
    mirror.write_config(config(&[("two", &two)], ""));
    let start = std::time::Instant::now();
    loop {
        let reloaded = mirror.log().contains("the configuration is reloaded");
        let status = status(&mirror, path).await;
        if reloaded {
            assert_eq!(status, 404);
            return;
        }
        assert!(matches!(status, 200 | 404), "{status}");
        assert!(start.elapsed() < SOON, "{}", mirror.log());
    }
}

/// SIGHUP reloads, too: what a file refers to may have changed while the file has not.
#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_secrets_again() {
    let (one, _) = images();
    let tokens = tempfile::NamedTempFile::new().unwrap();
    // SHA-256 of `first` and of `second`.
    let first = "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e";
    let second = "16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4";
    std::fs::write(tokens.path(), format!("ci:{first}\n")).unwrap();
    let access = format!("  access: {{ anonymous: false, tokens_file: \"{}\" }}\n", tokens.path().display());
    let mirror = Mirror::start(config(&[("one", &one)], &access));
    let with = async |password: &str| {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("ci:{password}"));
        http::get(format!("{}/v2/one.test/team/app/manifests/1", mirror.url()))
            .basic(&encoded)
            .send()
            .await
            .status
    };
    assert_eq!((with("first").await, with("second").await), (200, 401));
    std::fs::write(tokens.path(), format!("ci:{second}\n")).unwrap();
    mirror.sighup();
    mirror.wait_until(SOON, "it is reloaded", |mirror| mirror.log().contains("is reloaded"));
    assert_eq!((with("first").await, with("second").await), (401, 200));
}
