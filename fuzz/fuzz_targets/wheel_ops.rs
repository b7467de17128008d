//! See `nudged::fuzzing::wheel_ops`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nudged::fuzzing::wheel_ops(input));
