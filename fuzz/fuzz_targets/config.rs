#![no_main]

#[path = "../../crates/core/tests/configuration/harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::config(data));
