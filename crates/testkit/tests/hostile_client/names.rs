use std::process::{Child, Command, Stdio};
use std::time::Duration;

use entrepot_testkit::need;
use entrepot_testkit::script::{Image, sha256};

use crate::common::Bench;

fn bad_repositories() -> Vec<String> {
    let mut names: Vec<String> = [
        "..",
        "../..",
        "team/../app",
        "%2e%2e",
        "%2e%2e%2fetc",
        "..%2f..%2fetc%2fpasswd",
        "%252e%252e%252f",
        "team%2fapp",
        "team%252fapp",
        "team//app",
        "/team",
        "team\\app",
        "..\\..\\windows",
        "team%5capp",
        "team%00",
        "team\u{0}x",
        "team;x",
        "team.",
        ".team",
        "team/.",
        "./team",
        "team/",
        "-team",
        "team-",
        "team_",
        "_team",
        "team___app",
        "team..app",
        "team__-app",
        "Team",
        "TEAM/APP",
        "team app",
        "team%20app",
        "team+app",
        "team~app",
        "team@app",
        "team:app",
        "team/app:1",
        "te\u{e4}m",
        "te%C3%A4m",
        "%E2%80%AEmaet",
        "\u{202e}maet",
        "te%E2%80%8Bam",
        "te\u{200b}am",
        "_uploads",
        "team/_uploads",
        "CON",
        "NUL",
        "COM1.txt",
        "team/NUL",
        "%",
        "%zz",
        "$(id)",
        "`id`",
        "{team}",
        "'",
        "\"",
        "*",
        "|",
        "team\u{7f}",
    ]
    .iter()
    .map(|name| (*name).to_owned())
    .collect();
    names.extend([256, 10_000].map(|length| "a".repeat(length)));
    names.push(vec!["a"; 128].join("/") + "/a");
    names
}

fn bad_tags() -> Vec<String> {
    let mut tags: Vec<String> = [
        "..",
        ".",
        ".1",
        "-1",
        "%2e%2e",
        "..%2f..%2fetc",
        "a%2fb",
        "a%00",
        "a;b",
        "a%20b",
        "a+b",
        "a~b",
        "t\u{e4}g",
        "t%C3%A4g",
        "%E2%80%AE",
        "a\\b",
        "a,b",
        "a@b",
        "*",
        "$(id)",
    ]
    .iter()
    .map(|tag| (*tag).to_owned())
    .collect();
    tags.extend([129, 10_000].map(|length| "a".repeat(length)));
    tags
}

fn bad_paths() -> Vec<String> {
    [
        "/",
        "/etc/passwd",
        "/../../etc/passwd",
        "/v2/../../etc/passwd",
        "/v2/%2e%2e/%2e%2e/etc/passwd",
        "/v2/..%2f..%2fetc/passwd",
        "//v2/team/app/tags/list",
        "/v2//team/app/tags/list",
        "/v2/team/app//tags/list",
        "/v2/team/app/tags//list",
        "/V2/team/app/tags/list",
        "/v1/",
        "/v2/team",
        "/v2/team/app",
        "/v2/team/app/",
        "/v2/team/app/manifests",
        "/v2/team/app/manifests/",
        "/v2/team/app/blobs",
        "/v2/team/app/blobs/",
        "/v2/team/app/tags",
        "/v2/team/app/tags/",
        "/v2/team/app/tags/list/",
        "/v2/team/app/tags/list/x",
        "/v2/team/app/manifests/1/",
        "/v2/team/app/manifests/1/..",
        "/v2;x/team/app/tags/list",
        "/v2/team/app/tags/list;x",
        "/v2/manifests/1",
        "/v2/blobs/x",
        "/v2/tags/list",
        "/v2/_catalog/..",
        "/v2/team/app/blobs/uploads/../x",
        "/proxy?url=http://127.0.0.1/",
        "/%76%32/",
        "/v2%2f",
        "/.env",
        "/metrics",
        "/healthz",
        "/debug/pprof/",
        "/favicon.ico",
    ]
    .iter()
    .map(|path| (*path).to_owned())
    .collect()
}

/// T-BI4
#[tokio::test(flavor = "multi_thread")]
async fn t_bi4_names_tags_and_paths_that_are_none() {
    need!("t_bi4_names_tags_and_paths_that_are_none", "strace");
    let bench = Bench::new();
    let trace = Trace::attach(&bench);
    let digest = sha256(b"x");
    let mut paths = bad_paths();
    for name in bad_repositories() {
        paths.push(format!("/v2/{name}/manifests/1"));
        paths.push(format!("/v2/{name}/manifests/{digest}"));
        paths.push(format!("/v2/{name}/blobs/{digest}"));
        paths.push(format!("/v2/{name}/tags/list"));
        paths.push(format!("/v2/{name}/referrers/{digest}"));
        paths.push(format!("/v2/up.test/{name}/manifests/1"));
    }
    paths.extend(bad_tags().into_iter().map(|tag| format!("/v2/team/app/manifests/{tag}")));
    for path in paths {
        // What no URI may hold is refused before it is a request, without a body.
        let no_uri =
            !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%?".contains(&byte));
        for method in ["GET", "HEAD"] {
            let answer = bench.request(method, &path).send().await;
            assert!(matches!(answer.status, 400 | 404), "{method} {path:.120}: {answer:?}");
            if method == "GET" && !(answer.body.is_empty() && no_uri) {
                assert!(!answer.error_code().is_empty(), "{path:.120}");
            }
        }
    }
    assert_eq!(bench.upstream.connections(), 0, "{:?}", bench.upstream.summary());
    assert!(bench.mirror.stored_files().is_empty());
    trace.assert_nothing_outside(&bench);
}

/// T-BI4: the longest name, and names that only look reserved, are served.
#[tokio::test(flavor = "multi_thread")]
async fn t_bi4_odd_names_that_are_good() {
    let bench = Bench::new();
    let image = Image::small(1);
    let longest = format!("{}/{}", "a".repeat(127), "b".repeat(127));
    assert_eq!(longest.len(), 255);
    for name in [
        longest.as_str(),
        "blobs",
        "manifests",
        "tags/list",
        "a/blobs/b",
        "uploads",
        "con",
        "0",
        "a--b",
        "a__b",
        "a.b_c-d",
    ] {
        bench.upstream.serve_image(name, "1", &image);
        let answer = bench.get(format!("/v2/{name}/manifests/1")).send().await;
        assert_eq!((answer.status, &answer.digest), (200, &image.digest), "{name}: {answer:?}");
        let answer = bench.get(format!("/v2/{name}/blobs/{}", image.layer_digests[0])).send().await;
        assert_eq!((answer.status, &answer.digest), (200, &image.layer_digests[0]), "{name}: {answer:?}");
    }
}

/// `strace` on the mirror: every system call that takes a path.
struct Trace {
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Trace {
    fn attach(bench: &Bench) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut child = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-e",
                "trace=%file",
                "-s",
                "4096",
                "-p",
                &bench.mirror.pid().to_string(),
                "-o",
            ])
            .arg(file.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace starts");
        // It follows the process once /proc says so.
        let status = format!("/proc/{}/status", bench.mirror.pid());
        let traced =
            |text: &str| text.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"));
        let mut attached = false;
        for _ in 0..200 {
            attached = std::fs::read_to_string(&status).is_ok_and(|text| traced(&text));
            if attached {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if !attached {
            let _ = child.kill();
            let output = child.wait_with_output().expect("what strace said");
            panic!("strace does not attach: {}", String::from_utf8_lossy(&output.stderr));
        }
        Self { child, file }
    }

    fn assert_nothing_outside(mut self, bench: &Bench) {
        let pid = self.child.id() as libc::pid_t;
        // SAFETY: kill takes no pointers, and the child is not yet reaped. SIGINT makes strace detach and finish its file.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
        let _ = self.child.wait();
        let trace = std::fs::read_to_string(self.file.path()).expect("what strace wrote");
        let home = bench.mirror.config_file().parent().expect("the mirror's directory").to_owned();
        // The resolver, the allocator and the runtime read about the machine; none of that depends on a request.
        const MACHINE: &[&str] =
            &["/proc/", "/sys/", "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/localtime"];
        for line in trace.lines() {
            for path in line.split('"').skip(1).step_by(2) {
                let inside = path.starts_with(&*home.to_string_lossy()) || !path.starts_with('/');
                let machine = MACHINE.iter().any(|start| path.starts_with(start));
                assert!((inside && !path.contains("..")) || machine, "a path outside the store: {line}");
            }
        }
    }
}
