//! Commands and flags of features that this build lacks. They are accepted, so that the error names the
//! feature; ignored, a variable with a key would leave a server open that was meant to be closed.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

/// The flag that needs a feature that this build lacks, if one was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct LackingArgs(Option<Lacking>);

#[derive(Clone, Copy, Debug)]
struct Lacking {
    flag: &'static str,
    feature: &'static str,
}

#[derive(Debug)]
struct Flag {
    flag: &'static str,
    env: &'static str,
    feature: &'static str,
}

/// A command that this build lacks, with any arguments.
#[allow(unused_macros, reason = "a full build lacks none")]
macro_rules! lacking_command {
    ($name:ident, $command:literal, $feature:literal) => {
        #[derive(Args, Debug)]
        #[command(disable_help_flag = true)]
        pub(crate) struct $name {
            #[arg(hide = true, num_args = 0.., allow_hyphen_values = true, trailing_var_arg = true)]
            _arguments: Vec<std::ffi::OsString>,
        }

        impl $name {
            pub(crate) fn run(self) -> Result<std::process::ExitCode, super::Exit> {
                Err(super::Exit::usage(lacking($command, $feature)))
            }
        }
    };
}

#[cfg(not(feature = "client"))]
lacking_command!(Publish, "publish", "client");
#[cfg(not(feature = "client"))]
lacking_command!(Reread, "reread", "client");
#[cfg(not(feature = "client"))]
lacking_command!(Listen, "listen", "client");
#[cfg(not(feature = "client"))]
lacking_command!(Close, "close", "client");
#[cfg(not(feature = "client"))]
lacking_command!(Top, "top", "client");
#[cfg(not(feature = "client"))]
lacking_command!(Probe, "probe", "client");
#[cfg(not(feature = "jwt"))]
lacking_command!(Token, "token", "jwt");
#[cfg(not(feature = "postgres"))]
lacking_command!(OutboxSql, "outbox-sql", "postgres");
#[cfg(not(feature = "bench"))]
lacking_command!(Bench, "bench", "bench");

const FLAGS: &[Flag] = &[
    #[cfg(not(any(feature = "nats", feature = "redis")))]
    Flag { flag: "backplane", env: "NUDGED_BACKPLANE", feature: "nats" },
    #[cfg(not(any(feature = "nats", feature = "redis")))]
    Flag { flag: "backplane-ca", env: "NUDGED_BACKPLANE_CA", feature: "nats" },
    #[cfg(not(any(feature = "nats", feature = "redis")))]
    Flag { flag: "backplane-log", env: "NUDGED_BACKPLANE_LOG", feature: "nats" },
    #[cfg(not(any(feature = "nats", feature = "redis")))]
    Flag { flag: "backplane-replicas", env: "NUDGED_BACKPLANE_REPLICAS", feature: "nats" },
    #[cfg(not(any(feature = "nats", feature = "redis")))]
    Flag { flag: "backplane-linger", env: "NUDGED_BACKPLANE_LINGER", feature: "nats" },
    #[cfg(not(any(feature = "nats", feature = "redis")))]
    Flag { flag: "backplane-tail-bytes", env: "NUDGED_BACKPLANE_TAIL_BYTES", feature: "nats" },
    #[cfg(not(any(feature = "nats", feature = "redis")))]
    Flag { flag: "backplane-timeout", env: "NUDGED_BACKPLANE_TIMEOUT", feature: "nats" },
    #[cfg(not(any(feature = "nats", feature = "redis")))]
    Flag { flag: "backplane-trust-disk", env: "NUDGED_BACKPLANE_TRUST_DISK", feature: "nats" },
    #[cfg(not(any(feature = "nats", feature = "redis")))]
    Flag { flag: "unready-when-cut-off", env: "NUDGED_UNREADY_WHEN_CUT_OFF", feature: "nats" },
    #[cfg(not(feature = "postgres"))]
    Flag { flag: "outbox", env: "NUDGED_OUTBOX", feature: "postgres" },
    #[cfg(not(feature = "postgres"))]
    Flag { flag: "outbox-direct", env: "NUDGED_OUTBOX_DIRECT", feature: "postgres" },
    #[cfg(not(feature = "postgres"))]
    Flag { flag: "outbox-ca", env: "NUDGED_OUTBOX_CA", feature: "postgres" },
    #[cfg(not(feature = "postgres"))]
    Flag { flag: "outbox-delay", env: "NUDGED_OUTBOX_DELAY", feature: "postgres" },
    #[cfg(not(feature = "postgres"))]
    Flag { flag: "outbox-interval", env: "NUDGED_OUTBOX_INTERVAL", feature: "postgres" },
    #[cfg(not(feature = "postgres"))]
    Flag { flag: "outbox-listen", env: "NUDGED_OUTBOX_LISTEN", feature: "postgres" },
    #[cfg(not(feature = "tls"))]
    Flag { flag: "tls-cert", env: "NUDGED_TLS_CERT", feature: "tls" },
    #[cfg(not(feature = "tls"))]
    Flag { flag: "tls-key", env: "NUDGED_TLS_KEY", feature: "tls" },
    #[cfg(not(feature = "tls"))]
    Flag { flag: "tls-sessions", env: "NUDGED_TLS_SESSIONS", feature: "tls" },
    #[cfg(not(feature = "tls"))]
    Flag { flag: "plain-listen", env: "NUDGED_PLAIN_LISTEN", feature: "tls" },
    #[cfg(not(feature = "jwt"))]
    Flag { flag: "jwt-secret", env: "NUDGED_JWT_SECRET", feature: "jwt" },
    #[cfg(not(feature = "jwt"))]
    Flag { flag: "jwt-secret-file", env: "NUDGED_JWT_SECRET_FILE", feature: "jwt" },
    #[cfg(not(feature = "jwt"))]
    Flag { flag: "jwt-key", env: "NUDGED_JWT_KEY", feature: "jwt" },
    #[cfg(not(feature = "jwt"))]
    Flag { flag: "jwt-issuer", env: "NUDGED_JWT_ISSUER", feature: "jwt" },
    #[cfg(not(feature = "jwt"))]
    Flag { flag: "jwt-audience", env: "NUDGED_JWT_AUDIENCE", feature: "jwt" },
    #[cfg(not(feature = "jwt"))]
    Flag { flag: "jwt-org-claim", env: "NUDGED_JWT_ORG_CLAIM", feature: "jwt" },
    #[cfg(not(feature = "jwt"))]
    Flag { flag: "jwt-scope-claim", env: "NUDGED_JWT_SCOPE_CLAIM", feature: "jwt" },
    #[cfg(not(feature = "jwt"))]
    Flag { flag: "token-cookie", env: "NUDGED_TOKEN_COOKIE", feature: "jwt" },
    #[cfg(not(feature = "jwt"))]
    Flag { flag: "token-query", env: "NUDGED_TOKEN_QUERY", feature: "jwt" },
    #[cfg(not(feature = "jwt"))]
    Flag { flag: "jwks-url", env: "NUDGED_JWKS_URL", feature: "jwt" },
    #[cfg(not(feature = "jwt"))]
    Flag { flag: "jwks-interval", env: "NUDGED_JWKS_INTERVAL", feature: "jwt" },
    #[cfg(not(feature = "jwt"))]
    Flag { flag: "jwks-refresh", env: "NUDGED_JWKS_REFRESH", feature: "jwt" },
    #[cfg(not(feature = "jwt"))]
    Flag { flag: "jwks-timeout", env: "NUDGED_JWKS_TIMEOUT", feature: "jwt" },
];

/// Flags of these that have no value.
const SWITCHES: &[&str] = &["backplane-trust-disk", "unready-when-cut-off", "outbox-listen"];

/// Why something cannot be done, and what to do about it.
pub(super) fn lacking(what: &str, feature: &str) -> String {
    format!(
        "{what}: this build lacks the feature `{feature}`; install with: \
         cargo install --path . --features {feature}"
    )
}

/// Whether the log is to be in Redis. A build without any broker knows nothing else of its URL.
fn names_redis(matches: &ArgMatches) -> bool {
    let mut urls = matches.get_raw("backplane").into_iter().flatten();
    urls.any(|url| url.as_encoded_bytes().starts_with(b"redis"))
}

// ===== impl LackingArgs =====

impl LackingArgs {
    /// Fails if a flag or variable was given that this build has no use for.
    pub(super) fn check(self) -> Result<(), String> {
        match self.0 {
            None => Ok(()),
            Some(Lacking { flag, feature }) => Err(lacking(&format!("--{flag}"), feature)),
        }
    }
}

impl FromArgMatches for LackingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = |flag: &&Flag| matches.contains_id(flag.flag);
        let lacking = |Flag { flag, feature, .. }: &Flag| {
            let is_redis = *flag == "backplane" && names_redis(matches);
            Lacking { flag, feature: if is_redis { "redis" } else { feature } }
        };
        Ok(Self(FLAGS.iter().find(given).map(lacking)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for LackingArgs {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.iter().map(|Flag { flag, env, .. }| {
            let any = Arg::new(*flag).long(*flag).env(*env).action(ArgAction::Append);
            let any = any.hide(true).allow_hyphen_values(true).help_heading("Lacking");
            match SWITCHES.contains(flag) {
                true => any.num_args(0..=1).require_equals(true).default_missing_value("true"),
                false => any,
            }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
