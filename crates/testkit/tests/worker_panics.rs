//! A request in which the module panics: it alone fails, and the next one is served by a new instance.

use std::fs;
use std::path::Path;
use std::time::Duration;

use entrepot_testkit::edge::{self, Edge};
use entrepot_testkit::http;
use entrepot_testkit::need;
use entrepot_testkit::script::{Image, Upstream};

/// Makes the module panic in the requests that ask for it: where the platform's own fields are broken, its crate does.
const PANICS: &str = r#"
const real = Object.getOwnPropertyDescriptor(Request.prototype, "cf");
Object.defineProperty(Request.prototype, "cf", {
  configurable: true,
  get() {
    if (!this.url.includes("/v2/boom/")) return real.get.call(this);
    return { get colo() { throw new Error("no such place"); } };
  },
});
"#;

/// T-CS6: only the request that panics fails, in the registry's words; others, and the next ones, are served.
#[tokio::test(flavor = "multi_thread")]
async fn t_cs6_a_request_that_panics() {
    need!("t_cs6_a_request_that_panics", "node");
    let directory = tempfile::tempdir().expect("a directory");
    let copy = |name: &str| fs::read(Path::new(&edge::bundle()).join(name)).expect("the bundle");
    fs::write(directory.path().join("index_bg.wasm"), copy("index_bg.wasm")).expect("the module");
    let text = String::from_utf8(copy("index.js")).expect("the script is text");
    fs::write(directory.path().join("index.js"), format!("{PANICS}{text}")).expect("the script");

    let upstream = Upstream::start();
    upstream.serve_image("team/app", "v1", &Image::small(1));
    let mut edge = Edge::builder(format!(
        "proxy:\n  endpoint: __ENDPOINT__\n  access: {{ anonymous: true }}\n  sources:\n    - {{ name: up, type: registry, url: \"{}\", insecure: true, allow_private: true }}\n",
        upstream.url()
    ))
    .bundle(directory.path())
    .start();
    edge.may_panic();
    for _ in 0..3 {
        let boom =
            http::get(edge.url("/v2/boom/app/manifests/v1")).limit(Duration::from_secs(10)).send().await;
        assert_eq!((boom.status, boom.error_code().as_str()), (500, "UNKNOWN"), "{boom:?}");
        let good =
            http::get(edge.url("/v2/team/app/manifests/v1")).limit(Duration::from_secs(10)).send().await;
        assert_eq!(good.status, 200, "{good:?}");
    }
    assert!(edge.log().contains("starting a new WebAssembly instance"));
}
