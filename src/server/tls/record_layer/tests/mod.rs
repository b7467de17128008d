//! Record layers whose other end is a session of rustls, which has the same keys.

mod pair;
mod sessions;
