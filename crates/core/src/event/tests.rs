use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn log(target: &str, status: u16) -> RequestLog {
    RequestLog {
        client: None,
        address: IpAddr::from([192, 0, 2, 1]),
        method: Method::Get,
        route: Route::Manifest,
        target: Text::new(target),
        user_agent: None,
        source: Some("dockerhub".into()),
        status,
        verdict: Some(Verdict::Hit),
        reason: None,
        internal: None,
        bytes: 0,
        upstream_bytes: 0,
        first_byte: Duration::ZERO,
        total: Duration::ZERO,
        aborted: false,
    }
}

#[test]
fn t_hc9_foreign_text_stays_on_its_line() {
    for (foreign, safe) in [
        ("a/b:latest", "a/b:latest"),
        ("a\r\nlevel=error", "a\\u{d}\\u{a}level=error"),
        ("\u{1b}[31mred", "\\u{1b}[31mred"),
        ("nul\0tab\t", "nul\\u{0}tab\\u{9}"),
        ("line\u{2028}sep\u{2029}", "line\\u{2028}sep\\u{2029}"),
        ("\u{202e}drawkcab", "\\u{202e}drawkcab"),
        ("zero\u{200b}width", "zero\\u{200b}width"),
        ("c1\u{9b}31m", "c1\\u{9b}31m"),
        ("back\\slash", "back\\u{5c}slash"),
        ("ümläut 漢字", "ümläut 漢字"),
    ] {
        assert_eq!(Text::new(foreign).as_str(), safe);
    }
    assert_eq!(Text::from_bytes(b"a\xff\nb").as_str(), "a\u{fffd}\\u{a}b");
}

#[test]
fn t_hc9_foreign_text_is_short() {
    let text = Text::new(&"x".repeat(100_000));
    assert_eq!(text.as_str().chars().count(), MAX_TEXT + 1);
    assert!(text.as_str().ends_with('…'));
    assert_eq!(Text::from_bytes(&vec![b'x'; 1 << 20]).as_str(), text.as_str());
}

/// T-OL6, T-HC9: repositories, tags and user agents make no labels.
#[test]
fn t_ol6_labels_are_as_many_whatever_clients_ask() {
    let labels =
        |log: &RequestLog| log.clone().into_labels().pairs().map(|(key, value)| format!("{key}={value}"));
    let distinct: BTreeSet<_> =
        (0..10_000u16).map(|n| labels(&log(&format!("/v2/random-{n}/manifests/{n}"), 200 + n % 5))).collect();
    assert_eq!(distinct.len(), 1);
    assert_eq!(Method::of(&http::Method::from_bytes(b"INVENTED").unwrap()).label(), "other");
}

#[test]
fn labels_are_unique_and_plain() {
    let mut seen = BTreeSet::new();
    for label in Route::ALL.iter().map(|route| route.label()).chain(Verdict::ALL.iter().map(|v| v.label())) {
        assert!(seen.insert(label), "{label} twice");
        assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
    }
}

proptest! {
    #[test]
    fn t_hc9_no_text_breaks_a_line_or_turns_a_terminal(foreign in ".{0,600}", raw in proptest::collection::vec(any::<u8>(), 0..600)) {
        for text in [Text::new(&foreign), Text::from_bytes(&raw)] {
            let text = text.as_str();
            prop_assert!(!text.chars().any(char::is_control));
            let is_invisible = |c| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            prop_assert!(!text.chars().any(is_invisible));
        }
    }
}
