//! The whole internet in a network namespace: public addresses, private ones, and a resolver that lies. There the guards
//! against private addresses can be watched at work, which on loopback alone they cannot.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use entrepot_testkit::script::{Image, Method, Reply, Upstream};

use crate::common::Bench;

const REGISTRY: [u8; 4] = [93, 184, 216, 34];
const CDN: &str = "93.184.216.35";

/// Addresses where a mirror on the public internet has no business.
const PRIVATE: &[&str] = &[
    "127.0.0.1",
    "127.8.8.8",
    "10.1.2.3",
    "172.20.0.1",
    "192.168.7.7",
    "169.254.169.254",
    "100.64.9.9",
    "198.18.0.1",
    "192.0.2.1",
    "::1",
    "fd00::7",
    "64:ff9b::7f00:1",
];

/// Names and what the resolver says of them.
const HOSTS: &[(&str, &str)] = &[
    ("127.0.0.1", "rebound.example.com"),
    ("169.254.169.254", "metadata.example.com"),
    ("10.1.2.3", "ten.example.com"),
    ("fd00::7", "ula.example.com"),
    ("127.0.0.1", "split.example.com"),
    (CDN, "split.example.com"),
    (CDN, "cdn.example.com"),
    ("127.0.0.1", "localhost"),
];

const MARK: &str = "ENTREPOT_TEST_NAMESPACE";

/// Runs one test of this binary again, alone in a world of its own. `false`: the machine does not allow that.
fn enter(test: &str) -> bool {
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let hosts: String = HOSTS.iter().map(|(address, name)| format!("{address} {name}\n")).collect();
    std::fs::write(directory.path().join("hosts"), hosts).expect("a file");
    let mut script = String::from("set -e\nip link set lo up\n");
    for address in PRIVATE.iter().copied().chain([CDN, "93.184.216.34"]) {
        let length = if address.contains(':') { 128 } else { 32 };
        script.push_str(&format!("ip addr add {address}/{length} dev lo 2>/dev/null || true\n"));
    }
    script.push_str(&format!("mount --bind {}/hosts /etc/hosts\n", directory.path().display()));
    let possible = Command::new("unshare")
        .args(["-rnm", "sh", "-c", &format!("{script}true")])
        .output()
        .is_ok_and(|output| output.status.success());
    if !possible {
        eprintln!("SKIPPED {test}: no network namespace can be made here");
        return false;
    }
    script.push_str(&format!(
        "exec {} --exact {test} --nocapture --test-threads 1\n",
        std::env::current_exe().expect("this test's path").display()
    ));
    let output = Command::new("unshare")
        .args(["-rnm", "sh", "-c", &script])
        .env(MARK, "1")
        .output()
        .expect("unshare runs");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the test has run in there");
    false
}

/// Accepts on some addresses, and counts.
struct Trap {
    hits: Arc<AtomicUsize>,
}

impl Trap {
    fn set(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let hits = Arc::new(AtomicUsize::new(0));
        for address in addresses {
            let listener =
                TcpListener::bind(address).unwrap_or_else(|error| panic!("listening on {address}: {error}"));
            let counted = hits.clone();
            std::thread::spawn(move || {
                for _ in listener.incoming() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { hits }
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }
}

fn address(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(text.parse::<IpAddr>().expect("an address"), port)
}

/// T-SS1, T-SS6: every redirect and realm that leads to a private address, directly or by a name, or to a port of another
/// protocol, is refused before a connection is made.
#[tokio::test(flavor = "multi_thread")]
async fn t_ss1_private_addresses_are_never_connected_to() {
    if !enter("namespace::t_ss1_private_addresses_are_never_connected_to") {
        return;
    }
    let ports = [22, 25, 6379, 5432, 2375];
    let private = Trap::set(PRIVATE.iter().flat_map(|text| [address(text, 80), address(text, 8080)]));
    let services = Trap::set(ports.iter().map(|port| address(CDN, *port)));
    let registry = Upstream::start_on(REGISTRY);
    let mut targets: Vec<String> = Vec::new();
    for text in PRIVATE {
        let host = if text.contains(':') { format!("[{text}]") } else { (*text).to_owned() };
        targets.push(format!("http://{host}/x"));
        targets.push(format!("http://{host}:8080/x"));
    }
    for name in ["rebound", "metadata", "ten", "ula"] {
        targets.push(format!("http://{name}.example.com/x"));
        targets.push(format!("http://{name}.example.com:8080/x"));
    }
    for odd in [
        "http://2130706433/x",
        "http://0x7f000001/x",
        "http://0177.1/x",
        "http://127.1/x",
        "http://0/x",
        "http://[::ffff:10.1.2.3]/x",
        "http://[::ffff:7f00:1]:8080/x",
        "http://localhost/x",
        "http://localhost./x",
        "http://rebound.example.com./x",
        "http://no-such-name.example.com/x",
    ] {
        targets.push(odd.to_owned());
    }
    targets.extend(ports.iter().map(|port| format!("http://{CDN}:{port}/x")));

    let bench = Bench::setup_over(registry).source("allow_private", "false").start();
    let digest = entrepot_testkit::script::sha256(b"x");
    for (n, target) in targets.iter().enumerate() {
        for tail in [
            "manifests/1".to_owned(),
            format!("blobs/{digest}"),
            "tags/list".to_owned(),
            format!("referrers/{digest}"),
        ] {
            let path = format!("/v2/team/app{n}/{tail}");
            bench.upstream.on(Method::Any, &path).reply(Reply::redirect(307, target));
            let answer = bench.get(&path).send().await;
            assert!(matches!(answer.status, 502..=504), "{target} {tail}: {answer:?}");
        }
        let path = format!("/v2/team/realm{n}/manifests/1");
        bench.upstream.on(Method::Any, &path).reply(Reply::challenge(target, "s", "x"));
        let answer = bench.get(&path).send().await;
        assert!(matches!(answer.status, 401 | 502..=504), "{target}: {answer:?}");
    }
    assert_eq!(private.hits(), 0, "nothing private is connected to");
    assert_eq!(services.hits(), 0, "nor another protocol's port");
    bench.assert_nothing_stored();

    // The way to a public host is open, by address, by name, and by a name of which only one address is public.
    let image = Image::small(1);
    let cdn = Upstream::start_on([93, 184, 216, 35]);
    let port = cdn.address().port();
    let beside = Trap::set([address("127.0.0.1", port)]);
    cdn.on(Method::Any, "/good").reply(Reply::ok(image.layers[0].clone()));
    for (n, host) in [CDN, "cdn.example.com", "split.example.com"].iter().enumerate() {
        let path = format!("/v2/team/good{n}/blobs/{}", image.layer_digests[0]);
        bench
            .upstream
            .on(Method::Any, &path)
            .reply(Reply::redirect(307, format!("http://{host}:{port}/good")));
        let answer = bench.get(&path).send().await;
        assert_eq!((answer.status, &answer.digest), (200, &image.layer_digests[0]), "{host}: {answer:?}");
    }
    assert_eq!(beside.hits(), 0, "of a split name's addresses only the public one");
}
