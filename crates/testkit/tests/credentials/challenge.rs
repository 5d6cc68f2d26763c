use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use entrepot_testkit::script::{Image, Method, Reply, Request, Tokens, Upstream};
use serde_json::json;

use super::accounts::{basic, watch, with_account};
use crate::common::{Bench, assert_error};

const TAG: &str = "/v2/team/app/manifests/latest";
const SCOPE: &str = "repository:team/app:pull";

fn saw_basic(request: &Request) -> bool {
    request.credentials().iter().any(|(_, value)| value.contains(&basic()))
}

/// T-CR1: the password goes to the declared token host and nowhere else; the token goes to the registry only.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr1_a_declared_token_host_gets_the_password() {
    let tokens_host = Upstream::start_on([127, 0, 0, 3]);
    let tokens = Tokens::new().basic(&basic());
    tokens_host.serve_tokens("/token", &tokens);
    let setup = with_account(Bench::setup()).source("token_hosts", format!("[\"{}\"]", tokens_host.host()));
    let bench = watch(setup.start());
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "latest", &image);
    bench.upstream.require_tokens(&tokens, &format!("{}/token", tokens_host.url()), "scripted");
    let answer = bench.get(TAG).send().await;
    assert_eq!((answer.status, &answer.digest), (200, &image.digest), "{answer:?}");
    assert_eq!(tokens.issued(SCOPE), 1);
    assert!(
        !bench.upstream.requests().iter().any(saw_basic),
        "where a token will do, the registry never sees the password"
    );
    let asked = tokens_host.requests();
    assert!(asked.iter().all(|request| request.method == "GET"), "no refresh token by POST");
    assert!(asked.iter().all(saw_basic));
}

/// T-CR1, T-CR6: realms that lead elsewhere, some of them in disguise.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr1_a_realm_that_is_not_declared_is_not_asked() {
    let declared = Upstream::start_on([127, 0, 0, 3]);
    let evil = Upstream::start_on([127, 0, 0, 2]).lenient();
    let port = evil.address().port();
    let (evil_host, good_host) = (evil.host(), declared.host());
    let realms = [
        format!("http://{evil_host}/token"),
        format!("http://{good_host}@{evil_host}/token"),
        format!("http://{evil_host}/token?x={good_host}"),
        format!("http://{evil_host}#{good_host}/"),
        format!("http://{evil_host}\\\\@{good_host}/token"),
        format!("http:\\\\{evil_host}\\token"),
        format!("//{evil_host}/token"),
        format!("HTTP://{evil_host}/token"),
        format!("http://2130706434:{port}/token"),
        format!("http://0x7f.0.0.2:{port}/token"),
        format!("http://0177.0.0.2:{port}/token"),
        format!("http://127.2:{port}/token"),
        format!("http://[::ffff:127.0.0.2]:{port}/token"),
        format!("http://127.0.0.2.:{port}/token"),
        format!("http://{good_host}.evil.example/token"),
        format!("http://127.0.0.3:{port}/token"),
        format!("http://{}/token", good_host.replace("127.0.0.3", "127.0.0.3.nip.io")),
        "http://127.0.0.3/token".to_owned(),
        format!("http://localhost:{port}/token"),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.2/".to_owned(),
        "token".to_owned(),
        String::new(),
        "http://".to_owned(),
        format!("http://{evil_host}/{}", "x".repeat(10_000)),
    ];
    let setup = with_account(Bench::setup()).source("token_hosts", format!("[\"{good_host}\"]"));
    let bench = watch(setup.start());
    for (n, realm) in realms.iter().enumerate() {
        let path = format!("/v2/team/app{n}/manifests/latest");
        bench.upstream.on(Method::Any, &path).reply(Reply::challenge(realm, "s", SCOPE));
        let answer = bench.get(&path).send().await;
        assert!(matches!(answer.status, 401 | 502), "{realm:.90}: {answer:?}");
        assert!(!answer.error_code().is_empty());
    }
    for host in [&evil, &declared] {
        assert_eq!(host.connections(), 0, "{:?}", host.summary());
    }
    assert!(!bench.upstream.saw_authorization(), "nothing was asked for that we give");
}

/// T-CR1: a challenge for Basic is met at the registry itself. One that offers both is met by a token.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr1_basic_is_given_to_the_registry_itself() {
    let bench = watch(with_account(Bench::setup()).start());
    let image = Image::small(2);
    bench.upstream.serve_image("team/app", "latest", &image);
    bench.upstream.require_basic(&basic());
    assert_eq!(bench.get(TAG).send().await.digest, image.digest);
    assert!(bench.upstream.requests().iter().any(saw_basic));

    let wrong = watch(with_account(Bench::setup()).start());
    wrong.upstream.serve_image("team/app", "latest", &image);
    wrong.upstream.require_basic("c29tZTpvbmU=");
    let answer = wrong.get(TAG).send().await;
    assert_error(&answer, 401, "UNAUTHORIZED");
    assert!(wrong.upstream.requests().len() <= 4, "a refusal is not argued with");
}

/// T-CR5: a source without an account asks anonymously, whatever the machine knows.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr5_no_account_no_credentials() {
    let home = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::start();
    let machine = json!({"auths": {upstream.host(): {"auth": basic()}, upstream.url(): {"auth": basic()}}});
    std::fs::create_dir_all(home.path().join(".docker")).expect("a directory");
    for file in [".docker/config.json", "auth.json"] {
        std::fs::write(home.path().join(file), machine.to_string()).expect("a file");
    }
    std::fs::write(
        home.path().join(".netrc"),
        "machine 127.0.0.1 login mirror-account password canary-upstream-password\n",
    )
    .expect("a file");
    let directory = home.path().to_string_lossy().into_owned();
    let file = |name: &str| format!("{directory}/{name}");
    let bench = Bench::setup_over(upstream)
        .env("HOME", &directory)
        .env("DOCKER_CONFIG", file(".docker"))
        .env("REGISTRY_AUTH_FILE", file("auth.json"))
        .env("NETRC", file(".netrc"))
        .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "canary-cloud-secret")
        .start();
    bench.upstream.on(Method::Any, "/v2/*").reply(
        Reply::oci_error(401, "UNAUTHORIZED")
            .header("www-authenticate", "Basic realm=\"x\"")
            .header("www-authenticate", format!("Bearer realm=\"{}/token\"", bench.upstream.url())),
    );
    bench.upstream.on(Method::Any, "/token").reply(Reply::json(200, &json!({"token": "anonymous-token"})));
    assert_error(&bench.get(TAG).send().await, 401, "UNAUTHORIZED");
    for request in bench.upstream.requests() {
        for (_, value) in request.credentials() {
            assert_eq!(value, "Bearer anonymous-token", "{request:?}");
        }
    }
}

/// T-CR4: plain http carries credentials only where the source says so, which without it does not even start.
#[test]
fn t_cr4_plain_http_without_a_word_is_refused_at_the_start() {
    for key in ["url", "alternates"] {
        let (url, alternates) = match key {
            "url" => ("http://registry.example.com", "[]"),
            _ => ("https://registry.example.com", "[\"http://registry.example.com\"]"),
        };
        let config = format!(
            "proxy:\n  sources:\n    - name: \"x\"\n      url: \"{url}\"\n      alternates: {alternates}\n      auth: {{ username: \"u\", password: \"p\" }}\n"
        );
        let (status, said) = super::open_proxy::check(&config);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains("plain http") && said.contains("insecure"), "{said}");
    }
}

/// T-CR1: an alternate is another host, so it is never given the source's credentials.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr1_alternates_get_nothing() {
    let alternate = Upstream::start_on([127, 0, 0, 4]).lenient();
    let image = Image::small(3);
    alternate.serve_image("team/app", "latest", &image);
    let setup = with_account(Bench::setup()).source("alternates", format!("[\"{}\"]", alternate.url()));
    let bench = watch(setup.start());
    bench.upstream.on(Method::Any, "/*").reply(Reply::status(503));
    assert_eq!(bench.get(TAG).send().await.digest, image.digest);
    alternate.on(Method::Any, "/v2/team/other/*").reply(
        Reply::oci_error(401, "UNAUTHORIZED")
            .header("www-authenticate", "Basic realm=\"x\"")
            .header("www-authenticate", format!("Bearer realm=\"{}/token\"", alternate.url())),
    );
    let answer = bench.get("/v2/team/other/manifests/latest").send().await;
    assert!(answer.status >= 400, "{answer:?}");
    for request in alternate.requests() {
        assert!(!saw_basic(&request), "{request:?}");
    }
}

/// T-CR1: random networks of challenges and redirects. Five hosts, of which the first is the registry and the second its
/// token host; each answer is drawn anew.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr1_credentials_stay_with_declared_hosts_whatever_hosts_say() {
    let hosts: Vec<Upstream> = (1..=5).map(|n| Upstream::start_on([127, 0, 1, n])).collect();
    let urls: Arc<Vec<String>> = Arc::new(hosts.iter().map(Upstream::url).collect());
    let seed = Arc::new(AtomicU64::new(7));
    for host in &hosts {
        let (urls, seed) = (urls.clone(), seed.clone());
        host.on(Method::Any, "/*").reply_with(move |_| {
            let mut drawn = seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            drawn ^= drawn >> 27;
            let other = &urls[(drawn >> 8) as usize % urls.len()];
            match drawn % 8 {
                0..=2 => Reply::redirect(
                    [301, 302, 303, 307, 308][(drawn >> 16) as usize % 5],
                    format!("{other}/x"),
                ),
                3 | 4 => Reply::challenge(&format!("{other}/token"), "s", "x"),
                5 => Reply::oci_error(401, "UNAUTHORIZED").header("www-authenticate", "Basic realm=\"x\""),
                6 => Reply::json(200, &json!({"token": "canary-bearer"})),
                _ => Reply::oci_error(404, "MANIFEST_UNKNOWN"),
            }
        });
    }
    let cdn = format!("[\"{}\", \"{}\"]", hosts[2].host(), hosts[3].host());
    let setup = with_account(Bench::setup()).proxy("default_source", "\"random\"").and_source(
        "random",
        &urls[0],
        &[
            ("auth", &super::accounts::auth()),
            ("token_hosts", &format!("[\"{}\"]", hosts[1].host())),
            ("blob_hosts", &cdn),
        ],
    );
    let mut bench = watch(setup.start());
    bench.mirror.canary("canary-bearer");
    let digest = entrepot_testkit::script::sha256(b"x");
    for n in 0..150 {
        for tail in [
            format!("manifests/{n}"),
            format!("blobs/{digest}"),
            "tags/list".to_owned(),
            format!("referrers/{digest}"),
        ] {
            let answer = bench.get(format!("/v2/team/app{n}/{tail}")).send().await;
            assert!(answer.status >= 200, "{answer:?}");
        }
    }
    let mut saw_password = BTreeSet::new();
    let mut saw_token = BTreeSet::new();
    for (n, host) in hosts.iter().enumerate() {
        for request in host.requests() {
            if saw_basic(&request) {
                saw_password.insert(n);
            }
            if request.header("authorization").is_some_and(|value| value.contains("canary-bearer")) {
                saw_token.insert(n);
            }
        }
    }
    assert!(saw_password.is_subset(&BTreeSet::from([0, 1])), "{saw_password:?}");
    assert!(!saw_password.is_empty() && !saw_token.is_empty(), "the walk has met both");
    assert_eq!(saw_token, BTreeSet::from([0]), "a token is the registry's own");
    assert_eq!(hosts[4].connections(), 0, "a host that nothing declares is not even connected to");
}
