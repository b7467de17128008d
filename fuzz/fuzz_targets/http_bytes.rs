//! See `nudged::fuzzing::http_bytes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nudged::fuzzing::http_bytes(input));
