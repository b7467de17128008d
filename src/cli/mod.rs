//! The command line: every setting is a flag, and an environment variable of the same name.

mod auth;
#[cfg(any(feature = "nats", feature = "redis"))]
mod backplane;
#[cfg(feature = "bench")]
mod bench;
#[cfg(feature = "client")]
mod client;
mod complete;
pub(crate) mod first_request;
mod generate;
mod groups;
#[cfg(feature = "jwt")]
mod jwt;
mod lacking;
#[cfg(feature = "client")]
mod listen;
mod listen_address;
pub(crate) mod log;
pub(crate) mod origin;
#[cfg(feature = "postgres")]
mod outbox;
pub(crate) mod output;
#[cfg(feature = "client")]
mod probe;
#[cfg(feature = "client")]
mod publish;
mod redact;
mod requirements;
mod serve;
mod settings;
pub(crate) mod signals;
pub(crate) mod summary;
#[cfg(feature = "jwt")]
mod token;
#[cfg(feature = "client")]
mod top;
mod values;
mod variables;

use std::ffi::OsString;
use std::fmt::Display;
use std::io;

use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

#[cfg(feature = "bench")]
pub(crate) use self::bench::Bench;
#[cfg(feature = "client")]
pub(crate) use self::client::{Close, Reread};
pub(crate) use self::generate::Generate;
#[cfg(not(feature = "bench"))]
pub(crate) use self::lacking::Bench;
#[cfg(not(feature = "postgres"))]
pub(crate) use self::lacking::OutboxSql;
#[cfg(not(feature = "jwt"))]
pub(crate) use self::lacking::Token;
#[cfg(not(feature = "client"))]
pub(crate) use self::lacking::{Close, Listen, Probe, Publish, Reread, Top};
#[cfg(feature = "client")]
pub(crate) use self::listen::Listen;
#[cfg(feature = "postgres")]
pub(crate) use self::outbox::OutboxSql;
#[cfg(feature = "client")]
pub(crate) use self::probe::Probe;
#[cfg(feature = "client")]
pub(crate) use self::publish::Publish;
pub(crate) use self::serve::Serve;
#[cfg(feature = "jwt")]
pub(crate) use self::token::Token;
#[cfg(feature = "client")]
pub(crate) use self::top::Top;
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
    /// Publish stale keys to all subscribers of an org, or an event to those of a topic
    Publish(Publish),
    /// Have all clients of an org re-read everything, or those of every org; prints how many streams are open
    Reread(Reread),
    /// Close a topic: its subscribers get the reason, their streams end, and what it kept is removed; prints
    /// how many streams ended
    Close(Close),
    /// Print the events of an org, or of a topic, as they arrive; reconnects as a browser does
    Listen(Listen),
    /// Sign a token for development; prints the token to standard output, its claims to standard
    /// error
    Token(Token),
    /// Print the SQL that makes the table of --outbox, and the functions that write into it; it may be
    /// run again
    OutboxSql(OutboxSql),
    /// Show the numbers of a running server in the terminal, once a second; q ends it
    Top(Top),
    /// Ask the server of this machine whether it is ready, as a health check: exit code 0 if it is, else 1
    Probe(Probe),
    /// Load a server with streams and publishes; reports what arrived, how late, and at what cost
    Bench(Box<Bench>),
    /// Print the man page, or the completions for a shell, for packages
    #[command(hide = true)]
    Generate(Generate),
}

/// An error that ends the program.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: u8,
    /// What is printed, if anything is.
    pub(crate) why: Option<String>,
}

/// The arguments or the settings are wrong; what clap, which parses them, ends with too.
const WRONG_SETTINGS: u8 = 2;

/// What a shell reports for a program that SIGPIPE has ended: its output has no reader any more.
const BROKEN_PIPE: u8 = 128 + 13;

// ===== impl Cli =====

impl Cli {
    /// Parses arguments, the first of which is the name of the program, and the environment of the process.
    ///
    /// # Errors
    /// They are wrong, or ask for a text that is printed, the help.
    pub(crate) fn from_args<T: Into<OsString>>(
        args: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let first = args.get(1).cloned();
        // clap's own rule colours a dumb terminal where the variable CI is set.
        let colors = if log::may_be_coloured() { ColorChoice::Auto } else { ColorChoice::Never };
        let mut command = complete::complete(Self::command(), first.as_deref()).color(colors);
        let matches = command.try_get_matches_from_mut(&args);
        let matches = matches.map_err(|refused| redact::hide(refused, &args))?;
        Self::from_arg_matches(&matches).map_err(|why| why.format(&mut command))
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
        Self { code: WRONG_SETTINGS, why: Some(why.to_string()) }
    }

    /// Any other error.
    pub(crate) fn failure(why: impl Display) -> Self {
        Self { code: 1, why: Some(why.to_string()) }
    }

    /// Output that cannot be written. If nothing reads it any more, as behind `| head`, nothing is printed about it.
    pub(crate) fn output(why: &io::Error) -> Self {
        match why.kind() {
            io::ErrorKind::BrokenPipe => Self { code: BROKEN_PIPE, why: None },
            _ => Self::failure(format!("cannot write: {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use nudged::config::Config;

    use super::*;

    #[test]
    fn the_flags_default_to_the_config() {
        let cli = Cli::from_args(["nudged"]).expect("no argument");
        let parsed = cli.serve.into_config().expect("defaults agree");
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_with_the_bounds() {
        for (args, allowed) in [
            (["nudged", "--keepalive", "10ms"], "allowed is 1s to 1day"),
            (["nudged", "--keepalive", "1500ms"], "allowed are whole seconds"),
            (["nudged", "--coalesce", "soon"], "write it like 50ms, 30s or 5m"),
            (["nudged", "--workers", "0"], "allowed is a whole number from 1 to 1024"),
            (["nudged", "--event-bytes", "1e5"], "allowed is a whole number from 1024 to 1048576"),
            (["nudged", "--max-stream-age", "0s"], "allowed is 1s to 365days"),
            (["nudged", "--topic-streams", "0"], "allowed is a whole number from 1 to 100000000"),
            (["nudged", "--topic-events", "0"], "allowed is a whole number from 1 to 10000"),
            (["nudged", "--topic-age", "0s"], "allowed is 1s to 1day"),
            (["nudged", "--topic-event-bytes", "0"], "allowed is a whole number from 1024 to"),
            (["nudged", "--topic-bytes", "1023"], "allowed is a whole number of at least 1024"),
            (["nudged", "--topics-bytes-total", "1k"], "allowed is a whole number of at least"),
            (["nudged", "--idle-topics", "0"], "allowed is a whole number from 1 to 100000000"),
            (["nudged", "--public-orgs", "a b"], "starts with a letter or digit"),
            (["nudged", "--public-keys", "a*b"], "a * stands at the end only"),
            (["nudged", "--public-keys", "feed:*,a**"], "a * stands at the end only"),
        ] {
            let refused = Cli::from_args(args).expect_err("out of bounds").to_string();
            assert!(refused.contains(allowed), "{refused}");
        }
    }

    #[test]
    fn each_flag_of_topics_sets_its_limit() {
        let args = "nudged --topic-streams 1 --topic-events 2 --topic-age 3s --topic-event-bytes 1024 \
                    --topic-bytes 1025 --topics-bytes-total 1026 --idle-topics 4";
        let hub = Cli::from_args(args.split_whitespace()).expect("flags").serve.into_config();
        let hub = hub.expect("they fit").hub;
        assert_eq!((hub.topic_streams_max, hub.topic_events), (Some(1), 2));
        assert_eq!((hub.topic_age.as_secs(), hub.idle_topics_max), (3, 4));
        assert_eq!(
            [hub.topic_event_bytes_max, hub.topic_bytes, hub.topics_bytes_total],
            [1024, 1025, 1026]
        );
    }

    /// A new flag is judged by its name: it is a secret unless it is exempt here.
    #[test]
    fn the_values_of_secrets_are_hidden() {
        const NAMES_ONLY: [&str; 4] = ["token-cookie", "token-query", "key-bytes", "cors-header"];
        let command = Cli::command();
        for command in command.get_subcommands().chain([&command]) {
            for flag in command.get_arguments().filter(|flag| !flag.is_hide_set()) {
                let name = flag.get_long().unwrap_or_default();
                let may_be = ["secret", "secrets", "key", "token", "url", "header"];
                let is_secret = name.split('-').any(|word| may_be.contains(&word));
                let is_url =
                    flag.get_value_names().is_some_and(|names| names.contains(&"URL".into()));
                let is_secret = is_secret || is_url && !name.is_empty();
                if is_secret && !NAMES_ONLY.contains(&name) {
                    assert!(redact::FLAGS.contains(&&*format!("--{name}")), "{name}");
                    assert!(flag.is_hide_env_values_set() || flag.get_env().is_none(), "{name}");
                }
            }
        }
    }

    #[test]
    fn an_error_names_the_missing_feature() {
        let has_broker = cfg!(any(feature = "nats", feature = "redis"));
        let flags: [(bool, &[&str], &str); 8] = [
            (cfg!(feature = "postgres"), &["--outbox", "postgres://u:p@host"], "postgres"),
            (cfg!(feature = "postgres"), &["--outbox-listen"], "postgres"),
            (cfg!(feature = "nats"), &["--backplane", "nats://u:p@host"], "nats"),
            (cfg!(feature = "redis"), &["--backplane", "redis://u:p@host"], "redis"),
            (has_broker, &["--unready-when-cut-off"], "nats"),
            (cfg!(feature = "tls"), &["--tls-cert", "a.pem", "--tls-key", "b.pem"], "tls"),
            (cfg!(feature = "jwt"), &["--jwt-secret-file", "secret"], "jwt"),
            (cfg!(feature = "jwt"), &["serve", "--jwks-url", "https://id.example"], "jwt"),
        ];
        for (_, args, feature) in flags.into_iter().filter(|(has, ..)| !has) {
            let cli = Cli::from_args([&["nudged"], args].concat()).expect("they are taken");
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
            let Some(Command::Bench(bench)) = Cli::from_args(args).expect("they are taken").command
            else {
                panic!("another command");
            };
            let Exit { code, why } = bench.run().expect_err("lacking");
            assert_eq!(code, WRONG_SETTINGS);
            let why = why.expect("a text");
            assert!(why.contains("cargo install --path . --features bench"), "{why}");
        }
    }
}
