//! The completions and the man page, which the program prints.
