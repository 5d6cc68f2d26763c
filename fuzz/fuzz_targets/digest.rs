#![no_main]

#[path = "../../crates/oci/tests/parsers/harness.rs"]
#[expect(dead_code, reason = "each target runs one of the checks")]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::digest(data));
