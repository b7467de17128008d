//! See `nudged::fuzzing::hub_ops`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nudged::fuzzing::hub_ops(input));
