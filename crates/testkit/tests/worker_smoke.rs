//! The Worker starts in the runtime that runs it in production, and its storage survives that runtime.

use std::fs;
use std::io::Read;

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
    let elsewhere = ureq::get(edge.url("/elsewhere")).config().http_status_as_error(false).build().call();
    assert_eq!(elsewhere.expect("an answer").status(), 404);
    assert!(edge.rss_anon_kb() > 0);
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
