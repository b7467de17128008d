//! See `nudged::fuzzing::route`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nudged::fuzzing::route(input));
