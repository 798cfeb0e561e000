#![no_main]

// The checks live with the tests that replay the corpora without a fuzzer.
#[path = "../../crates/mesh-ingress-http2/tests/checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::field_sections(input));
