//! What the Worker is not asked, and why.

/// Reasons, and the tests that each is the reason for.
const AT_HOME_ONLY: &[(&str, &[&str])] = &[(
    "the tail of a blob is not held back: whoever asks first verifies for itself",
    &["t_hu2_the_last_byte_of_five_gib"],
)];

/// Whether the Worker is not asked this. Panics if the table says nothing of the test.
pub(crate) fn at_home_only(test: &str) -> bool {
    let reason = AT_HOME_ONLY.iter().find(|(_, tests)| tests.contains(&test));
    let (reason, _) = reason.unwrap_or_else(|| panic!("{test} is not in the table"));
    println!("not asked of the Worker: {test}: {reason}");
    true
}
