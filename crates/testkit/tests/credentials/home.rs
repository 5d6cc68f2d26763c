//! A mirror before another one: what home is told, and what those hear who stand in for it.

use entrepot_testkit::script::{Image, Method, Reply, Tokens, Upstream, sha256};

use super::accounts::{PASSWORD, auth, basic, watch};
use crate::common::{Bench, assert_error};

/// Where the client sits that the outer mirror serves.
const CLIENT: &str = "203.0.113.9";

/// A closed mirror, which one client may ask for others.
fn home() -> Bench {
    let digest = sha256(PASSWORD.as_bytes());
    let hash = digest.trim_start_matches("sha256:");
    let tokens = format!("[{{ name: \"edge\", sha256: \"{hash}\", forwards: true }}]");
    watch(Bench::setup().proxy("access", format!("{{ anonymous: false, tokens: {tokens} }}")).start())
}

/// A mirror that asks `home` for what `up.test` holds, and `alternate` while home is away.
fn outer(home: &Bench, alternate: Upstream) -> Bench {
    let registry = format!("[\"{}\"]", alternate.url());
    let setup = Bench::setup_over(alternate)
        .source("type", "entrepot")
        .source("url", home.mirror.url())
        .source("alternates", registry)
        .source("auth", auth())
        .proxy("trusted_proxies", "[\"127.0.0.0/8\"]")
        .proxy("access", "{ networks: [\"203.0.113.0/24\"] }");
    watch(setup.start())
}

/// T-CR2: home's credentials stay at home. It learns for whom it is asked, and while it is away the registry is asked as
/// by anyone: neither it nor what it redirects to hears of home.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr2_home_is_told_for_whom_and_its_stand_in_nothing() {
    let [first, second] = [Image::small(1), Image::small(2)];
    let mut home = home();
    home.upstream.serve_image("team/app", "v1", &first);
    let registry = Upstream::start_on([127, 0, 0, 4]);
    let cdn = Upstream::start_on([127, 0, 0, 2]);
    let tokens = Tokens::new();
    registry.serve_tokens("/token", &tokens);
    registry.require_tokens(&tokens, &format!("{}/token", registry.url()), "registry");
    registry.serve_image("team/app", "v2", &second);
    let blob = format!("/v2/team/app/blobs/{}", second.layer_digests[0]);
    registry.on(Method::Any, &blob).reply(Reply::redirect(307, format!("{}/layer", cdn.url())));
    cdn.on(Method::Any, "/layer").reply(Reply::ok(second.layers[0].clone()));
    let outer = outer(&home, registry);

    let pull = async |path: String| {
        let answer = outer.get(path).header("x-forwarded-for", CLIENT).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    };
    pull("/v2/team/app/manifests/v1".into()).await;
    pull(format!("/v2/team/app/blobs/{}", first.layer_digests[0])).await;
    let log = home.mirror.log_with(&["/manifests/v1", &first.layer_digests[0]]);
    let told = log.lines().filter(|line| line.contains("\"client\":\"edge\"") && line.contains(CLIENT));
    assert_eq!(told.count(), 2, "{log}");
    assert!(!home.upstream.requests().iter().any(|request| request.header("entrepot-client").is_some()));
    // What is held costs neither of them anything.
    let asked = home.upstream.requests().len();
    pull("/v2/team/app/manifests/v1".into()).await;
    assert_eq!((home.upstream.requests().len(), outer.upstream.requests().len()), (asked, 0));

    home.mirror.kill9();
    pull("/v2/team/app/manifests/v2".into()).await;
    pull(blob).await;
    assert!(tokens.issued_in_all() >= 1 && cdn.count(Method::Any, "/layer") >= 1);
    for request in outer.upstream.requests().iter().chain(&cdn.requests()) {
        let secrets = [basic(), PASSWORD.to_owned(), CLIENT.to_owned()];
        for (name, value) in &request.headers {
            assert!(!secrets.iter().any(|secret| value.contains(secret)), "{name}: {value}");
            assert_ne!(name, "entrepot-client");
        }
        assert_eq!(request.query_param("ns"), None, "{request:?}");
    }
    assert!(cdn.requests().iter().all(|request| request.credentials().is_empty()));
}

/// T-CR8: a secret in the address lets its client in, and is in no log line, metric or request upstream.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr8_a_secret_in_the_address_stays_between_us_and_its_client() {
    const SECRET: &str = "canary-secret-0123456789";
    let line = format!("laptop:{}", sha256(SECRET.as_bytes()).trim_start_matches("sha256:"));
    let image = Image::small(1);
    let mut bench = Bench::setup()
        .env("ENTREPOT_LOG", "debug")
        .env("HOSTS", &line)
        .env("PATHS", line.replace("laptop", "builder"))
        .proxy("endpoint", "http://mirror.test")
        .proxy("access", "{ anonymous: false, secret_hosts_env: \"HOSTS\", secret_paths_env: \"PATHS\" }")
        .start();
    bench.mirror.canary(SECRET);
    bench.upstream.serve_image("team/app", "v1", &image);
    let list = serde_json::json!({"name": "team/app", "tags": ["v1"]});
    let next = "</v2/team/app/tags/list?n=1&last=v1>; rel=\"next\"";
    bench
        .upstream
        .on(Method::Any, "/v2/team/app/tags/list")
        .reply(Reply::json(200, &list).header("link", next));

    let host = format!("{SECRET}.mirror.test");
    let by_host = bench.get("/v2/team/app/manifests/v1").host(&host).send().await;
    let by_path = bench.get(format!("/{SECRET}/v2/team/app/manifests/v1")).send().await;
    let pinged = bench.get(format!("/{SECRET}/up.test/v2/")).send().await;
    let listed = bench.get(format!("/{SECRET}/v2/team/app/tags/list?n=1")).send().await;
    assert_eq!([by_host.status, by_path.status, pinged.status, listed.status], [200; 4]);
    let link = format!("</{SECRET}/v2/team/app/tags/list?n=1&last=v1>; rel=\"next\"");
    assert_eq!(listed.header("link"), Some(link.as_str()));
    // Another client's list leads to that client's own place.
    let listed = bench.get("/v2/team/app/tags/list?n=1").host(&host).send().await;
    assert_eq!(listed.header("link"), Some("</v2/team/app/tags/list?n=1&last=v1>; rel=\"next\""));

    for (path, host) in [
        ("/v2/team/app/manifests/v1".to_owned(), "mirror.test".to_owned()),
        ("/v2/team/app/manifests/v1".to_owned(), format!("x{SECRET}.mirror.test")),
    ] {
        assert_error(&bench.get(&path).host(&host).send().await, 401, "UNAUTHORIZED");
    }
    for path in [format!("/x{SECRET}/v2/team/app/manifests/v1"), format!("/v2/{SECRET}/app/manifests/v1")] {
        assert_error(&bench.get(&path).send().await, 404, "NAME_UNKNOWN");
    }
    let log = bench.mirror.log_with(&["/v2/***/app/manifests/v1"]);
    assert!(log.contains("\"client\":\"laptop\"") && log.contains("\"client\":\"builder\""), "{log}");
    assert!(log.contains("/***/v2/team/app/manifests/v1"), "{log}");
    for request in bench.upstream.requests() {
        assert!(!format!("{request:?}").contains(SECRET), "{request:?}");
    }
}
