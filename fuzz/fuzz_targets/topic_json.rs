//! See `nudged::fuzzing::topic_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nudged::fuzzing::topic_json(input));
