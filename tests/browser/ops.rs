//! The page `/ops` in a real browser.
