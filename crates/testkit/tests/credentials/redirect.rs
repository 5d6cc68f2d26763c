use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use entrepot_testkit::need;
use entrepot_testkit::script::{Body, Image, Method, Pattern, Reply, Upstream, media};
use serde_json::json;

use super::accounts::{basic, watch, with_account};
use crate::common::{Bench, assert_error};

const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

/// The tails of the four kinds of call, and what a host that may serve them answers.
fn calls(image: &Image) -> Vec<(String, Reply)> {
    let body = image.layers[0].clone();
    let list = json!({"name": "team/app", "tags": ["1"]});
    let index = Image::index(std::slice::from_ref(image));
    vec![
        ("manifests/latest".to_owned(), Reply::manifest(&image.manifest, media::MANIFEST)),
        (format!("blobs/{}", image.layer_digests[0]), Reply::ok(body)),
        ("tags/list".to_owned(), Reply::json(200, &list)),
        (format!("referrers/{}", image.digest), Reply::ok(index).header("content-type", media::INDEX)),
    ]
}

/// T-CR2: what is presented to the registry stays with the registry.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr2_no_redirect_takes_a_credential_along() {
    let image = Image::small(1);
    let cdn = Upstream::start_on([127, 0, 0, 2]);
    let setup = with_account(Bench::setup()).source("blob_hosts", format!("[\"{}\"]", cdn.host()));
    let bench = watch(setup.start());
    bench.upstream.require_basic(&basic());
    for status in STATUSES {
        for (n, (tail, reply)) in calls(&image).into_iter().enumerate() {
            let path = format!("/v2/team/app{status}/{tail}");
            let target = format!("/signed{status}-{n}");
            let registry = Reply::redirect(status, format!("{}{target}", cdn.url()))
                .header("set-cookie", "session=canary-cookie");
            bench.upstream.on(Method::Read, &path).reply(registry);
            cdn.on(Method::Read, &target).reply(reply);
            let answer = bench.get(&path).send().await;
            assert_eq!(answer.status, 200, "{status} {tail}: {answer:?}");
            assert!(cdn.count(Method::Any, &target) >= 1, "{tail} came from there");
        }
    }
    assert!(bench.upstream.saw_authorization());
    assert!(cdn.requests().len() >= 20);
    for request in cdn.requests() {
        assert_eq!(request.credentials(), [], "{request:?}");
        for (name, value) in &request.headers {
            let known = ["host", "user-agent", "accept", "accept-encoding", "range"];
            assert!(
                known.contains(&name.as_str()),
                "a header of ours that is nobody's there: {name}: {value}"
            );
        }
    }
}

/// T-CR2: nor does it come back to the registry, once that has been left.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr2_there_and_back_again() {
    let image = Image::small(2);
    let cdn = Upstream::start_on([127, 0, 0, 2]);
    let setup = with_account(Bench::setup()).source("blob_hosts", format!("[\"{}\"]", cdn.host()));
    let bench = watch(setup.start());
    let wanted = format!("Basic {}", basic());
    bench.upstream.guard(move |request| {
        let open = !request.path.starts_with("/v2/") || request.header("authorization") == Some(&wanted);
        (!open).then(|| Reply::oci_error(401, "X").header("www-authenticate", "Basic realm=\"x\""))
    });
    let path = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
    bench.upstream.on(Method::Get, &path).reply(Reply::redirect(307, format!("{}/there", cdn.url())));
    cdn.on(Method::Get, "/there").reply(Reply::redirect(307, format!("{}/back", bench.upstream.url())));
    bench.upstream.on(Method::Get, "/back").reply(Reply::ok(image.layers[0].clone()));
    assert_eq!(bench.get(&path).send().await.digest, image.layer_digests[0]);
    for request in cdn.requests().iter().chain(&bench.upstream.requests()) {
        if request.path != path {
            assert_eq!(request.credentials(), [], "{request:?}");
        }
    }
}

/// T-CR2, T-SS4: a token service that redirects is not followed.
#[tokio::test(flavor = "multi_thread")]
async fn t_ss4_a_token_service_that_redirects() {
    let other = Upstream::start_on([127, 0, 0, 2]).lenient();
    let setup = with_account(Bench::setup()).source("blob_hosts", format!("[\"{}\"]", other.host()));
    let bench = watch(setup.start());
    let realm = format!("{}/token", bench.upstream.url());
    bench.upstream.on(Method::Any, "/v2/*").reply(Reply::challenge(&realm, "s", "x"));
    for status in STATUSES {
        bench
            .upstream
            .on(Method::Any, "/token")
            .reply(Reply::redirect(status, format!("{}/token", other.url())));
        let answer = bench.get(format!("/v2/team/app{status}/manifests/1")).send().await;
        assert_eq!(answer.status, 502, "{answer:?}");
    }
    assert_eq!(other.connections(), 0);
}

/// T-SS1: a host outside of `blob_hosts` is refused before a connection is made, for every call, on every hop.
#[tokio::test(flavor = "multi_thread")]
async fn t_ss1_hosts_that_are_not_declared_are_not_connected_to() {
    let image = Image::small(3);
    let cdn = Upstream::start_on([127, 0, 0, 2]);
    let evil = Upstream::start_on([127, 0, 0, 9]).lenient();
    let port = evil.address().port();
    let bench = Bench::setup().source("blob_hosts", format!("[\"{}\"]", cdn.host())).start();
    let targets = [
        format!("{}/x", evil.url()),
        format!("//{}/x", evil.host()),
        format!("http:\\\\{}\\x", evil.host()),
        format!("http://{}@{}/x", cdn.host(), evil.host()),
        format!("http://user:pw@{}/x", cdn.host()),
        format!("http://127.0.0.2:{port}/x"),
        format!("http://2130706441:{port}/x"),
        format!("http://[::ffff:7f00:9]:{port}/x"),
        format!("http://localhost:{port}/x"),
        "ftp://127.0.0.9/x".to_owned(),
        "file:///etc/passwd".to_owned(),
        "unix:///var/run/docker.sock".to_owned(),
        "gopher://127.0.0.9:6379/_x".to_owned(),
        "data:text/plain,x".to_owned(),
        "http://".to_owned(),
        format!("http://127.0.0.9:{port}/{}", "x".repeat(20_000)),
    ];
    for (n, target) in targets.iter().enumerate() {
        for (tail, _) in calls(&image) {
            let path = format!("/v2/team/app{n}/{tail}");
            bench.upstream.on(Method::Get, &path).reply(Reply::redirect(307, target));
            let answer = bench.get(&path).send().await;
            assert_eq!(answer.status, 502, "{target:.80} {tail}: {answer:?}");
            assert!(
                !answer.text().contains("127.0.0") && !answer.text().contains("passwd"),
                "where it led is for the operator: {answer:?}"
            );
        }
        // From the declared host on.
        let path = format!("/v2/team/second{n}/blobs/{}", image.layer_digests[0]);
        bench.upstream.on(Method::Get, &path).reply(Reply::redirect(307, format!("{}/hop{n}", cdn.url())));
        cdn.on(Method::Get, format!("/hop{n}")).reply(Reply::redirect(302, target));
        let answer = bench.get(&path).send().await;
        assert_eq!(answer.status, 502, "{target:.80}: {answer:?}");
    }
    assert_eq!(evil.connections(), 0, "{:?}", evil.summary());
    bench.assert_nothing_stored();
}

/// T-SS1: five hops, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn t_ss1_five_hops() {
    let bench = Bench::new();
    let body = Body::from(Pattern::new(4, 10_000));
    let path = format!("/v2/team/app/blobs/{}", body.sha256());
    for (hops, status) in [(5, 200), (6, 502)] {
        bench.upstream.on(Method::Get, &path).reply(Reply::redirect(307, format!("/hop/{hops}/1")));
        let whole = body.clone();
        bench.upstream.on(Method::Get, format!("/hop/{hops}/*")).reply_with(move |request| {
            let n: usize = request.path.rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            if n == hops {
                Reply::ok(whole.clone())
            } else {
                Reply::redirect(307, format!("/hop/{hops}/{}", n + 1))
            }
        });
        // Another repository each time, so that nothing is held.
        let path = path.replace("team/app", &format!("team/hops{hops}"));
        bench.upstream.on(Method::Any, &path).reply(Reply::redirect(307, format!("/hop/{hops}/1")));
        if hops == 6 {
            // Held for another repository, it would only be asked for by HEAD.
            bench
                .upstream
                .on(Method::Head, "/hop/6/*")
                .reply_with(|request| Reply::redirect(307, format!("{}0", request.path)));
        }
        let answer = bench.get(&path).send().await;
        assert_eq!(answer.status, status, "{hops} hops: {answer:?}");
    }
    // For ever round.
    let turns = AtomicUsize::new(0);
    bench.upstream.on(Method::Any, "/v2/team/round/*").reply_with(move |_| {
        turns.fetch_add(1, Ordering::Relaxed);
        Reply::redirect(308, "/v2/team/round/manifests/1")
    });
    assert_eq!(bench.get("/v2/team/round/manifests/1").send().await.status, 502);
    assert_eq!(bench.upstream.count(Method::Get, "/v2/team/round/manifests/1"), 6);
}

/// A TLS server that answers each path with the HTTP message in the file of that name.
struct Tls {
    child: Child,
    url: String,
    files: tempfile::TempDir,
}

impl Tls {
    fn start() -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let made = Command::new("openssl")
            .current_dir(files.path())
            .args(
                "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=127.0.0.1"
                    .split(' '),
            )
            .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
            .stderr(Stdio::null())
            .status()
            .expect("openssl runs");
        assert!(made.success(), "a certificate");
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let child = Command::new("openssl")
            .current_dir(files.path())
            .args(["s_server", "-HTTP", "-cert", "cert.pem", "-key", "key.pem", "-accept"])
            .arg(format!("127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let start = std::time::Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "openssl listens");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, url: format!("https://127.0.0.1:{port}"), files }
    }

    fn serve(&self, path: &str, message: &[u8]) {
        let file = self.files.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(file.parent().expect("below the directory")).expect("directories");
        std::fs::write(file, message).expect("a file");
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// T-SS1, T-CR2: from https no redirect leads to plain http, not even on the same host; nor does a realm.
#[tokio::test(flavor = "multi_thread")]
async fn t_ss1_from_https_to_http_is_refused() {
    need!("t_ss1_from_https_to_http_is_refused", "openssl");
    let tls = Tls::start();
    let plain = Upstream::start_on([127, 0, 0, 2]).lenient();
    let certificate = tls.files.path().join("cert.pem").display().to_string();
    let stranger = Tls::start();
    let bench = Bench::setup()
        .env("SSL_CERT_FILE", certificate)
        .and_source("stranger", &stranger.url, &[("insecure", "false")])
        .and_source(
            "tls",
            &tls.url,
            &[("insecure", "false"), ("timeouts", "{ connect: \"5s\", first_byte: \"5s\", stall: \"5s\" }")],
        )
        .start();
    // A certificate that nobody vouches for is told from a host that is not there, and not tried again.
    let answer = bench.get("/v2/stranger.test/team/app/manifests/1").send().await;
    assert_eq!(answer.status, 502);
    assert!(
        answer.header("cache-status").is_some_and(|status| status.ends_with("detail=upstream_tls")),
        "{answer:?}"
    );
    // The same server, without the redirect, is served: the certificate is not the reason.
    let image = Image::small(5);
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        media::MANIFEST,
        image.manifest.len()
    );
    let good = [head.as_bytes(), &image.manifest].concat();
    tls.serve("/v2/team/app/manifests/good", &good);
    let answer = bench.get("/v2/tls.test/team/app/manifests/good").send().await;
    assert_eq!((answer.status, &answer.digest), (200, &image.digest), "{answer:?}");

    let own = tls.url.replace("https", "http");
    for (n, location) in
        [format!("{}/x", plain.url()), format!("{own}/v2/x"), format!("{own}/")].iter().enumerate()
    {
        let redirect = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        let challenge = format!(
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"{location}\"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        tls.serve(&format!("/v2/team/app{n}/manifests/1"), redirect.as_bytes());
        tls.serve(&format!("/v2/team/app{n}/manifests/2"), challenge.as_bytes());
        tls.serve(&format!("/v2/team/app{n}/tags/list"), redirect.as_bytes());
        for tail in ["manifests/1", "manifests/2", "tags/list"] {
            let answer = bench.get(format!("/v2/tls.test/team/app{n}/{tail}")).send().await;
            assert_error(&answer, 502, "UNKNOWN");
            assert!(answer.text().contains("plain http"), "{answer:?}");
        }
    }
    assert_eq!(plain.connections(), 0);
}

/// T-CR3: where a manifest says that a layer can be had elsewhere, we neither go there nor take our credentials there.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr3_a_foreign_layer_gets_no_request_and_no_credential() {
    let evil = Upstream::start_on([127, 0, 0, 3]);
    let bench = watch(with_account(Bench::setup()).start());
    bench.upstream.require_basic(&basic());
    let config = Body::from(Pattern::new(1, 300));
    let layer = Body::from(Pattern::new(2, 40_000));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media::MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.sha256(), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "digest": layer.sha256(),
                    "size": layer.len(), "urls": [format!("{}/layer", evil.url())]}],
    });
    bench.upstream.serve_manifest("team/app", "1", manifest.to_string().as_bytes(), media::MANIFEST);
    let path = format!("/v2/team/app/blobs/{}", layer.sha256());
    bench.upstream.on(Method::Read, &path).reply(Reply::oci_error(404, "BLOB_UNKNOWN"));
    assert_eq!(bench.get("/v2/team/app/manifests/1").send().await.status, 200);
    for answer in [bench.get(&path).send().await, bench.head(&path).send().await] {
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    assert!(bench.upstream.saw_authorization(), "the registry itself is asked as ourselves");
    assert_eq!((evil.connections(), evil.requests().len()), (0, 0), "{:?}", evil.summary());
}
