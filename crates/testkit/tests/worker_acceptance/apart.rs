//! What the Worker is not asked, and why.

/// Reasons, and what each is the reason for: files whose tests are not built for the Worker, and single tests.
const AT_HOME_ONLY: &[(&str, &[&str])] = &[
    (
        "sockets, framing and the forms of requests are the platform's, before the Worker",
        &["hostile_client/forms.rs", "hostile_client/smuggling.rs", "serving/protocols.rs"],
    ),
    (
        "there are no files, no signals and no operator's address; a configuration is deployed, not reloaded",
        &["serving/admin.rs", "serving/reload.rs"],
    ),
    (
        "what is said of an open configuration is said when it is deployed, by `entrepot worker check`",
        &["t_az5_the_start_says_so"],
    ),
    (
        "metrics are gathered and told in batches; the Worker's own tests look at log and labels",
        &["hostile_client/labels.rs", "hostile_client/logs.rs"],
    ),
    (
        "the limiter is the platform's binding: no bursts, no exact counts, and the platform's word on addresses; \
         `worker_specific` shows that it refuses",
        &["access/limits.rs", "access/limits_by_address.rs"],
    ),
    (
        "no tail is held back, and no break is mended for who asks first: it gets upstream's bytes as they come and \
         verifies for itself; `worker_specific` shows that nothing of them is kept",
        &[
            "upstream_faults/broken.rs",
            "t_hu2_the_last_byte_of_five_gib",
            "t_uf7_a_token_that_ends_before_a_blob_is_resumed",
        ],
    ),
    (
        "a layer comes over one connection: pieces of it could be put together in the isolate alone, and no body passes there",
        &["upstream_faults/pieces.rs"],
    ),
    (
        "bodies pass through the platform, which does not tell of pauses in them",
        &[
            "t_uf5_a_blob_that_stalls_or_drips_is_given_up",
            "t_uf5_a_hanging_upstream_leaves_the_others_alone",
        ],
    ),
    (
        "no invocation can wait for another's token, and a fill of the store has one of its own",
        &[
            "t_uf7_a_thousand_at_once_ask_for_one_token_for_each_scope",
            "t_uf7_a_token_that_ends_in_the_middle_of_a_pull",
        ],
    ),
];

/// Whether the Worker is not asked this. Panics if the table says nothing of the test.
pub(crate) fn at_home_only(test: &str) -> bool {
    let reason = AT_HOME_ONLY.iter().find(|(_, tests)| tests.contains(&test));
    let (reason, _) = reason.unwrap_or_else(|| panic!("{test} is not in the table"));
    println!("not asked of the Worker: {test}: {reason}");
    true
}

/// The table names what there is, and no file is left out without a reason.
#[test]
fn the_table_is_true() {
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut sources = String::new();
    let mut files = Vec::new();
    for group in ["hostile_upstream", "hostile_client", "serving", "access", "upstream_faults"] {
        for entry in std::fs::read_dir(tests.join(group)).expect("a group of tests").flatten() {
            let text = std::fs::read_to_string(entry.path()).expect("a file of tests");
            let name = format!("{group}/{}", entry.file_name().to_string_lossy());
            if text.contains("::test(") || text.contains("#[test]") {
                let here = tests.join("worker_acceptance").join(format!("{group}.rs"));
                let list = std::fs::read_to_string(here).unwrap_or_default();
                if !list.contains(&format!("../{name}\"")) {
                    files.push(name);
                }
            }
            sources.push_str(&text);
        }
    }
    let named: Vec<&str> = AT_HOME_ONLY.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    for name in &named {
        let is_test = sources.contains(&format!("at_home_only(\"{name}\")"));
        assert!(
            is_test || files.iter().any(|file| file == name),
            "{name} is asked of the Worker, or is not there"
        );
    }
    for file in &files {
        assert!(named.contains(&file.as_str()), "{file} is not asked of the Worker, and nothing says why");
    }
}
