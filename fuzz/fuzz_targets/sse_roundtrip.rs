//! See `nudged::fuzzing::sse_roundtrip`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nudged::fuzzing::sse_roundtrip(input));
