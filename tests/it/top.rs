//! `nudged top`, the numbers of a server in a terminal.
