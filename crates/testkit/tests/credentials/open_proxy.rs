use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use entrepot_testkit::http::raw;
use entrepot_testkit::mirror::binary;
use entrepot_testkit::need;
use entrepot_testkit::script::{Image, Upstream};

use crate::common::{Bench, assert_error};

/// What `entrepot check` says of a configuration, and its exit status.
pub(crate) fn check(config: &str) -> (Option<i32>, String) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), config).expect("writing it");
    let output = Command::new(binary())
        .arg("check")
        .arg("--config")
        .arg(file.path())
        .output()
        .expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// T-SS2: a registry in a private network is refused at the start unless the source says so, and `check` lists each.
#[test]
fn t_ss2_private_registries_need_a_word() {
    let private = [
        "https://127.0.0.1:5000",
        "https://localhost",
        "https://10.0.0.1",
        "https://172.16.0.1",
        "https://192.168.1.1",
        "https://169.254.169.254",
        "https://100.64.0.1",
        "https://0.0.0.0",
        "https://[::1]",
        "https://[fd00::1]",
        "https://[fe80::1]",
        "https://[::ffff:127.0.0.1]",
        "https://[::ffff:10.0.0.1]",
        "https://2130706433",
        "https://registry.local",
        "https://registry",
        "https://metadata.google.internal",
    ];
    let mut config = String::from("proxy:\n  sources:\n");
    for (n, url) in private.iter().enumerate() {
        config
            .push_str(&format!("    - name: \"s{n}\"\n      url: \"{url}\"\n      names: [\"s{n}.test\"]\n"));
    }
    let (status, said) = check(&config);
    assert_eq!(status, Some(2), "{said}");
    for (n, url) in private.iter().enumerate() {
        let key = format!("proxy.sources[{n}].url");
        assert!(
            said.lines().any(|line| line.contains(&key) && line.contains("allow_private")),
            "{url} is listed: {said}"
        );
    }
    let allowed = config.replace("\n      names", "\n      allow_private: true\n      names");
    let (status, said) = check(&allowed);
    assert_eq!(status, Some(0), "{said}");

    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), &config).expect("writing it");
    let served = Command::new(binary())
        .args(["serve", "--config"])
        .arg(file.path())
        .output()
        .expect("the binary runs, and ends");
    assert_eq!(served.status.code(), Some(2), "`serve` does not start");
    let alternate = "proxy:\n  sources:\n    - name: \"x\"\n      url: \"https://registry.example.com\"\n      alternates: [\"https://10.0.0.1\"]\n";
    let (status, said) = check(alternate);
    assert!(status == Some(2) && said.contains("alternates") && said.contains("allow_private"), "{said}");
}

/// `strace` on the mirror: every system call that opens a way out.
struct Calls {
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Calls {
    fn watch(bench: &Bench) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut child = Command::new("strace")
            .args(["-f", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-p"])
            .arg(bench.mirror.pid().to_string())
            .arg("-o")
            .arg(file.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace runs");
        let mut said = BufReader::new(child.stderr.take().expect("a piped stderr"));
        let mut line = String::new();
        said.read_line(&mut line).expect("strace speaks");
        assert!(line.contains("attached"), "{line}");
        // The rest must be read, or strace would wait.
        std::thread::spawn(move || said.lines().for_each(drop));
        Self { child, file }
    }

    /// Connections and datagrams so far; what answers clients on connections of theirs does not count.
    fn outbound(&self) -> Vec<String> {
        std::fs::read_to_string(self.file.path())
            .unwrap_or_default()
            .lines()
            .filter(|line| {
                line.contains("connect(") || line.contains("sin_port") || line.contains("sin6_port")
            })
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// T-SS3, T-OP1: a registry that is not configured is unknown, and costs no look-up and no connection.
#[tokio::test(flavor = "multi_thread")]
async fn t_ss3_unknown_registries_cost_nothing() {
    need!("t_ss3_unknown_registries_cost_nothing", "strace");
    let bench = Bench::setup().proxy("endpoint", "https://mirror.example.com").start();
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "1", &image);
    let calls = Calls::watch(&bench);
    let tail = "team/app/manifests/1";
    let mut paths: Vec<String> = [
        "evil.example",
        "evil.example:443",
        "up.test.evil.example",
        "xup.test",
        "up.test:1",
        "up.test.",
        "user@up.test",
        "user:pw@up.test",
        "up.test%40evil.example",
        "up.test/",
        "up.test/../evil",
        "https://up.test",
        "//evil.example",
        "127.0.0.1",
        "localhost",
        "169.254.169.254",
        "%5B::1%5D",
        "xn--p-eka.test",
        "%C3%BCp.test",
        "up%2Etest%00",
        "up.test%0d%0aHost:%20evil",
        "%20up.test",
        "*",
        "",
        "up",
        ".",
        "..",
    ]
    .iter()
    .map(|ns| format!("/v2/{tail}?ns={ns}"))
    .collect();
    paths.push(format!("/v2/{tail}?ns=up.test&ns=evil.example"));
    paths.push(format!("/v2/{tail}?ns={}", "x".repeat(3000)));
    for registry in ["evil.example", "localhost", "127.0.0.1:5000", "docker.io", "ghcr.io"] {
        paths.push(format!("/v2/{registry}/{tail}"));
        paths.push(format!("/{registry}/v2/{tail}"));
    }
    paths.push("/proxy?url=http://evil.example/".to_owned());
    paths.push("/http://evil.example/".to_owned());
    paths.push("/v2/?ns=evil.example".to_owned());
    for path in &paths {
        for call in [bench.get(path), bench.head(path)] {
            let answer = call.send().await;
            assert!(matches!(answer.status, 400 | 404 | 414), "{path:.80}: {answer:?}");
            assert_eq!(answer.header("oci-namespace"), None, "{path:.80}: only what was used");
            assert!(!format!("{:?}", answer.head.headers).contains("evil"), "{path:.80}: {answer:?}");
            if path.contains("ns=evil.example") && !answer.body.is_empty() {
                assert_error(&answer, 404, "NAME_UNKNOWN");
            }
        }
    }
    // Proxy forms, and hosts that are not ours.
    for request in [
        "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n".to_owned(),
        format!(
            "GET http://evil.example/v2/{tail} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        ),
        format!(
            "GET https://registry-1.docker.io/v2/{tail} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ),
        "GET ftp://evil.example/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".to_owned(),
    ] {
        let raw = raw(bench.mirror.address(), request.as_bytes(), Duration::from_secs(2)).await;
        for status in raw.statuses() {
            assert!((400..500).contains(&status), "{request}: {}", raw.text());
        }
        assert!(!raw.text().contains(&image.digest), "{request}");
    }
    assert_eq!(calls.outbound(), Vec::<String>::new());
    assert_eq!(bench.upstream.connections(), 0);

    // The same eyes see a real pull, so what they did not see was not there. A configured name may be spelt in capitals.
    for (ns, named) in [("up.test", true), ("UP.TEST", true)] {
        let answer = bench.get(format!("/v2/{tail}?ns={ns}")).send().await;
        assert_eq!((answer.status, &answer.digest), (200, &image.digest), "{ns}: {answer:?}");
        assert_eq!(answer.header("oci-namespace"), Some("up.test").filter(|_| named));
    }
    let start = std::time::Instant::now();
    while calls.outbound().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(5), "strace sees connections");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// T-OP1: a `Host` selects a source only by a configured name, whatever else it is.
#[tokio::test(flavor = "multi_thread")]
async fn t_op1_a_foreign_host_selects_nothing() {
    let other = Upstream::start_on([127, 0, 0, 2]);
    let bench = Bench::setup()
        .proxy("endpoint", "https://mirror.example.com")
        .and_source("other", &other.url(), &[])
        .start();
    let (one, two) = (Image::small(1), Image::small(2));
    bench.upstream.serve_image("team/app", "1", &one);
    other.serve_image("team/app", "1", &two);
    for (host, expected) in [
        ("mirror.example.com", &one.digest),
        ("other.mirror.example.com", &two.digest),
        ("OTHER.mirror.example.com:8443", &two.digest),
        ("evil.example", &one.digest),
        ("other.test.evil.example", &one.digest),
        ("other", &one.digest),
        ("other.evil.example", &one.digest),
        ("xother.mirror.example.com", &one.digest),
        ("other.mirror.example.com.evil.example", &one.digest),
        ("127.0.0.1", &one.digest),
    ] {
        let answer = bench.get("/v2/team/app/manifests/1").host(host).send().await;
        assert!(answer.status != 200 || &answer.digest == expected, "{host}: {answer:?}");
        for name in ["x-forwarded-host", "x-original-host", "x-host", "forwarded"] {
            let value = if name == "forwarded" { format!("host={host}") } else { host.to_owned() };
            let answer = bench
                .get("/v2/team/app/manifests/1")
                .host("mirror.example.com")
                .header(name, value)
                .send()
                .await;
            assert_eq!((answer.status, &answer.digest), (200, &one.digest), "{name}: {host}");
        }
    }
}
