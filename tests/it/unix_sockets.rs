//! Listening on Unix sockets.
