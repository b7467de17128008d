//! See `nudged::fuzzing::last_event_id`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nudged::fuzzing::last_event_id(input));
