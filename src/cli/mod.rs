//! The command line: every setting is a flag, and an environment variable of the same name.

mod auth;
#[cfg(feature = "bench")]
mod bench;
#[cfg(feature = "client")]
mod client;
mod given;
#[cfg(feature = "jwt")]
mod jwt;
mod lacking;
pub(crate) mod log;
pub(crate) mod output;
mod serve;
mod settings;
pub(crate) mod signals;
pub(crate) mod summary;
#[cfg(feature = "jwt")]
mod token;
mod values;
mod variables;

use std::fmt::Display;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

#[cfg(feature = "bench")]
pub(crate) use self::bench::Bench;
#[cfg(feature = "client")]
pub(crate) use self::client::{Listen, Publish};
#[cfg(not(feature = "bench"))]
pub(crate) use self::lacking::Bench;
#[cfg(not(feature = "jwt"))]
pub(crate) use self::lacking::Token;
#[cfg(not(feature = "client"))]
pub(crate) use self::lacking::{Listen, Publish};
pub(crate) use self::serve::Serve;
#[cfg(feature = "jwt")]
pub(crate) use self::token::Token;
pub(crate) use self::values::LogFormat;

use self::variables::Unknown;

/// Tells browsers that what they hold is stale: cache invalidations over Server-Sent Events.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// The command; `serve` if none is given.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The settings of `serve`.
    #[command(flatten)]
    pub(crate) serve: Serve,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server; the same as `nudged` without a command
    Serve(Box<Serve>),
    /// Publish stale keys to all subscribers of an org
    Publish(Publish),
    /// Print the events of an org as they arrive; reconnects as a browser does
    Listen(Listen),
    /// Sign a token for development; prints the token to standard output, its claims to standard
    /// error
    Token(Token),
    /// Load a server with streams and publishes; reports what arrived, how late, and at what cost
    Bench(Box<Bench>),
}

/// An error that ends the program.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: u8,
    pub(crate) why: String,
}

/// The arguments or the settings are wrong (sysexits.h).
const EX_USAGE: u8 = 64;

// ===== impl Cli =====

impl Cli {
    /// Parses the arguments and the environment of the process; ends it if they are wrong, or ask for help.
    pub(crate) fn from_process() -> Self {
        let matches = variables::without_empty(Self::command()).get_matches();
        let parsed = Self::from_arg_matches(&matches);
        parsed.unwrap_or_else(|why| why.format(&mut Self::command()).exit())
    }

    /// The variables of this process that look like settings and are none, for a server's log.
    ///
    /// # Errors
    /// One of them is most probably misspelt.
    pub(crate) fn unknown_variables() -> Result<Vec<String>, String> {
        let variables: Vec<_> = std::env::vars_os()
            .map(|(name, value)| {
                (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
            })
            .collect();
        let variables = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let unknown = variables::unknown(&Self::command(), variables).into_iter();
        let check = |variable| match variable {
            Unknown::Misspelt { name, meant } => Err(format!(
                "the variable {name} is no setting; {meant} is, and may be what is meant"
            )),
            Unknown::Other { name } => Ok(name),
        };
        unknown.map(check).collect()
    }
}

// ===== impl Exit =====

impl Exit {
    /// Wrong arguments or settings.
    pub(crate) fn usage(why: impl Display) -> Self {
        Self { code: EX_USAGE, why: why.to_string() }
    }

    /// Any other error.
    pub(crate) fn failure(why: impl Display) -> Self {
        Self { code: 1, why: why.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use nudged::config::Config;

    use super::*;

    #[test]
    fn the_flags_default_to_the_config() {
        let cli = Cli::parse_from(["nudged"]);
        let parsed = cli.serve.into_config().expect("defaults agree");
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_with_the_bounds() {
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

    #[test]
    fn every_setting_of_the_server_is_listed_under_a_heading() {
        for flag in Cli::command().get_arguments() {
            assert!(flag.get_help_heading().is_some(), "{}", flag.get_id());
        }
    }

    #[test]
    fn an_error_names_the_missing_feature() {
        let flags: [(bool, &[&str], &str); 3] = [
            (cfg!(feature = "tls"), &["--tls-cert", "a.pem", "--tls-key", "b.pem"], "tls"),
            (cfg!(feature = "jwt"), &["--jwt-secret-file", "secret"], "jwt"),
            (cfg!(feature = "jwt"), &["serve", "--jwks-url", "https://id.example"], "jwt"),
        ];
        for (_, args, feature) in flags.into_iter().filter(|(has, ..)| !has) {
            let cli = Cli::parse_from([&["nudged"], args].concat());
            let serve = match cli.command {
                Some(Command::Serve(serve)) => *serve,
                _ => cli.serve,
            };
            let refused = serve.into_config().expect_err("lacking");
            assert!(refused.contains(&format!("--features {feature}")), "{refused}");
        }
        #[cfg(not(feature = "bench"))]
        {
            let args = ["nudged", "bench", "http://localhost", "-n", "3", "--help"];
            let Some(Command::Bench(bench)) = Cli::parse_from(args).command else {
                panic!("another command");
            };
            let Exit { code, why } = bench.run().expect_err("lacking");
            assert_eq!(code, EX_USAGE);
            assert!(why.contains("cargo install --path . --features bench"), "{why}");
        }
    }
}
