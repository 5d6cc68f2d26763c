use entrepot_testkit::script::{Image, sha256};

use crate::common::{BESIDE, Bench, Trace, arrives_as_sent};

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
    let bench = Bench::new();
    let Some(trace) = Trace::attach("t_bi4_names_tags_and_paths_that_are_none", &bench) else {
        return;
    };
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
    paths.retain(|path| arrives_as_sent(path) && !BESIDE.contains(&path.as_str()));
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
