//! `nudged probe`, a health check.
