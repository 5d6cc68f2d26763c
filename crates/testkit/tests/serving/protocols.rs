//! HTTP/1.1, HTTP/2 with and without TLS, as curl speaks them.

use std::process::Command;

use entrepot_testkit::mirror::Mirror;
use entrepot_testkit::need;
use entrepot_testkit::script::{Image, Upstream};

struct Served {
    mirror: Mirror,
    _upstream: Upstream,
    image: Image,
    folder: tempfile::TempDir,
}

fn served(tls: bool) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start();
    let image = Image::small(7);
    upstream.serve_image("team/app", "1", &image);
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    if tls {
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let tls = if tls {
        format!("  tls: {{ cert: \"{}\", key: \"{}\" }}\n", cert.display(), key.display())
    } else {
        String::new()
    };
    let config = format!(
        "proxy:\n  endpoint: \"__ENDPOINT__\"\n  listen: \"__LISTEN__\"\n  admin: \"__ADMIN__\"\n  cache: {{ dir: \"__CACHE__\" }}\n{tls}  sources:\n    - {{ name: one, type: registry, url: \"{}\", insecure: true, allow_private: true, mirror: true }}\n",
        upstream.url()
    );
    let mirror = Mirror::builder(config).without_waiting().start();
    mirror.wait_until(std::time::Duration::from_secs(20), "it listens", |mirror| {
        std::net::TcpStream::connect(mirror.address()).is_ok()
    });
    Served { mirror, _upstream: upstream, image, folder }
}

impl Served {
    /// What curl makes of it: HTTP version, status, and the body's digest.
    fn curl(&self, scheme: &str, options: &[&str], path: &str) -> (String, String, String) {
        let body = self.folder.path().join("body");
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "20",
                "--write-out",
                "%{http_version} %{http_code}",
            ])
            .args(options)
            .arg("--cacert")
            .arg(self.folder.path().join("cert.pem"))
            .arg("--output")
            .arg(&body)
            .arg(format!("{scheme}://{}{path}", self.mirror.address()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
        let (version, status) = said.split_once(' ').unwrap();
        let digest = entrepot_testkit::script::sha256(&std::fs::read(&body).unwrap_or_default());
        (version.to_owned(), status.to_owned(), digest)
    }

    fn pulls(&self, scheme: &str, options: &[&str], version: &str) {
        let (spoken, status, _) = self.curl(scheme, options, "/v2/");
        assert_eq!((spoken.as_str(), status.as_str()), (version, "200"));
        let digest = &self.image.layer_digests[0];
        for _ in ["cold", "warm"] {
            let (spoken, status, got) = self.curl(scheme, options, &format!("/v2/team/app/blobs/{digest}"));
            assert_eq!((spoken.as_str(), status.as_str(), &got), (version, "200", digest));
        }
    }
}

#[test]
fn plain_http_1_and_http_2_with_prior_knowledge() {
    need!("plain_http_1_and_http_2_with_prior_knowledge", "curl");
    let served = served(false);
    // No certificate was made; curl wants the file only for TLS.
    served.pulls("http", &["--http1.1"], "1.1");
    served.pulls("http", &["--http2-prior-knowledge"], "2");
}

/// An offer to upgrade is as good as none.
#[test]
fn an_upgrade_to_http_2_is_not_taken_up() {
    need!("an_upgrade_to_http_2_is_not_taken_up", "curl");
    served(false).pulls("http", &["--http2"], "1.1");
}

#[test]
fn tls_with_both() {
    need!("tls_with_both", "curl", "openssl");
    let served = served(true);
    served.pulls("https", &["--http1.1"], "1.1");
    served.pulls("https", &["--http2"], "2");
}

#[test]
fn tls_1_1_is_refused() {
    need!("tls_1_1_is_refused", "curl", "openssl");
    let served = served(true);
    let refused = Command::new("curl")
        .args(["--silent", "--insecure", "--tls-max", "1.1", "--max-time", "10"])
        .arg(format!("https://{}/v2/", served.mirror.address()))
        .output()
        .unwrap();
    assert!(!refused.status.success());
}
