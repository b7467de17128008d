//! Record layers whose other end is a session of rustls, a naive twin, or a published vector.

mod alerts;
mod differential;
mod pair;
mod sealing;
mod sessions;
mod state;
mod take_over;
mod vectors;
