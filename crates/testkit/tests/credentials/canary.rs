use std::process::Command;
use std::time::Duration;

use entrepot_testkit::http::Response;
use entrepot_testkit::mirror::binary;
use entrepot_testkit::script::{Image, Method, Reply, Upstream};
use serde_json::json;

use super::accounts::{CLIENT, PASSWORD, access, auth, basic, client_basic};
use crate::common::{Bench, assert_error};

const SIGNATURE: &str = "canary-signed-query";
const COOKIE: &str = "canary-cookie";
const REFRESH: &str = "canary-refresh-token";
const BEARER: &str = "canary-bearer-token";

/// T-CR8: everything that can go well or wrong with secrets in play, at the most talkative log level that is documented;
/// none of them is in any answer, log line, metric, page or file.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr8_no_secret_leaves_in_any_way() {
    let cdn = Upstream::start_on([127, 0, 0, 2]);
    let tokens_host = Upstream::start_on([127, 0, 0, 3]);
    tokens_host
        .on(Method::Any, "/token")
        .reply(Reply::json(200, &json!({"token": BEARER, "refresh_token": REFRESH, "expires_in": 300})));
    let hosts = format!("[\"{}\", \"127.0.0.8:9\"]", cdn.host());
    let bench = Bench::setup()
        .env("ENTREPOT_LOG", "debug")
        .env("MIRROR_PASSWORD", PASSWORD)
        .source("auth", "{ username: \"mirror-account\", password_env: \"MIRROR_PASSWORD\" }")
        .source("token_hosts", format!("[\"{}\"]", tokens_host.host()))
        .source("blob_hosts", hosts)
        .source("timeouts", "{ connect: \"1s\", first_byte: \"1s\", stall: \"1s\" }")
        .proxy("access", access())
        .start();
    let mut bench = bench;
    let secrets = [
        PASSWORD.to_owned(),
        basic(),
        CLIENT.to_owned(),
        client_basic(),
        SIGNATURE.to_owned(),
        COOKIE.to_owned(),
        REFRESH.to_owned(),
        BEARER.to_owned(),
    ];
    for secret in &secrets {
        bench.mirror.canary(secret);
    }
    let realm = format!("{}/token", tokens_host.url());
    bench.upstream.guard(move |request| {
        let open = request.header("authorization") == Some(&format!("Bearer {BEARER}"));
        (!open).then(|| Reply::challenge(&realm, "s", "x").header("set-cookie", format!("a={COOKIE}")))
    });
    let mut answers: Vec<Response> = Vec::new();
    let images: Vec<Image> = (0..8).map(Image::small).collect();
    bench.upstream.serve_image("team/app", "latest", &images[0]);
    answers.push(bench.get("/v2/team/app/manifests/latest").basic(&client_basic()).send().await);
    assert_eq!(answers[0].status, 200, "{:?}", answers[0]);

    // Signed URLs that work, refuse, redirect on, cut, stall, lie, are not there, or lead astray.
    let signed = |n: usize| format!("{}/blob{n}?X-Amz-Signature={SIGNATURE}&se=1", cdn.url());
    let body = |n: usize| Reply::ok(images[n].layers[0].clone());
    cdn.on(Method::Any, "/blob0").reply(body(0));
    cdn.on(Method::Any, "/blob1").reply(Reply::status(403).body(format!("<Error>{SIGNATURE}</Error>")));
    cdn.on(Method::Any, "/blob2").reply(Reply::redirect(302, format!("http://127.0.0.9/x?sig={SIGNATURE}")));
    cdn.on(Method::Any, "/blob3").reply(body(3).truncate_after(100));
    cdn.on(Method::Any, "/blob4").reply(body(4).stall_after(100));
    cdn.on(Method::Any, "/blob5").reply(body(5).flip(9));
    for (n, image) in images.iter().enumerate() {
        let path = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
        let to = match n {
            6 => format!("http://127.0.0.8:9/blob?sig={SIGNATURE}"),
            7 => format!("http://user:{COOKIE}@{}/blob?sig={SIGNATURE}", cdn.host()),
            n => signed(n),
        };
        bench.upstream.on(Method::Any, &path).reply(Reply::redirect(307, to));
        for call in [bench.head(&path), bench.get(&path)] {
            answers.push(call.basic(&client_basic()).send().await);
        }
    }
    // Clients' own credentials: right, wrong, traded, in odd places.
    for call in [
        bench.get("/v2/").basic(&client_basic()),
        bench.get("/v2/").bearer(CLIENT),
        bench.get("/v2/").header("authorization", CLIENT),
        bench.get("/v2/").header("x-registry-auth", CLIENT).header("cookie", CLIENT),
        bench
            .request("POST", "/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("grant_type=refresh_token&refresh_token={CLIENT}")),
    ] {
        answers.push(call.send().await);
    }
    let traded = bench.get("/token?service=x").basic(&client_basic()).send().await;
    assert_eq!(traded.status, 200, "{traded:?}");
    let token = traded.json()["token"].as_str().unwrap_or_default().to_owned();
    bench.mirror.canary(&token);
    answers.push(bench.get("/v2/team/app/manifests/latest").bearer(&token).send().await);
    // The token service refuses, and repeats what it was given.
    for (n, status) in [400, 401, 403, 500].into_iter().enumerate() {
        tokens_host
            .on(Method::Any, "/token")
            .reply(Reply::status(status).body(format!("{{\"error\":\"{PASSWORD} {}\"}}", basic())));
        answers.push(bench.get(format!("/v2/team/other{n}/manifests/1")).basic(&client_basic()).send().await);
    }
    assert_error(&answers[answers.len() - 3], 401, "UNAUTHORIZED");
    for answer in &answers {
        let all = format!("{:?} {}", answer.head.headers, answer.text());
        for secret in &secrets {
            assert!(!all.contains(secret.as_str()), "{secret} in {answer:?}");
        }
    }
    for page in ["/metrics", "/readyz", "/healthz", "/debug"] {
        let (_, text) = bench.mirror.admin_get(page);
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{secret} on {page}: {text}");
        }
    }
    // What is on the disk outlives the process, and perhaps the disk's owner.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for entry in walk(bench.mirror.cache_dir()) {
        let bytes = std::fs::read(&entry).unwrap_or_default();
        for secret in &secrets {
            assert!(
                !bytes.windows(secret.len()).any(|window| window == secret.as_bytes()),
                "{secret} in {}",
                entry.display()
            );
        }
    }
    assert!(bench.mirror.log().contains("\"level\":\"DEBUG\""), "the log was talkative");
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files.extend(walk(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

/// T-CR8: `config` masks what it prints, and what is wrong with a configuration is said without its secrets.
#[test]
fn t_cr8_printed_configurations_are_masked() {
    let good = format!(
        "proxy:\n  access: {}\n  sources:\n    - name: \"x\"\n      url: \"https://registry.example.com\"\n      auth: {}\n",
        access(),
        auth()
    );
    let bad =
        good.replace("https://registry", "http://registry") + "      auth2: \"canary-upstream-password\"\n";
    for (command, config) in [("config", &good), ("check", &good), ("check", &bad), ("serve", &bad)] {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), config).expect("writing it");
        let output = Command::new(binary())
            .arg(command)
            .arg("--config")
            .arg(file.path())
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!said.contains(PASSWORD), "{command}: {said}");
        assert!(!said.is_empty(), "{command}");
    }
}

/// T-CR9: our own challenge names the configured endpoint, whatever the request says of itself.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr9_the_realm_is_the_configured_one() {
    let bench = Bench::setup()
        .proxy("endpoint", "https://mirror.example.com")
        .proxy("trusted_proxies", "[\"127.0.0.0/8\"]")
        .proxy("access", access().replacen('{', "{ anonymous: false, ", 1))
        .start();
    let ours = "Bearer realm=\"https://mirror.example.com/token\",service=\"mirror.example.com\"";
    for path in ["/v2/", "/v2/team/app/manifests/1", "/v2/team/app/tags/list"] {
        let plain = bench.get(path).host("mirror.example.com").send().await;
        let expected = plain.header("www-authenticate").map(str::to_owned);
        assert!(expected.as_deref().is_some_and(|challenge| challenge.starts_with(ours)), "{plain:?}");
        for (name, value) in [
            ("host", "evil.example"),
            ("host", "mirror.example.com:8443"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-port", "81"),
            ("x-forwarded-prefix", "/evil"),
            ("x-forwarded-server", "evil.example"),
            ("x-original-host", "evil.example"),
            ("x-original-url", "https://evil.example/"),
            ("x-host", "evil.example"),
            ("forwarded", "for=1.2.3.4;host=evil.example;proto=http"),
            ("via", "1.1 evil.example"),
            ("origin", "https://evil.example"),
            ("referer", "https://evil.example/"),
        ] {
            let call = if name == "host" {
                bench.get(path).host(value)
            } else {
                bench.get(path).header(name, value)
            };
            let answer = call.send().await;
            assert_eq!(answer.status, 401, "{name}: {value}: {answer:?}");
            assert_eq!(answer.header("www-authenticate").map(str::to_owned), expected, "{name}: {value}");
            assert!(!format!("{:?}{}", answer.head.headers, answer.text()).contains("evil"), "{answer:?}");
        }
    }
    assert_eq!(bench.upstream.connections(), 0);
}

/// T-CR8: the log of a helper that fails, and of a password that upstream refuses, names neither.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr8_a_credential_helper_that_talks() {
    let tools = tempfile::tempdir().expect("a directory");
    let helper = tools.path().join("docker-credential-talks");
    std::fs::write(
        &helper,
        format!(
            "#!/bin/sh\necho {PASSWORD} >&2\necho '{{\"Username\":\"u\",\"Secret\":\"{PASSWORD}\"'\nexit 1\n"
        ),
    )
    .expect("a script");
    let made = Command::new("chmod").arg("755").arg(&helper).status().expect("chmod runs");
    assert!(made.success());
    let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap_or_default());
    let mut bench = Bench::setup()
        .env("PATH", path)
        .env("ENTREPOT_LOG", "debug")
        .source("auth", "{ helper: \"talks\" }")
        .proxy("access", "{ networks: [\"127.0.0.0/8\"] }")
        .start();
    bench.mirror.canary(PASSWORD);
    let answer = bench.get("/v2/team/app/manifests/1").send().await;
    assert!(answer.status >= 500, "{answer:?}");
    assert!(!answer.text().contains(PASSWORD), "{answer:?}");
    assert_eq!(bench.upstream.connections(), 0, "nothing is asked without the credentials");
}
