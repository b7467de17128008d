//! Rows that transactions write into PostgreSQL, and that servers publish once they are committed.

pub(crate) mod cost;
pub(crate) mod latency;
pub(crate) mod rows;
