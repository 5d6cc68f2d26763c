//! Images that are fetched before anyone asks.

use std::cell::RefCell;
use std::rc::Rc;

use entrepot_engine::warm::{Progress, Round};
use entrepot_oci::Digest;

use crate::memory::{Said, World, get, head};
use crate::samples::{digest, image_of};

const CONFIG: &str = r#"
  sources:
    - { name: "up", type: "registry", url: "https://up.example.com", names: ["up.test"], mirror: true }
  edge:
    warm:
      - images: ["up.test/app:v1", "up.test/tool:v2"]
        platforms: ["linux/amd64", "linux/arm/v7"]
"#;
const LAYERS: [&[u8]; 3] = [b"of amd64", b"of arm", b"of both"];
const CONFIG_BLOB: &[u8] = b"{}";
/// More than there are steps.
const ALL: usize = 1000;

/// An index of two wanted images and two others, and its images.
struct Sample {
    index: String,
    amd64: String,
    arm: String,
    tool: String,
}

impl Sample {
    fn new() -> Sample {
        let amd64 = image_of("amd64", &[LAYERS[0], LAYERS[2]]);
        let arm = image_of("arm", &[LAYERS[1], LAYERS[2]]);
        let child = |text: &str, os: &str, architecture: &str, variant: &str| {
            let (digest, size) = (digest(text), text.len());
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size},"platform":{{"os":"{os}","architecture":"{architecture}"{variant}}}}}"#
            )
        };
        let members = [
            child("not wanted", "windows", "amd64", ""),
            child("not wanted either", "linux", "arm", r#","variant":"v6""#),
            child("an attestation", "unknown", "unknown", ""),
            child(&arm, "linux", "arm", r#","variant":"v7""#),
            child(&amd64, "linux", "amd64", ""),
        ];
        let members = members.join(",");
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{members}]}}"#
        );
        Sample { index, amd64, arm, tool: image_of("tool", &[LAYERS[2]]) }
    }

    /// What a registry is asked for one after another, as the images come, platform by platform.
    fn served(&self) -> Vec<Said> {
        let by_digest = |text: &str| format!("app/manifests/{}", digest(text));
        let blob = |repository: &str, bytes: &[u8]| {
            get(&format!("{repository}/blobs/{}", digest(bytes))).blob(bytes)
        };
        vec![
            get("app/manifests/v1").manifest(&self.index),
            get(&by_digest(&self.amd64)).manifest(&self.amd64),
            blob("app", LAYERS[2]),
            blob("app", LAYERS[0]),
            blob("app", CONFIG_BLOB),
            get(&by_digest(&self.arm)).manifest(&self.arm),
            blob("app", LAYERS[1]),
            get("tool/manifests/v2").manifest(&self.tool),
        ]
    }

    fn objects(&self) -> Vec<Digest> {
        let texts = [&self.index, &self.amd64, &self.arm, &self.tool].map(digest);
        let mut all = [LAYERS.map(digest).to_vec(), texts.to_vec(), vec![digest(CONFIG_BLOB)]].concat();
        all.sort();
        all
    }
}

fn world() -> World {
    let world = World::new(CONFIG);
    world.store.fill_apart();
    world
}

fn warm(world: &World, progress: &mut Progress, steps: usize) -> Round {
    let done = Rc::new(RefCell::new(None));
    let (engine, mut going, slot) = (world.engine(), progress.clone(), done.clone());
    world.clock.spawn(async move {
        let round = engine.warm(&mut going, steps).await;
        *slot.borrow_mut() = Some((round, going));
    });
    world.clock.settle();
    while done.borrow().is_none() {
        assert!(world.clock.skip(), "warming waits for nothing");
    }
    world.clock.settle();
    let (round, going) = done.take().unwrap();
    *progress = going;
    round
}

/// All of it at once. The tool's blobs are there already; that upstream shows them there as well is asked once.
fn warmed(world: &World, sample: &Sample) -> Progress {
    for said in sample.served() {
        world.expect(said);
    }
    for blob in [LAYERS[2], CONFIG_BLOB] {
        world.expect(head(&format!("tool/blobs/{}", digest(blob))).blob(blob));
    }
    let mut progress = Progress::default();
    let round = warm(world, &mut progress, ALL);
    assert_eq!((round.fills, round.failures), (4, Vec::new()), "{progress:?}");
    progress
}

#[test]
fn a_warm_image_costs_upstream_nothing() {
    for apart in [true, false] {
        let (world, sample) = (World::new(CONFIG), Sample::new());
        if apart {
            world.store.fill_apart();
        }
        warmed(&world, &sample);
        assert_eq!(world.store.objects(), sample.objects());
        let asked = world.upstream.count();
        let [amd64, arm] = [&sample.amd64, &sample.arm].map(|text| format!("app/manifests/{}", digest(text)));
        for path in ["app/manifests/v1", &amd64, &arm, "tool/manifests/v2"] {
            assert_eq!(world.get(path).brief(), "200 HIT", "{path}");
        }
        for (repository, blob) in [("app", LAYERS[0]), ("app", LAYERS[1]), ("tool", LAYERS[2])] {
            let path = format!("{repository}/blobs/{}", digest(blob));
            assert_eq!(world.get(&path).brief(), "200 HIT", "{path}");
        }
        assert_eq!(world.upstream.count(), asked);
    }
}

#[test]
fn warming_goes_on_where_it_stopped() {
    let (whole, sample) = (world(), Sample::new());
    let at_once = warmed(&whole, &sample);
    let slow = world();
    for said in sample.served() {
        slow.expect(said);
    }
    for blob in [LAYERS[2], CONFIG_BLOB] {
        slow.expect(head(&format!("tool/blobs/{}", digest(blob))).blob(blob));
    }
    let mut progress = Progress::default();
    let mut steps = 0;
    loop {
        let round = warm(&slow, &mut progress, 1);
        if round.steps == 0 {
            break;
        }
        steps += round.steps;
        // As it is kept between two invocations.
        progress = serde_json::from_str(&serde_json::to_string(&progress).unwrap()).unwrap();
    }
    assert_eq!(steps, 1 + 2 + 6 + 1 + 2, "a step for each manifest and each blob");
    assert_eq!(slow.store.objects(), whole.store.objects());
    assert_eq!(progress, at_once);
    assert_eq!(slow.upstream.seen(), whole.upstream.seen());
}

#[test]
fn it_rests_until_tags_are_no_longer_believed_and_brings_back_what_is_gone() {
    let (world, sample) = (world(), Sample::new());
    let mut progress = warmed(&world, &sample);
    world.advance(3599.0);
    assert_eq!(warm(&world, &mut progress, ALL), Round::default());
    world.store.evict(digest(LAYERS[1]));
    world.advance(1.0);
    world
        .expect(head("app/manifests/v1").manifest(&sample.index))
        .expect(get(&format!("app/blobs/{}", digest(LAYERS[1]))).blob(LAYERS[1]))
        .expect(head("tool/manifests/v2").manifest(&sample.tool));
    let round = warm(&world, &mut progress, ALL);
    assert_eq!((round.fills, round.failures.len()), (1, 0), "{round:?}");
    assert_eq!(world.store.objects(), sample.objects());
}

#[test]
fn an_image_that_fails_keeps_no_other_from_being_warmed() {
    let (world, sample) = (world(), Sample::new());
    world.expect(get("app/manifests/v1").status(404));
    world.expect(get("tool/manifests/v2").manifest(&sample.tool));
    for blob in [LAYERS[2], CONFIG_BLOB] {
        world.expect(get(&format!("tool/blobs/{}", digest(blob))).blob(blob));
    }
    let round = warm(&world, &mut Progress::default(), ALL);
    assert_eq!(round.fills, 2);
    assert!(round.failures.len() == 1 && round.failures[0].starts_with("up.test/app:v1: "), "{round:?}");
}

/// What remains of a registry's pulls is for those who ask.
#[test]
fn a_source_that_grants_few_pulls_is_left_alone() {
    let (world, sample) = (world(), Sample::new());
    let few = get("app/manifests/v1")
        .manifest(&sample.index)
        .header(http::HeaderName::from_static("ratelimit-limit"), "100;w=21600")
        .header(http::HeaderName::from_static("ratelimit-remaining"), "5;w=21600");
    world.expect(few);
    let round = warm(&world, &mut Progress::default(), ALL);
    assert_eq!(round.fills, 0);
    assert_eq!(round.failures.len(), 2, "{round:?}");
    assert_eq!(world.upstream.count(), 1);
}

#[test]
fn another_configuration_begins_anew() {
    let other = CONFIG.replace("\"up.test/app:v1\", ", "");
    let (before, sample) = (world(), Sample::new());
    before.expect(get("app/manifests/v1").manifest(&sample.index));
    let mut progress = Progress::default();
    warm(&before, &mut progress, 1);
    let after = World::new(&other);
    after.store.fill_apart();
    after.expect(get("tool/manifests/v2").manifest(&sample.tool));
    let round = warm(&after, &mut progress, 1);
    assert!(round.failures.is_empty(), "{round:?}");
}
