//! The properties of `harness`, for texts that nearly fit each grammar: arbitrary bytes seldom come so far.

use entrepot_oci::link;
use entrepot_oci::{Algorithm, Digest, Hasher, Reference, Repository};
use proptest::prelude::*;

use crate::harness;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn t_bi3_digests(text in "(sha256|sha512|sha1|SHA256)?[:-]?([0-9a-f]{64}|[0-9a-f]{128}|[0-9a-fA-F]{62,66})\\PC?") {
        harness::digest(text.as_bytes());
    }

    #[test]
    fn t_bi3_a_digest_reads_what_it_writes(bytes in any::<Vec<u8>>(), cut in any::<prop::sample::Index>()) {
        for &algorithm in Algorithm::ALL {
            let digest = Digest::of(algorithm, &bytes);
            prop_assert_eq!(digest.to_string().parse::<Reference>(), Ok(Reference::Digest(digest)));
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            let mut hasher = Hasher::new(algorithm);
            hasher.update(head);
            hasher.update(tail);
            prop_assert_eq!(hasher.finish(), digest);
        }
    }

    #[test]
    fn t_bi4_names(text in "[a-zA-Z0-9._/:@%-]{0,40}|\\PC{0,20}|[a-z0-9]{1,3}([._/-]{1,3}[a-z0-9]{1,3}){0,9}") {
        harness::reference(text.as_bytes());
    }

    #[test]
    fn t_bi4_names_of_the_grammar_are_read(
        text in "[a-z0-9]{1,9}((\\.|_|__|-{1,3})[a-z0-9]{1,9}){0,3}(/[a-z0-9]{1,9}((\\.|_|__|-{1,3})[a-z0-9]{1,9}){0,3}){0,3}"
    ) {
        prop_assert_eq!(text.parse::<Repository>().map(|name| name.to_string()), Ok(text));
    }

    #[test]
    fn t_bi4_paths(
        segments in prop::collection::vec(
            prop_oneof![
                Just("v2".to_owned()), Just("manifests".to_owned()), Just("blobs".to_owned()), Just("uploads".to_owned()),
                Just("tags".to_owned()), Just("list".to_owned()), Just("referrers".to_owned()), Just("token".to_owned()),
                Just("_catalog".to_owned()), Just(String::new()), Just("..".to_owned()), Just("a".to_owned()),
                Just(format!("sha256%3A{}", "0".repeat(64))), Just("localhost:5000".to_owned()),
                "[a-z%.:;\\\\]{1,4}", "\\PC{1,3}",
            ],
            0..9,
        )
    ) {
        harness::path(format!("/{}", segments.join("/")).as_bytes());
    }

    #[test]
    fn t_hc5_ranges(
        size in prop_oneof![0..100_u64, any::<u64>()],
        value in "(bytes|Bytes|items)?[= ]?[ ,]{0,2}([0-9]{0,2}|[0-9]{18,22})-([0-9]{0,2}|[0-9]{18,22})[ ,]{0,2}|bytes [0-9]{1,2}-[0-9]{1,2}/([0-9]{1,3}|\\*)",
    ) {
        harness::range(format!("{size}\n{value}").as_bytes());
    }

    #[test]
    fn challenges(text in "((Bearer|basic|Negotiate|[a-z]{1,3})[ ,\n]{1,2}(([a-zA-Z]{1,7}|realm) ?= ?(\"(\\PC|\\\\\"|,){0,9}\"|[a-z:/.=]{0,9})[ ,]{0,2}){0,4}){0,4}") {
        harness::challenge(text.as_bytes());
    }

    #[test]
    fn links(text in "(<(\\PC){0,12}> ?;? ?(rel|REL|title)?=?(\"?(next|prev|last|[a-z, ]{1,5})\"?)[;,\n ]{0,2}){0,4}") {
        harness::link(text.as_bytes());
    }

    #[test]
    fn our_links_lead_where_they_should(target in "/[a-zA-Z0-9/?&=._~%:,;-]{0,60}") {
        let ours = link::Next(&target).to_string();
        prop_assert_eq!(link::next([ours.as_str()]), Some(target));
    }

    #[test]
    fn quotas(text in "[0-9]{0,22}( ?; ?(w|W|burst) ?= ?[0-9]{0,22}){0,2},?|(Mon|Sun|Sat), [0-9]{2} (Jan|Feb|Dec) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT") {
        harness::quota(text.as_bytes());
    }

    #[test]
    fn t_hc6_queries(text in "(n|last|ns)=(\\PC{0,4}|[0-9]{0,22}|(%[0-9A-F]{2}){0,4}|[a-z.-]{0,9})(&(n|last)=[a-z0-9]{0,5})?") {
        harness::lists(text.as_bytes());
    }

    #[test]
    fn t_hc6_lists(tags in prop::collection::vec("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,9}|\\PC{0,3}", 0..9)) {
        harness::lists(serde_json::json!({"name": "a", "tags": tags}).to_string().as_bytes());
    }

    #[test]
    fn t_bi2_manifests(
        content_type in prop_oneof![Just(""), Just("application/vnd.oci.image.index.v1+json"), Just("text/plain")],
        members in prop::collection::vec(member(), 0..6),
    ) {
        let text = format!("{content_type}\n{{\"schemaVersion\":2,{}}}", members.join(","));
        harness::manifest(text.as_bytes());
    }
}

/// A member of a manifest, mostly with a value of its kind.
fn member() -> impl Strategy<Value = String> {
    const DESCRIPTOR: &str = r#"{"mediaType":"a/b","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1,"urls":["u"],"annotations":{"a":"b"}}"#;
    let object = Just(DESCRIPTOR.to_owned());
    let list = prop_oneof![
        Just("[]".to_owned()),
        Just(format!("[{DESCRIPTOR}]")),
        Just(format!("[{DESCRIPTOR},{DESCRIPTOR}]"))
    ];
    let text = prop_oneof![
        Just("\"application/vnd.oci.image.manifest.v1+json\"".to_owned()),
        Just("\"application/vnd.oci.image.index.v1+json\"".to_owned())
    ];
    let odd = (
        prop_oneof![
            Just("config"),
            Just("Layers"),
            Just("manifests"),
            Just("annotations"),
            Just("x"),
            Just("size")
        ],
        prop_oneof![Just("null"), Just("{\"a\":\"b\"}"), Just("[1]"), Just("-1"), Just("\"\"")],
    );
    let pair = |key: &str, value: &str| format!("\"{key}\":{value}");
    prop_oneof![
        6 => (prop_oneof![4 => Just("config"), 1 => Just("subject")], object).prop_map(move |(key, value)| pair(key, &value)),
        6 => (prop_oneof![Just("layers"), Just("manifests")], list).prop_map(move |(key, value)| pair(key, &value)),
        2 => (prop_oneof![Just("mediaType"), Just("artifactType")], text).prop_map(move |(key, value)| pair(key, &value)),
        1 => odd.prop_map(move |(key, value)| pair(key, value)),
    ]
}
