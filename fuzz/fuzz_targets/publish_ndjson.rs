//! See `nudged::fuzzing::publish_ndjson`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nudged::fuzzing::publish_ndjson(input));
