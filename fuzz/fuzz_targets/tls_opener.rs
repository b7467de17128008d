//! See `nudged::fuzzing::tls_opener`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nudged::fuzzing::tls_opener(input));
