//! See `nudged::fuzzing::proxy_protocol`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nudged::fuzzing::proxy_protocol(input));
