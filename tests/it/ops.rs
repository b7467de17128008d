//! What `/ops` has beside the page: organisations, topics and nodes, and which clients get them.
