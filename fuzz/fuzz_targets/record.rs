//! See `nudged::fuzzing::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nudged::fuzzing::record(input));
