//! The Worker starts in the runtime that runs it in production, and its storage survives that runtime.

use std::fs;
use std::io::Read;
use std::time::Duration;

use entrepot_testkit::edge::{self, Edge};
use entrepot_testkit::need;
use flate2::Compression;
use flate2::read::GzEncoder;

/// What the script may come to, compressed.
const LIMIT: usize = 1_000_000;

const CONFIG: &str = r#"
proxy:
  endpoint: "__ENDPOINT__"
  access: { anonymous: true }
  sources:
    - name: dockerhub
      url: https://registry-1.docker.io
"#;

#[test]
fn the_script_stays_below_its_limit() {
    need!("the_script_stays_below_its_limit", "node");
    let files: Vec<_> = fs::read_dir(edge::bundle()).expect("the bundle").flatten().collect();
    let mut names: Vec<_> = files.iter().map(|file| file.file_name()).collect();
    names.sort();
    assert_eq!(names, ["index.js", "index_bg.wasm"], "what wrangler uploads");
    let compressed = files.iter().map(|file| {
        let bytes = fs::read(file.path()).expect("a file of the bundle");
        let mut gzip = GzEncoder::new(bytes.as_slice(), Compression::default());
        gzip.read_to_end(&mut Vec::new()).expect("compressed")
    });
    let sum: usize = compressed.sum();
    println!("the Worker: {sum} bytes compressed");
    assert!(sum < LIMIT, "{sum} bytes compressed");
}

#[test]
fn answers_in_the_real_runtime() {
    need!("answers_in_the_real_runtime", "node");
    let edge = Edge::start(CONFIG);
    assert_eq!(get(&edge, "/elsewhere").0, 404);
    assert!(edge.rss_anon_kb() > 0);
}

/// What stands in the file of a secret is put beside what is deployed, and KV holds what belongs there.
#[test]
fn secrets_are_deployed_apart() {
    need!("secrets_are_deployed_apart", "node");
    let config = CONFIG.to_owned()
        + r#"      auth: { username: "user", password: "hunter2-in-the-file" }
    - name: other
      url: https://other.example.com
      auth: { username: "user", password_kv: "other-password" }
"#;
    let edge = Edge::builder(config).secret("other-password", "hunter2-in-kv").start();
    assert_eq!(get(&edge, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(edge.kv("other-").get("other-password").map(String::as_str), Some("hunter2-in-kv"));
}

/// A Worker that was deployed with what it cannot use serves nothing, and says why where its owner reads it.
#[test]
fn a_refused_configuration_serves_nothing() {
    need!("a_refused_configuration_serves_nothing", "node");
    let misspelt = r#"{"proxy":{"endpoint":"__ENDPOINT__","acces":{"anonymous":true},"sources":
        [{"name":"hub","url":"https://registry-1.docker.io","auth":{"username":"u","pasword":"hunter2"}}]}}"#;
    for (config, why) in [
        (misspelt, "proxy.sources[0].auth.pasword: this key is unknown"),
        ("proxy: { endpoint: hunter2 }", "ENTREPOT_CONFIG:1: this is not JSON"),
    ] {
        let edge = Edge::builder(config).raw().secret("ENTREPOT_KEY", "5a".repeat(32)).start();
        for path in ["/", "/healthz", "/v2/", "/v2/library/busybox/manifests/latest", "/token"] {
            let (status, body) = get(&edge, path);
            assert_eq!(status, 503, "{path}");
            let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(body["errors"][0]["code"], "UNAVAILABLE", "{path}");
        }
        edge.scheduled("* * * * *");
        edge.wait_until(Duration::from_secs(10), "the log says why", |edge| edge.log().contains(why));
        assert!(!edge.log().contains("hunter2"), "{}", edge.log());
    }
}

#[test]
fn storage_outlives_the_runtime() {
    need!("storage_outlives_the_runtime", "node");
    let mut edge = Edge::start(CONFIG);
    edge.r2_put("blobs/a b", b"bytes");
    edge.kv_put("error:1", "one");
    let before = edge.pid();
    edge.restart();
    assert_ne!(edge.pid(), before, "another process");
    assert_eq!(edge.r2_keys(), ["blobs/a b"]);
    assert_eq!(edge.r2_get("blobs/a b"), b"bytes");
    assert_eq!(edge.kv("error:").get("error:1").map(String::as_str), Some("one"));
    edge.r2_delete("blobs/a b");
    edge.kv_delete("error:1");
    assert!(edge.r2_keys().is_empty() && edge.kv("").is_empty());
}

/// Nothing that a test starts is left running: neither Node nor the runtime.
#[test]
fn ends_with_its_owner() {
    need!("ends_with_its_owner", "node");
    let edge = Edge::start(CONFIG);
    let runtime = format!("/proc/{}", edge.pid());
    let address = edge.address();
    drop(edge);
    assert!(fs::metadata(runtime).is_err(), "workerd is gone");
    assert!(std::net::TcpStream::connect(address).is_err(), "its port is free");
}

fn get(edge: &Edge, path: &str) -> (u16, String) {
    let answer = ureq::get(edge.url(path)).config().http_status_as_error(false).build().call();
    let mut answer = answer.expect("an answer");
    (answer.status().as_u16(), answer.body_mut().read_to_string().expect("a text"))
}
