//! See `nudged::fuzzing::heartbeat`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nudged::fuzzing::heartbeat(input));
