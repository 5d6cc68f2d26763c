//! What isolates tell one another through KV, and what hangs on it: nothing but politeness.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use entrepot_testkit::edge::{self, Edge};
use entrepot_testkit::script::{Image, Method, Reply, Upstream, sha256};
use serde_json::json;

use crate::common::{Bench, assert_error};
use crate::doors::requests;

const TAG: &str = "/v2/team/app/manifests/1";
const SOON: Duration = Duration::from_secs(10);

fn millis_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    now + seconds * 1000
}

/// How Docker Hub words that an account or address has had its pulls.
const PULLS: &str = "You have reached your pull rate limit.";

fn limited(seconds: u64, message: &str) -> Reply {
    let said = serde_json::json!({ "errors": [{ "code": "TOOMANYREQUESTS", "message": message }] });
    Reply::json(429, &said).header("retry-after", seconds.to_string())
}

/// T-RL7: a registry that grants no more pulls is asked for none, by isolates that were not told themselves too.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl7_a_pull_limit_outlives_the_isolate_and_not_its_time() {
    outlives(PULLS).await;
}

/// T-RL8: one that wants to be left alone altogether is.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl8_an_abuse_limit_outlives_the_isolate_and_not_its_time() {
    outlives("Too many requests.").await;
}

async fn outlives(message: &str) {
    let mut bench = Bench::new();
    bench.upstream.on(Method::Read, "/v2/*").reply(limited(6, message));
    let start = std::time::Instant::now();
    let first = bench.get(TAG).send().await;
    assert_error(&first, 429, "TOOMANYREQUESTS");
    bench.mirror.edge.wait_until(SOON, "it is told", |edge| !edge.kv("refusals").is_empty());
    let asked = bench.upstream.requests().len();
    bench.restart();
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "1", &image);
    let mut early = 0;
    while start.elapsed() < Duration::from_secs(5) {
        let again = bench.get("/v2/team/other/manifests/2").send().await;
        assert_error(&again, 429, "TOOMANYREQUESTS");
        assert!(again.header("retry-after").is_some(), "{again:?}");
        early += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(early > 0, "the restart took too long for this test to say anything");
    assert_eq!(bench.upstream.requests().len(), asked, "{:?}", bench.upstream.summary());
    let good = bench.eventually(TAG, "its time has passed", |answer| answer.status == 200).await;
    assert_eq!(good.digest, image.digest);
}

/// What is held is served with a warning while upstream is away, by an isolate that has never met it.
#[tokio::test(flavor = "multi_thread")]
async fn stale_on_error_with_a_warning() {
    let mut bench = Bench::setup().cache("manifest_ttl", "1s").start();
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "1", &image);
    let blob = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
    assert_eq!(bench.get(TAG).send().await.status, 200);
    assert_eq!(bench.get(&blob).send().await.status, 200);
    bench.settle();
    bench.upstream.stop();
    bench.restart();
    let stale = bench.eventually(TAG, "it is old", |answer| answer.header("warning").is_some()).await;
    assert_eq!((stale.status, &stale.digest), (200, &image.digest), "{stale:?}");
    assert!(stale.header("warning").is_some_and(|warning| warning.starts_with("299 - \"")), "{stale:?}");
    let held = bench.get(&blob).send().await;
    assert_eq!((held.status, &held.digest, held.header("warning")), (200, &image.layer_digests[0], None));
}

/// Errors are kept under the time at which they happened, and not each of a storm.
#[tokio::test(flavor = "multi_thread")]
async fn errors_are_kept_under_their_time() {
    let bench = Bench::new();
    bench.upstream.on(Method::Read, "/v2/*").reply(Reply::status(500));
    for n in 0..5 {
        assert_eq!(bench.get(format!("/v2/team/app/manifests/{n}")).send().await.status / 100, 5);
    }
    bench.mirror.edge.wait_until(SOON, "an error is kept", |edge| !edge.kv("error:").is_empty());
    let kept = bench.mirror.edge.kv("error:");
    assert_eq!(kept.len(), 1, "one in ten seconds: {kept:?}");
    let (key, value) = kept.first_key_value().expect("an error");
    assert!(key.starts_with("error:20") && key.ends_with('Z'), "{key}");
    let line: serde_json::Value = serde_json::from_str(value).expect("JSON");
    assert_eq!((&line["status"], &line["source"]), (&json!(502), &json!("up")), "{line}");
}

/// T-WK4: what KV says of refusals may be old, forged or no JSON at all: it costs a question too many or too few until its
/// own time has passed, and opens nothing.
#[tokio::test(flavor = "multi_thread")]
async fn t_wk4_whatever_kv_says_no_verdict_on_access_changes() {
    let access = format!(
        "{{ anonymous: false, tokens: [{{ name: \"ci\", sha256: \"{}\" }}] }}",
        sha256(b"canary-token").trim_start_matches("sha256:")
    );
    let mut bench = Bench::setup().proxy("access", access).start();
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "1", &image);
    let known = "Y2k6Y2FuYXJ5LXRva2Vu";
    let until = |seconds: i64| {
        let of = json!({ "pulls": { "source": "up", "credentialed": false } });
        json!([{ "of": of, "until": millis_from_now(seconds) }]).to_string()
    };
    for (name, told, status) in [
        ("nonsense", "[[[".to_owned(), 200),
        ("another shape", "{\"up\": true}".to_owned(), 200),
        ("over", until(-60), 200),
        ("of another source", until(600).replace("up", "down"), 200),
        ("in force", until(600), 429),
    ] {
        bench.mirror.edge.kv_put("refusals", &told);
        bench.restart();
        let path = format!("/v2/team/app/manifests/{}", if status == 200 { "1" } else { "2" });
        assert_eq!(bench.get(&path).send().await.status, 401, "{name}");
        let answer = bench.get(&path).basic(known).send().await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
    }
    bench.mirror.edge.kv_delete("refusals");
}

/// T-WK4: a password that KV does not have, or has no more, opens nothing: upstream says so, and content that rests on it is
/// denied.
#[tokio::test(flavor = "multi_thread")]
async fn t_wk4_a_password_in_kv_that_is_missing_or_old_is_refused() {
    let upstream = Upstream::start();
    upstream.require_basic("dXM6Y2FuYXJ5LW5ldw==");
    let mut bench = Bench::setup_over(upstream)
        .source("auth", "{ username: \"us\", password_kv: \"password:up\" }")
        .proxy("access", "{ networks: [\"127.0.0.0/8\"] }")
        .cache("manifest_ttl", "0")
        .start();
    for secret in ["canary-new", "canary-old"] {
        bench.mirror.canary(secret);
    }
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "1", &image);
    let missing = bench.get(TAG).send().await;
    assert!(missing.status >= 500, "{missing:?}");
    assert!(bench.upstream.requests().is_empty(), "not even as anyone: {:?}", bench.upstream.summary());
    for (password, status) in [("canary-new", 200), ("canary-old", 401)] {
        bench.mirror.edge.kv_put("password:up", password);
        bench.restart();
        let answer = bench.get(TAG).send().await;
        assert!(answer.status == status || (status == 401 && answer.status == 403), "{password}: {answer:?}");
    }
}

/// The script under test with a KV namespace that takes no write, and answers reads late and with what it held at the
/// beginning: what 429 for a second write in a second and a minute of staleness come to.
fn with_stubborn_kv() -> tempfile::TempDir {
    const STUBBORN: &str = r#"
const stubborn = (env) => ({ ...env, ERRORS: {
  async get(key) { await scheduler.wait(50); return null; },
  async getWithMetadata(key) { await scheduler.wait(50); return { value: null, metadata: null }; },
  async put(key) { await scheduler.wait(50); throw new Error("KV PUT failed: 429 Too Many Requests"); },
  async delete(key) { throw new Error("KV DELETE failed: 429 Too Many Requests"); },
  async list() { return { keys: [], list_complete: true }; },
}});
const wrapped = (Base) => class extends Base { constructor(state, env) { super(state, stubborn(env)); } };
const __wrappedFlights = wrapped(__Flights);
const __wrappedLedger = wrapped(__Ledger);
export { __wrappedFlights as Flights, __wrappedLedger as Ledger };
export default {
  fetch: (request, env, context) => __default.fetch(request, stubborn(env), context),
  scheduled: (event, env, context) => __default.scheduled(event, stubborn(env), context),
};
"#;
    let script = std::fs::read_to_string(edge::bundle().join("index.js")).expect("the script");
    let at = script.rfind("export {").or_else(|| script.rfind("export{")).expect("what it exports");
    let end = at + script[at..].find('}').expect("the end of that");
    let names = script[at..end].split_once('{').expect("names").1;
    let mut renamed = String::new();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let (local, exported) = name.split_once(" as ").unwrap_or((name, name));
        renamed.push_str(&format!("const __{exported} = {local};\n"));
    }
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("index.js"), format!("{}\n{renamed}{STUBBORN}", &script[..at]))
        .expect("the script");
    std::fs::copy(edge::bundle().join("index_bg.wasm"), directory.path().join("index_bg.wasm"))
        .expect("the module");
    directory
}

/// T-WK4: writes that KV refuses (one a second is all that it takes of a key) reach no client and decide nothing.
#[tokio::test(flavor = "multi_thread")]
async fn t_wk4_writes_that_kv_refuses_reach_nobody() {
    let script = with_stubborn_kv();
    let mut setup = Bench::setup();
    let edge: Edge = setup.worker().bundle(script.path()).start();
    let bench = setup.before(edge);
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "1", &image);
    bench.upstream.on(Method::Read, "/v2/team/broken/manifests/1").reply(Reply::status(500));
    assert_eq!(bench.get("/v2/team/broken/manifests/1").send().await.status, 502);
    for _ in 0..2 {
        let good = bench.get(TAG).send().await;
        assert_eq!((good.status, &good.digest), (200, &image.digest), "{good:?}");
    }
    bench.upstream.on(Method::Read, "/v2/team/limited/manifests/1").reply(limited(30, PULLS));
    for _ in 0..3 {
        assert_error(&bench.get("/v2/team/limited/manifests/1").send().await, 429, "TOOMANYREQUESTS");
    }
    assert_eq!(bench.upstream.count(Method::Read, "/v2/team/limited/manifests/1"), 1, "it knows for itself");
    bench
        .mirror
        .edge
        .wait_until(SOON, "the log says that KV refuses", |edge| edge.log().contains("429 Too Many"));
    assert!(bench.mirror.edge.kv("").is_empty());
    assert!(requests(&bench.mirror.log()).iter().all(|line| line["reason"] != "internal"));
}
