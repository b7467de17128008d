//! The command line.

mod doors;
mod remote;
mod serve;
mod token;
mod values;

use clap::{Parser, Subcommand};

pub use remote::{Bench, Listen, Publish};
pub use serve::Serve;
pub use token::{Minted, Token};
pub use values::LogFormat;

/// Tells browsers what they hold is stale: invalidations over Server-Sent Events.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true, max_term_width = 100)]
pub struct Cli {
    /// What to do; `serve` unless told otherwise.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The settings of `serve`, which need not be named.
    #[command(flatten)]
    pub serve: Serve,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server (what `nudged` alone does)
    Serve(Box<Serve>),
    /// Tell every subscriber of an org that it holds stale keys
    Publish(Publish),
    /// Print the events of an org as they come, coming back as a browser does
    Listen(Listen),
    /// Mint a token for development: the token goes to standard output, its claims to standard error
    Token(Token),
    /// Load a server with streams and publishes, and report what arrived, how late, and at what cost
    Bench(Box<Bench>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_flags_default_to_the_config() {
        let cli = Cli::parse_from(["nudged"]);
        let parsed = cli.serve.into_config().expect("defaults agree");
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn what_is_out_of_bounds_is_told_what_is_allowed() {
        for (args, allowed) in [
            (["nudged", "--keepalive", "10ms"], "allowed is 1s to 1day"),
            (["nudged", "--coalesce", "soon"], "write it like 50ms, 30s or 5m"),
            (["nudged", "--workers", "0"], "0 is not in 1..=1024"),
            (["nudged", "--public-orgs", "a b"], "starts with a letter or digit"),
        ] {
            let refused = Cli::try_parse_from(args).expect_err("out of bounds").to_string();
            assert!(refused.contains(allowed), "{refused}");
        }
    }
}
