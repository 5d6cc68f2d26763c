//! What a hit costs the mirror in instructions, which are the same however busy the machine is: they are counted by callgrind
//! in the binary that the other tests run, with its defaults but for one thread of the main runtime. `cargo xtask guard` runs this,
//! and `cargo xtask guard --bless` writes the baseline anew.
//!
//! A process is started for each kind of hit, and one for none; what it counted more than that one, divided by its requests, is
//! what a hit costs: from the bytes that are read to the bytes that are written, with its line in the log and its metrics, but
//! without the kernel. Each request has words of its own, but for the kind that is about those that have not.
#![expect(clippy::unwrap_used, reason = "a test's helper fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use entrepot_testkit::mirror::Mirror;
use entrepot_testkit::need;
use entrepot_testkit::real::skip;
use entrepot_testkit::script::{Image, Upstream};

const HITS: u32 = 5_000;
/// Of each kind, before what is counted: so that everything is at hand.
const BEFORE: u32 = 100;
/// How much more than in the baseline a hit may cost.
const TOLERANCE: f64 = 1.1;
const END: Duration = Duration::from_secs(60);
/// The kind whose requests are all the same.
const SAME_WORDS: &str = "manifest by tag, in the same words";

const CONFIG: &str = r#"proxy:
  endpoint: "__ENDPOINT__"
  listen: "__LISTEN__"
  admin: "__ADMIN__"
  cache: { dir: "__CACHE__", manifest_ttl: "24h" }
  sources:
    - name: "up"
      url: "__UPSTREAM__"
      insecure: true
      allow_private: true
"#;

#[test]
#[ignore = "`cargo xtask guard` runs it: the baseline holds for that binary alone"]
fn a_hit_costs_no_more_instructions_than_it_did() {
    need!("instructions", "valgrind");
    let platform = platform();
    let bless = std::env::var_os("ENTREPOT_BLESS").is_some();
    let (of, baseline) = read(&fs::read_to_string(baseline()).unwrap_or_default());
    if !bless && of != platform {
        skip("instructions", &format!("the baseline is for {of}, and this is {platform}"));
        return;
    }
    let counted = count();
    eprint!("{}", spelt(&platform, &counted));
    if bless {
        fs::write(crate::baseline(), spelt(&platform, &counted)).unwrap();
        return;
    }
    let problems = compare(&baseline, &counted);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Instructions for a hit of each kind.
fn count() -> BTreeMap<String, f64> {
    let upstream = Upstream::start();
    let image =
        Image::of((0..8).map(|seed| entrepot_testkit::script::Pattern::new(seed, 5_000).into()).collect());
    upstream.serve_image("team/app", "v1", &image);
    let cache = tempfile::tempdir().unwrap();
    let kinds = [
        ("manifest by tag", "GET", "/v2/team/app/manifests/v1".to_owned()),
        (SAME_WORDS, "GET", "/v2/team/app/manifests/v1".to_owned()),
        ("manifest by digest", "GET", format!("/v2/team/app/manifests/{}", image.digest)),
        ("head of a blob", "HEAD", format!("/v2/team/app/blobs/{}", image.layer_digests[0])),
        ("blob", "GET", format!("/v2/team/app/blobs/{}", image.layer_digests[0])),
    ];
    let config = CONFIG.replace("__UPSTREAM__", &upstream.url());
    let counts = cache.path().join("callgrind.out");
    let run = |hits: Option<(&str, &str, &str)>| {
        let option = format!("--callgrind-out-file={}", counts.display());
        let builder = Mirror::builder(config.as_str()).cache(cache.path().join("cache"));
        let builder = builder.env("TOKIO_WORKER_THREADS", "1");
        let mut mirror = builder.under(&["valgrind", "--tool=callgrind", &option]).start();
        for (kind, method, path) in &kinds {
            ask(mirror.address(), kind, method, path, BEFORE);
        }
        if let Some((kind, method, path)) = hits {
            ask(mirror.address(), kind, method, path, HITS);
        }
        mirror.sigterm();
        assert!(mirror.wait_exit(END).is_some(), "it does not end:\n{}", mirror.log());
        total(&fs::read_to_string(&counts).unwrap())
    };
    // Fetches everything.
    run(None);
    let none = run(None);
    let cost = |kind, method, path| (run(Some((kind, method, path))) - none) / f64::from(HITS);
    kinds.iter().map(|(kind, method, path)| ((*kind).to_owned(), cost(kind, method, path))).collect()
}

/// Sends a request so many times on one connection, each after the answer to the one before.
fn ask(address: SocketAddr, kind: &str, method: &str, path: &str, times: u32) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 64 << 10];
    for time in 0..times {
        let nth = if kind == SAME_WORDS { 0 } else { time };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: containerd/2.1.4\r\n\
             Accept: application/vnd.docker.distribution.manifest.v2+json, \
             application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
             application/vnd.oci.image.index.v1+json, */*\r\nAccept-Encoding: gzip\r\nX-Nth: {nth:08}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let (mut filled, mut whole) = (0, None);
        while whole.is_none_or(|whole| filled < whole) {
            let read = stream.read(&mut buffer[filled..]).unwrap();
            assert!(read > 0, "{path}: the connection ended");
            filled += read;
            whole = whole.or_else(|| length(&buffer[..filled], method == "HEAD"));
        }
        assert!(
            buffer.starts_with(b"HTTP/1.1 200 "),
            "{path}: {}",
            String::from_utf8_lossy(&buffer[..filled])
        );
    }
}

/// Bytes of the whole answer that begins so, once its head is there.
fn length(answer: &[u8], head_only: bool) -> Option<usize> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).unwrap().to_ascii_lowercase();
    let body: usize =
        text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap();
    Some(head + if head_only { 0 } else { body })
}

fn total(counts: &str) -> f64 {
    let total = counts.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    total.expect("callgrind writes the total")
}

/// What else than our own code decides how many instructions there are.
fn platform() -> String {
    let version = Command::new("rustc").arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    format!("{} on {}-{}", version.trim(), std::env::consts::ARCH, std::env::consts::OS)
}

fn baseline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instructions/baseline.txt")
}

/// The platform, and the instructions for each kind of hit.
fn read(text: &str) -> (String, BTreeMap<String, f64>) {
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let platform = lines.next().unwrap_or("nothing yet").to_owned();
    let kinds = lines.filter_map(|line| {
        let (instructions, kind) = line.trim().split_once(' ')?;
        Some((kind.to_owned(), instructions.parse().ok()?))
    });
    (platform, kinds.collect())
}

fn spelt(platform: &str, counted: &BTreeMap<String, f64>) -> String {
    let mut text = format!("# Instructions for a hit: written by `cargo xtask guard --bless`.\n{platform}\n");
    for (kind, instructions) in counted {
        writeln!(text, "{instructions:.0} {kind}").unwrap();
    }
    text
}

fn compare(baseline: &BTreeMap<String, f64>, counted: &BTreeMap<String, f64>) -> Vec<String> {
    let told = counted.iter().filter_map(|(kind, now)| match baseline.get(kind) {
        None => Some(format!("{kind}: not in the baseline: run `cargo xtask guard --bless`")),
        Some(before) if *now > before * TOLERANCE => Some(format!(
            "{kind}: {now:.0} instructions, and it was {before:.0}: find what costs so much more, or, if it is worth it, run \
             `cargo xtask guard --bless`"
        )),
        Some(_) => None,
    });
    told.collect()
}

#[test]
fn a_hit_that_costs_a_tenth_more_is_told() {
    let counts = |tag: f64| BTreeMap::from([("manifest by tag".to_owned(), tag)]);
    let (platform, before) = read(&spelt("rustc 1", &counts(20_000.0)));
    assert_eq!((platform.as_str(), &before), ("rustc 1", &counts(20_000.0)));
    assert_eq!(compare(&before, &counts(21_900.0)), Vec::<String>::new());
    assert_eq!(compare(&before, &counts(15_000.0)), Vec::<String>::new());
    assert!(
        compare(&before, &counts(22_100.0))[0]
            .starts_with("manifest by tag: 22100 instructions, and it was 20000")
    );
    assert_eq!(compare(&BTreeMap::new(), &before).len(), 1);
    assert_eq!(read("").0, "nothing yet");
}
