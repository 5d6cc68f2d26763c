//! The edge before home before a registry: the Worker in its runtime, the binary, and what each tells the next.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use entrepot_testkit::edge::Edge;
use entrepot_testkit::http::{self, Response};
use entrepot_testkit::mirror::Mirror;
use entrepot_testkit::need;
use entrepot_testkit::real::{self, Door, Registry, Skopeo};
use entrepot_testkit::script::{Image, Method, Pattern, Reply, Tokens, Upstream, sha256};
use tokio::task::JoinSet;

/// Home's token for the edge, and the edge's for its client.
const HOME: &str = "canary-token-of-the-edge";
const LAPTOP: &str = "canary-token-of-the-laptop";
/// Where the client sits.
const CLIENT: &str = "203.0.113.9";
const STORED: Duration = Duration::from_secs(30);

/// A closed mirror, which the edge may ask for others. `source` says where the registry is, each line indented by six.
fn home(source: &str) -> Mirror {
    let mut home = Mirror::start(format!(
        r#"proxy:
  endpoint: "__ENDPOINT__"
  listen: "__LISTEN__"
  admin: "__ADMIN__"
  cache: {{ dir: "__CACHE__" }}
  access: {{ anonymous: false, tokens: [{{ name: "edge", sha256: "{}", forwards: true }}] }}
  sources:
    - name: "up"
      names: ["up.test"]
{source}"#,
        hash(HOME)
    ));
    home.canary(HOME);
    home
}

fn source(registry: &Upstream) -> String {
    format!("      url: \"{}\"\n      insecure: true\n      allow_private: true\n", registry.url())
}

/// A Worker that asks `home` for what `up.test` holds, and `alternate` while home is away.
fn edge(home: &Mirror, alternate: &str) -> Edge {
    let config = format!(
        r#"proxy:
  endpoint: "__ENDPOINT__"
  access: {{ tokens_env: "CLIENTS" }}
  sources:
    - name: "home"
      type: "entrepot"
      url: "{}"
      names: ["up.test"]
      mirror: true
      auth: {{ username: "edge", password_env: "HOME_TOKEN" }}
      alternates: ["{alternate}"]
      insecure: true
      allow_private: true
"#,
        home.url()
    );
    let clients = format!("laptop:{}", hash(LAPTOP));
    Edge::builder(config).secret("HOME_TOKEN", HOME).secret("CLIENTS", clients).start()
}

fn hash(secret: &str) -> String {
    sha256(secret.as_bytes()).trim_start_matches("sha256:").to_owned()
}

async fn ask(edge: &Edge, path: &str) -> Response {
    let basic = STANDARD.encode(format!("laptop:{LAPTOP}"));
    let call = http::get(edge.url(&format!("/v2/up.test/team/app/{path}"))).basic(&basic);
    // The platform says so of every request.
    call.header("cf-connecting-ip", CLIENT).send().await
}

/// Manifest, configuration and layers, each of them whole and right.
async fn pull(edge: &Edge, tag: &str, image: &Image) {
    let wanted = [(format!("manifests/{tag}"), &image.digest)].into_iter();
    for (path, digest) in wanted.chain(blobs(image)) {
        let answer = ask(edge, &path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}\n{}", edge.log());
        assert!(answer.clean_end && answer.digest == *digest, "{path}: {answer:?}");
    }
}

fn blobs(image: &Image) -> impl Iterator<Item = (String, &String)> {
    let digests = image.layer_digests.iter().chain([&image.config_digest]);
    digests.map(|digest| (format!("blobs/{digest}"), digest))
}

fn stored(edge: &Edge, digests: &[String]) {
    edge.wait_until(STORED, "what was pulled is stored", |edge| {
        let held = edge.r2_keys();
        digests.iter().all(|digest| held.contains(&format!("objects/{}", digest.replace(':', "/"))))
    });
}

fn digests(image: &Image) -> Vec<String> {
    image.layer_digests.iter().chain([&image.config_digest, &image.digest]).cloned().collect()
}

fn answered(home: &Mirror) -> f64 {
    home.metric("entrepot_requests_total", &[])
}

/// What the edge holds costs home and the registry nothing. Home knows for whom the edge asked, the registry does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_pull_reaches_neither_home_nor_the_registry() {
    need!("a_second_pull_reaches_neither_home_nor_the_registry", "node");
    let image = Image::of(vec![Pattern::new(1, 200_000).into(), Pattern::new(2, 3_000_000).into()]);
    let registry = Upstream::start();
    registry.serve_image("team/app", "v1", &image);
    let home = home(&source(&registry));
    let nobody = Upstream::start_on([127, 0, 0, 4]);
    let edge = edge(&home, &nobody.url());

    pull(&edge, "v1", &image).await;
    stored(&edge, &digests(&image));
    let paths = ["manifests/v1".to_owned()].into_iter().chain(blobs(&image).map(|(path, _)| path));
    let paths: Vec<String> = paths.collect();
    let log = home.log_with(&paths.iter().map(String::as_str).collect::<Vec<_>>());
    let told = |line: &&str| line.contains("\"client\":\"edge\"") && line.contains(CLIENT);
    for path in paths {
        let mut lines = log.lines().filter(|line| line.contains(&path));
        assert!(lines.any(|line| told(&line)), "home was not told for whom it is asked for {path}:\n{log}");
    }
    for request in registry.requests() {
        assert_eq!(request.header("entrepot-client"), None, "{request:?}");
        assert!(!format!("{request:?}").contains(CLIENT), "{request:?}");
    }

    let before = (answered(&home), registry.requests().len());
    pull(&edge, "v1", &image).await;
    pull(&edge, &image.digest, &image).await;
    assert_eq!((answered(&home), registry.requests().len()), before);
    assert!(nobody.requests().is_empty());
}

/// Fifty clients at once, and nothing held anywhere: home fetches each object once, however many ask the edge.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_cold_clients_cost_the_registry_each_byte_once() {
    need!("fifty_cold_clients_cost_the_registry_each_byte_once", "node");
    let image = Image::of(vec![Pattern::new(3, 400_000).into(), Pattern::new(4, 2_000_000).into()]);
    let registry = Upstream::start();
    registry.serve_image("team/app", "v1", &image);
    let home = home(&source(&registry));
    let nobody = Upstream::start_on([127, 0, 0, 4]);
    let edge = Arc::new(edge(&home, &nobody.url()));

    fifty(&edge, &image).await;
    stored(&edge, &digests(&image));
    let sizes = [400_000, 2_000_000, image.config.len() as u64];
    for ((path, _), size) in blobs(&image).zip(sizes) {
        let path = format!("/v2/team/app/{path}");
        assert_eq!(registry.bytes_sent(path.as_str()), size, "{path}: {:#?}", registry.summary());
    }
    assert_eq!(registry.count(Method::Get, "/v2/team/app/manifests/v1"), 1, "{:#?}", registry.summary());
    let fetched = home.metric("entrepot_upstream_bytes_total", &["source=\"up\""]);
    assert_eq!(fetched, sizes.iter().sum::<u64>() as f64);

    let before = (answered(&home), registry.requests().len());
    fifty(&edge, &image).await;
    assert_eq!((answered(&home), registry.requests().len()), before);
    assert!(nobody.requests().is_empty());
}

/// Fifty pulls, side by side.
async fn fifty(edge: &Arc<Edge>, image: &Image) {
    let mut pulls = JoinSet::new();
    for _ in 0..50 {
        let (edge, image) = (edge.clone(), image.clone());
        pulls.spawn(async move { pull(&edge, "v1", &image).await });
    }
    pulls.join_all().await;
}

/// T-CR2: while home is away the registry is asked as by anyone; neither it, nor who gives its tokens, nor where it
/// redirects to hears of home, its token or the client.
#[tokio::test(flavor = "multi_thread")]
async fn t_cr2_without_home_the_registry_is_asked_as_by_anyone() {
    need!("t_cr2_without_home_the_registry_is_asked_as_by_anyone", "node");
    let [first, second] = [Image::small(1), Image::small(2)];
    let behind = Upstream::start();
    behind.serve_image("team/app", "v1", &first);
    let mut home = home(&source(&behind));
    let registry = Upstream::start_on([127, 0, 0, 4]);
    let cdn = Upstream::start_on([127, 0, 0, 2]);
    let tokens = Tokens::new();
    registry.serve_tokens("/token", &tokens);
    registry.require_tokens(&tokens, &format!("{}/token", registry.url()), "registry");
    registry.serve_image("team/app", "v1", &first);
    registry.serve_image("team/app", "v2", &second);
    let blob = format!("/v2/team/app/blobs/{}", second.layer_digests[0]);
    registry.on(Method::Any, &blob).reply(Reply::redirect(307, format!("{}/layer", cdn.url())));
    cdn.on(Method::Any, "/layer").reply(Reply::ok(second.layers[0].clone()));
    let edge = edge(&home, &registry.url());

    pull(&edge, "v1", &first).await;
    assert!(registry.requests().is_empty(), "home is there: {:?}", registry.summary());
    stored(&edge, &digests(&first));
    home.kill9();
    pull(&edge, "v2", &second).await;
    stored(&edge, &digests(&second));
    assert!(tokens.issued_in_all() >= 1 && cdn.count(Method::Any, "/layer") >= 1);
    let secrets = [STANDARD.encode(format!("edge:{HOME}")), HOME.into(), LAPTOP.into(), CLIENT.into()];
    for request in registry.requests().iter().chain(&cdn.requests()) {
        for (name, value) in &request.headers {
            assert!(!secrets.iter().any(|secret| value.contains(secret)), "{name}: {value}");
            assert_ne!(name, "entrepot-client");
        }
        assert!(!secrets.iter().any(|secret| request.target.contains(secret)), "{request:?}");
        assert_eq!(request.query_param("ns"), None, "{request:?}");
    }
    assert!(cdn.requests().iter().all(|request| request.credentials().is_empty()));
    // What was held before is served all the same.
    pull(&edge, "v1", &first).await;
}

/// A real client, a registry that wants tokens and redirects its blobs, and at the end the edge alone.
#[test]
fn skopeo_through_edge_and_home() {
    need!("skopeo_through_edge_and_home", "node", "docker-registry", "openssl", "skopeo");
    let mut registry = Registry::redirecting();
    let image = real::Image::multi_arch("chain");
    registry.push("team/app", Some("1"), &image);
    let mut home = home(&registry.source("      "));
    let nobody = Upstream::start_on([127, 0, 0, 4]);
    let edge = edge(&home, &nobody.url());
    let door = Door::before(edge.address());
    let direct = Skopeo::copy(&format!("{}/team/app:1", registry.address())).expect("a direct copy");
    assert_eq!(direct["manifest.json"], image.digest());
    registry.forget();

    let user = format!("laptop:{LAPTOP}");
    let reference = format!("{}/up.test/team/app:1", door.address());
    let copy = |what: &str| {
        let got = Skopeo::copy_as(None, Some(&user), &reference);
        assert_eq!(got.unwrap_or_else(|error| panic!("{what}: {error}\n{}", edge.log())), direct, "{what}");
    };
    copy("cold");
    stored(&edge, &image.digests().into_iter().collect::<Vec<_>>());
    for blob in &image.blobs {
        assert_eq!(registry.bytes_of(&blob.digest), blob.size, "{}", blob.digest);
    }
    let before = (answered(&home), registry.seen().len());
    copy("warm");
    assert_eq!((answered(&home), registry.seen().len()), before);
    registry.stop();
    home.kill9();
    copy("the edge alone");
    Skopeo::copy(&reference).expect_err("a stranger gets nothing");
}
