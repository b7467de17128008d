//! See `nudged::fuzzing::state`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nudged::fuzzing::state(input));
