//! What is fetched before the client asks for it, and what is not.

use entrepot_oci::Digest;
use http::HeaderName;
use http::header::USER_AGENT;

use crate::access::challenged;
use crate::memory::{Ask, World, get, head};
use crate::samples::{KNOWN, OURS, digest, image_of, private, public};

const DOCKER: &str =
    "docker/24.0.7 go/go1.20.10 git-commit/311b9ff kernel/6.1.0 os/linux arch/arm64 UpstreamClient()";
const CONTAINERD: &str = "containerd/1.7.2";
const LAYERS: [&[u8]; 2] = [b"the first layer, some bytes long", b"the second layer, some bytes long"];
const CONFIG: &[u8] = b"{}";

fn by(agent: &str, ask: Ask) -> Ask {
    ask.header(USER_AGENT, agent)
}

fn image() -> String {
    image_of("arm64", &LAYERS)
}

/// An index of that image and of one for another platform.
fn index() -> String {
    let child = |text: &str, architecture: &str| {
        let (digest, size) = (digest(text), text.len());
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#
        )
    };
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{},{}]}}"#,
        child("another", "amd64"),
        child(&image(), "arm64")
    )
}

fn expect_blobs(world: &World) {
    for bytes in [CONFIG, LAYERS[0], LAYERS[1]] {
        world.expect(get(&format!("a/blobs/{}", digest(bytes))).blob(bytes));
    }
}

fn stored(world: &World, expected: &[&[u8]]) {
    let mut expected: Vec<Digest> = expected.iter().map(digest).collect();
    expected.sort_unstable();
    assert_eq!(world.store.objects(), expected);
}

#[test]
fn who_names_a_platform_has_its_image_on_the_way_with_the_index() {
    let world = public();
    world.expect(get("a/manifests/v1").manifest(&index()));
    world.expect(get(&format!("a/manifests/{}", digest(image()))).manifest(&image()).after(1.0));
    expect_blobs(&world);
    let tag = world.answer(by(DOCKER, Ask::get("a/manifests/v1")));
    assert_eq!((tag.brief(), tag.took), ("200 MISS".into(), 0), "it waits for nothing");
    world.advance(2.0);
    stored(&world, &[index().as_bytes(), image().as_bytes(), CONFIG, LAYERS[0], LAYERS[1]]);
    let asked = world.upstream.count();
    for path in [format!("a/manifests/{}", digest(image())), format!("a/blobs/{}", digest(LAYERS[1]))] {
        assert_eq!(world.answer(by(DOCKER, Ask::get(&path))).brief(), "200 HIT");
    }
    assert_eq!(world.upstream.count(), asked);
}

#[test]
fn who_names_none_has_the_blobs_on_the_way_with_the_image() {
    let world = public();
    world.expect(get("a/manifests/v1").manifest(&index()));
    let path = format!("a/manifests/{}", digest(image()));
    world.expect(get(&path).manifest(&image()));
    assert_eq!(world.answer(by(CONTAINERD, Ask::get("a/manifests/v1"))).brief(), "200 MISS");
    world.advance(2.0);
    assert_eq!(world.upstream.count(), 1);
    expect_blobs(&world);
    assert_eq!(world.answer(by(CONTAINERD, Ask::get(&path))).brief(), "200 MISS");
    world.advance(2.0);
    stored(&world, &[index().as_bytes(), image().as_bytes(), CONFIG, LAYERS[0], LAYERS[1]]);
}

#[test]
fn a_client_that_comes_meanwhile_follows() {
    let world = public();
    world.expect(get("a/manifests/v1").manifest(&image()));
    world.expect(get(&format!("a/blobs/{}", digest(CONFIG))).blob(CONFIG));
    world.expect(get(&format!("a/blobs/{}", digest(LAYERS[0]))).blob(LAYERS[0]).pause(4, 5.0));
    world.expect(get(&format!("a/blobs/{}", digest(LAYERS[1]))).status(404));
    assert_eq!(world.answer(by(CONTAINERD, Ask::get("a/manifests/v1"))).brief(), "200 MISS");
    world.advance(1.0);
    let layer = world.answer(by(CONTAINERD, Ask::get(&format!("a/blobs/{}", digest(LAYERS[0])))));
    assert_eq!((layer.brief(), &layer.body[..]), ("200 MISS".into(), LAYERS[0]));
    // What could not be had is what the client is told.
    let layer = world.get(&format!("a/blobs/{}", digest(LAYERS[1])));
    assert_eq!(layer.brief(), "404 BLOB_UNKNOWN");
}

#[test]
fn who_only_looks_has_nothing_on_the_way() {
    for agent in ["renovate/37.1", "crane/v0.19.0", "skopeo/1.9.3"] {
        let world = public();
        world.expect(get("a/manifests/v1").manifest(&image()));
        assert_eq!(world.answer(by(agent, Ask::get("a/manifests/v1"))).brief(), "200 MISS");
        world.advance(5.0);
        assert_eq!(world.upstream.count(), 1, "{agent}");
    }
    let world = public();
    world.expect(head("a/manifests/v1").manifest(&image()));
    assert_eq!(world.answer(by(DOCKER, Ask::head("a/manifests/v1"))).status, 200);
    world.advance(5.0);
    // What is held has been gone ahead of, or not, when it came.
    world.expect(get(&format!("a/manifests/{}", digest(image()))).manifest(&image()));
    assert_eq!(world.get(&format!("a/manifests/{}", digest(image()))).brief(), "200 MISS");
    assert_eq!(world.answer(by(DOCKER, Ask::get("a/manifests/v1"))).brief(), "200 HIT");
    world.advance(5.0);
    assert_eq!(world.upstream.count(), 2);
}

#[test]
fn where_nobody_follows_a_fill_nothing_is_fetched_twice() {
    let world = public();
    world.store.fill_apart();
    world.expect(get("a/manifests/v1").manifest(&image()));
    assert_eq!(world.answer(by(DOCKER, Ask::get("a/manifests/v1"))).brief(), "200 MISS");
    world.advance(5.0);
    assert_eq!(world.upstream.count(), 1);
}

/// The few pulls that are left are for what clients ask for.
#[test]
fn no_pull_is_spent_ahead_when_few_are_left() {
    let world = public();
    let limit = HeaderName::from_static("ratelimit-limit");
    let left = HeaderName::from_static("ratelimit-remaining");
    let said = get("a/manifests/v1").manifest(&index());
    world.expect(said.header(limit, "100;w=21600").header(left, "9;w=21600"));
    assert_eq!(world.answer(by(DOCKER, Ask::get("a/manifests/v1"))).brief(), "200 MISS");
    world.advance(5.0);
    assert_eq!(world.upstream.count(), 1);
}

/// T-AZ1: what came ahead of one client is nobody else's.
#[test]
fn t_az1_what_is_fetched_ahead_gives_nobody_a_right() {
    let world = private();
    world.expect(challenged(get("app/manifests/v1")));
    world.expect(get("app/manifests/v1").with(OURS).manifest(&image()));
    for bytes in [CONFIG, LAYERS[0], LAYERS[1]] {
        world.expect(get(&format!("app/blobs/{}", digest(bytes))).with(OURS).blob(bytes));
    }
    let known = by(DOCKER, Ask::get("app/manifests/v1")).from(KNOWN);
    assert_eq!(world.answer(known).brief(), "200 MISS");
    world.advance(5.0);
    let blob = format!("app/blobs/{}", digest(LAYERS[0]));
    world.expect(challenged(head(&blob)));
    assert_eq!(world.get(&blob).status, 401);
    assert_eq!(world.answer(Ask::get(&blob).from(KNOWN)).brief(), "200 HIT");
}
