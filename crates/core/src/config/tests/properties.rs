//! No text makes the reader panic, and what is written can be read.

use proptest::prelude::*;

use super::*;
use crate::config::edge::{self, Place};
use crate::pattern::HostPattern;

/// Every key of the table, and some words.
fn vocabulary() -> Vec<&'static str> {
    let mut words = vec![
        "proxy",
        "~",
        "true",
        "-1",
        "0",
        "10s",
        "50GiB",
        "\"*\"",
        "[",
        "]",
        "{",
        "}",
        "&a",
        "*a",
        "- ",
        "? ",
        "|",
        ">",
        "!!int",
        "https://a.example.com",
        "http://10.0.0.1",
        "é",
        "\u{0}",
        "\t",
        "'",
        "\"",
        "#",
        "<<",
        "---",
        "...",
        "1/s",
        "::",
    ];
    for section in [
        &schema::PROXY,
        &schema::CACHE,
        &schema::ACCESS,
        &schema::SOURCE,
        &schema::AUTH,
        &schema::TLS,
        &schema::RATE_LIMIT,
        &schema::EDGE,
        &schema::WARM,
        &schema::TOKEN,
    ] {
        words.extend(section.keys.iter().map(|key| key.name));
    }
    words
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        _ = load(&text);
        _ = tree::json::read(&text);
    }

    #[test]
    fn text_that_looks_like_a_configuration_never_panics(
        lines in prop::collection::vec((0..6_usize, prop::sample::select(vocabulary()), any::<bool>(), prop::sample::select(vocabulary())), 0..30)
    ) {
        let mut text = String::from("proxy:\n");
        for (indent, key, item, value) in lines {
            let dash = if item { "- " } else { "" };
            text.push_str(&format!("{}{dash}{key}: {value}\n", "  ".repeat(indent)));
        }
        if let Err(Problems(problems)) = load(&text) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn texts_arrive_at_the_edge_as_they_were_written(username in any::<String>()) {
        let spelt = serde_json::to_string(&username).unwrap();
        let text = with_source(&[&format!("auth: {{ \"username\": {spelt}, password: p }}")])
            .replace("proxy:\n", "proxy:\n  endpoint: https://e.example.org\n  access: { tokens_env: T }\n");
        if let Ok(loaded) = edge::check(&text, "c", Place::Platform) {
            let bundle = edge::bundle(&text, "c", Place::Platform).unwrap();
            let again = edge::check(&bundle.value, "bundle", Place::Platform).unwrap();
            prop_assert_eq!(format!("{:?}", &again.config), format!("{:?}", loaded.config));
            let parsed = tree::json::read(&bundle.value);
            let one_client = &mut |_: &SecretRef| Ok(format!("name:{}", "0".repeat(64)));
            let deployed = read_all(parsed, Reader::new("bundle", Site::Edge, one_client)).unwrap();
            prop_assert_eq!(format!("{:?}", &deployed.config.sources), format!("{:?}", loaded.config.sources));
        }
    }

    #[test]
    fn durations_and_sizes_are_written_as_they_are_read(millis in 0..3_000_000_000_u64, bytes in 1..u64::MAX / 4) {
        use crate::config::units::{Size, duration_text, size_text};
        use crate::config::value::Scalar;
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(Duration::read(&duration_text(duration)).ok(), Some(duration));
        prop_assert_eq!(Size::read(&size_text(bytes)).ok(), Some(Size(bytes)));
    }

    #[test]
    fn values_never_panic(text in "\\PC{0,40}") {
        use crate::config::units::{Rate, Size};
        use crate::config::value::{HostName, Origin, Path, RegistryName, Scalar, Schedule, Sha256};
        use entrepot_oci::manifest::Platform;
        _ = (Duration::read(&text), Size::read(&text), Rate::read(&text), Origin::read(&text));
        _ = (WarmImage::read(&text), Platform::read(&text), Schedule::read(&text));
        _ = (RegistryName::read(&text), HostName::read(&text), Path::read(&text), Sha256::read(&text));
        _ = (text.parse::<HostPattern>(), text.parse::<crate::pattern::NamePattern>());
    }
}
