//! nudged, the server.
#![forbid(unsafe_code)]

fn main() {}
