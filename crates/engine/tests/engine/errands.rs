//! Work as a value: what is sent is what was meant, and what comes back is what was brought.

use std::sync::Arc;

use bytes::Bytes;
use entrepot_core::config;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::freshness::TagRecord;
use entrepot_core::list::ListAsk;
use entrepot_core::time::Wall;
use entrepot_core::upstream::What;
use entrepot_engine::errand::{self, Asked, Errand};
use entrepot_engine::{Held, Landed, Place, Work};
use entrepot_oci::tags::Page;

use crate::samples::{PRIVATE, digest, image};

fn config() -> config::Config {
    let text = format!("proxy:\n  endpoint: \"https://mirror.example.com\"\n{PRIVATE}");
    config::parse(&text, "test", &mut |_| Err("there are no secrets".into())).unwrap().config
}

fn place(config: &config::Config) -> Place {
    let source = Arc::clone(&config.sources[0]);
    let client = Some("192.0.2.7".parse().unwrap());
    Place { source, repository: "team/app".parse().unwrap(), trusted: true, credentialed: false, client }
}

fn record() -> TagRecord {
    TagRecord::new(digest(b"m"), 7, "application/vnd.oci.image.index.v1+json".parse().unwrap(), true, Wall(5))
}

#[test]
fn an_errand_arrives_as_it_was_sent() {
    let config = config();
    let place = place(&config);
    let tag: entrepot_oci::name::Tag = "v1".parse().unwrap();
    let works = [
        Work::Fetch(place.clone(), tag.clone().into()),
        Work::Look(place.clone(), digest(b"m").into()),
        Work::Revalidate(place.clone(), tag, record()),
        Work::Show(place.clone(), digest(b"b")),
        Work::Probe(place.clone(), What::Blob(digest(b"b"))),
        Work::List(place.clone(), ListAsk::Tags { page: Page::default(), query: "n=3".into() }),
    ];
    for work in works {
        let sent = serde_json::to_vec(&Errand::of(&work).unwrap()).unwrap();
        let arrived: Errand = serde_json::from_slice(&sent).unwrap();
        let Some(Asked::Work(arrived)) = arrived.asked(&config) else { panic!("{work:?} got lost") };
        assert_eq!(arrived.key(), work.key());
        assert_eq!(format!("{arrived:?}"), format!("{work:?}"));
    }
    let sent = serde_json::to_vec(&Errand::fill(&place, digest(b"b"))).unwrap();
    let arrived: Errand = serde_json::from_slice(&sent).unwrap();
    assert!(matches!(arrived.asked(&config), Some(Asked::Fill(_, found)) if found == digest(b"b")));
}

/// T-CR8: no password and no token is part of what is sent.
#[test]
fn t_cr8_an_errand_carries_no_secret() {
    let config = config();
    let errand = Errand::fill(&place(&config), digest(b"b"));
    assert!(!serde_json::to_string(&errand).unwrap().contains("pass"));
}

#[test]
fn an_errand_to_another_configuration_is_not_done() {
    let config = config();
    let errand = Errand::fill(&place(&config), digest(b"b"));
    assert!(errand.asked(&config::Config { sources: Vec::new(), ..config }).is_none());
}

#[test]
fn what_is_brought_comes_back_as_it_is() {
    let held = Held {
        digest: digest(image("one").as_bytes()),
        media_type: "application/vnd.oci.image.manifest.v1+json".parse().unwrap(),
        bytes: Bytes::from(image("one") + "\n\n"),
    };
    let outcomes = [
        Ok(Landed::Manifest(held)),
        Ok(Landed::Head(record())),
        Ok(Landed::Shown(Some(3))),
        Ok(Landed::Shown(None)),
        Ok(Landed::Public),
        Err(Failure::new(Reason::UpstreamRateLimited, "later")
            .internal("said so")
            .retry_after(std::time::Duration::from_millis(1500))),
    ];
    for outcome in outcomes {
        let back = errand::read(errand::spell(&outcome).into()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{outcome:?}"));
    }
    for strange in [&b""[..], b"\n", b"{}\n", b"null\n", b"{\"later\":1}\nx", b"no line"] {
        assert!(errand::read(Bytes::from_static(strange)).is_none(), "{strange:?}");
    }
}
