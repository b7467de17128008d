//! See `nudged::fuzzing::publish_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nudged::fuzzing::publish_json(input));
