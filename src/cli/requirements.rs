//! Settings that have no effect without another one. Given alone they are an error: they would be relied on.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches};
use nudged::config::Peers;

use super::values::OrgList;

/// The settings that were given, as a flag or as a variable, by their ids.
#[derive(Clone, Debug, Default)]
pub(super) struct GivenArgs(BTreeMap<String, ValueSource>);

/// What a setting has no effect without.
#[derive(Clone, Copy, Debug)]
enum Needed {
    /// One of these settings.
    OneOf(&'static [&'static str]),
    /// That, or an internal socket of the service manager.
    InternalAddress,
    /// An address that is a path.
    UnixSocket,
    /// That tokens are verified.
    TokenKey,
    /// That members may subscribe: without tokens, or because there is no key at all.
    MemberStreams,
    /// That an org has a public stream.
    PublicStreams,
}

/// What makes a server closed, and lets it verify tokens.
const TOKEN_KEYS: &[&str] = &["jwt_secret", "jwt_secret_file", "jwt_key", "jwks_url"];

/// What makes a server closed, and is no key for tokens.
const OTHER_KEYS: &[&str] = &["publish_key"];

/// The settings that need another one. Every other setting is in [`tests::INDEPENDENT`].
const RULES: &[(&str, Needed)] = &[
    ("internal_connections", Needed::InternalAddress),
    ("listen_mode", Needed::UnixSocket),
    ("tls_cert", Needed::OneOf(&["tls_key"])),
    ("tls_key", Needed::OneOf(&["tls_cert"])),
    ("tls_sessions", Needed::OneOf(&["tls_cert"])),
    ("plain_listen", Needed::OneOf(&["tls_cert"])),
    ("public_keys", Needed::PublicStreams),
    ("org_streams", Needed::MemberStreams),
    ("org_public_streams", Needed::PublicStreams),
    ("topic_streams", Needed::MemberStreams),
    (
        "trust_forwarded_for",
        Needed::OneOf(&["address_streams", "address_connections", "access_log"]),
    ),
    ("forwarded_field", Needed::OneOf(&["trust_forwarded_for"])),
    ("publish_burst", Needed::OneOf(&["publish_rate"])),
    ("backplane_ca", Needed::OneOf(&["backplane"])),
    ("backplane_log", Needed::OneOf(&["backplane"])),
    ("backplane_replicas", Needed::OneOf(&["backplane"])),
    ("backplane_linger", Needed::OneOf(&["backplane"])),
    ("backplane_tail_bytes", Needed::OneOf(&["backplane"])),
    ("backplane_timeout", Needed::OneOf(&["backplane"])),
    ("backplane_trust_disk", Needed::OneOf(&["backplane"])),
    ("unready_when_cut_off", Needed::OneOf(&["backplane"])),
    ("outbox_direct", Needed::OneOf(&["outbox"])),
    ("outbox_ca", Needed::OneOf(&["outbox"])),
    ("outbox_delay", Needed::OneOf(&["outbox"])),
    ("outbox_interval", Needed::OneOf(&["outbox"])),
    ("outbox_listen", Needed::OneOf(&["outbox"])),
    ("jwks_interval", Needed::OneOf(&["jwks_url"])),
    ("jwks_refresh", Needed::OneOf(&["jwks_url"])),
    ("jwks_timeout", Needed::OneOf(&["jwks_url"])),
    ("jwt_issuer", Needed::TokenKey),
    ("jwt_audience", Needed::TokenKey),
    ("jwt_org_claim", Needed::TokenKey),
    ("jwt_scope_claim", Needed::TokenKey),
    ("token_cookie", Needed::TokenKey),
    ("token_query", Needed::TokenKey),
    ("cors_header", Needed::OneOf(&["cors_origin"])),
];

const UNIX_SOCKET: &str = "an address like unix:/run/nudged.sock";

// ===== impl GivenArgs =====

impl GivenArgs {
    /// Fails if a setting was given that does nothing.
    pub(super) fn check(
        &self,
        has_internal_socket: bool,
        has_unix_socket: bool,
        public_orgs: Option<&[OrgList]>,
    ) -> Result<(), String> {
        let takes_tokens = self.has_any(TOKEN_KEYS);
        let is_open = !takes_tokens && !self.has_any(OTHER_KEYS);
        for (setting, needed) in RULES.iter().filter(|(setting, _)| self.has_any(&[setting])) {
            let (is_met, what) = match needed {
                Needed::OneOf(settings) => (self.has_any(settings), one_of(settings)),
                Needed::InternalAddress => {
                    let settings = &["internal_listen"];
                    (has_internal_socket || self.has_any(settings), one_of(settings))
                }
                Needed::UnixSocket => (has_unix_socket, UNIX_SOCKET.into()),
                Needed::TokenKey => {
                    (takes_tokens, format!("a key for tokens: {}", one_of(TOKEN_KEYS)))
                }
                Needed::MemberStreams => {
                    let what = format!(
                        "streams of members, which need a key for tokens: {}",
                        one_of(TOKEN_KEYS)
                    );
                    (takes_tokens || is_open, what)
                }
                Needed::PublicStreams => {
                    let shows = |lists: &[OrgList]| lists.iter().any(|list| !list.0.is_empty());
                    let what = "public streams: name the orgs that have one with --public-orgs";
                    (public_orgs.map_or(is_open, shows), what.into())
                }
            };
            if !is_met {
                return Err(format!("{} does nothing without {what}", self.shown(setting)));
            }
        }
        Ok(())
    }

    /// Fails if the peers of Unix sockets are given for this setting, and there is no such socket for it.
    pub(super) fn check_unix(
        &self,
        setting: &str,
        peers: &[Peers],
        has_unix_socket: bool,
    ) -> Result<(), String> {
        match peers.contains(&Peers::Unix) && !has_unix_socket {
            true => Err(format!("{} unix does nothing without {UNIX_SOCKET}", self.shown(setting))),
            false => Ok(()),
        }
    }

    pub(super) fn has_any(&self, settings: &[&str]) -> bool {
        settings.iter().any(|setting| self.0.contains_key(*setting))
    }

    /// The flag, and the variable if it was given as such.
    fn shown(&self, setting: &str) -> String {
        match self.0.get(setting) {
            Some(ValueSource::EnvVariable) => {
                format!("{} (NUDGED_{})", flag(setting), setting.to_ascii_uppercase())
            }
            _ => flag(setting),
        }
    }
}

fn flag(setting: &str) -> String {
    format!("--{}", setting.replace('_', "-"))
}

/// The flags, as a choice.
fn one_of(settings: &[&str]) -> String {
    let flags: Vec<_> = settings.iter().map(|setting| flag(setting)).collect();
    match &flags[..] {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => flags.concat(),
    }
}

impl FromArgMatches for GivenArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = matches.ids().filter_map(|id| {
            let source = matches.value_source(id.as_str());
            let source = source.filter(|source| *source != ValueSource::DefaultValue)?;
            Some((id.to_string(), source))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for GivenArgs {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    /// The settings that have an effect alone.
    const INDEPENDENT: &[&str] = &[
        "check",
        "listen",
        "internal_listen",
        "workers",
        "insecure_open",
        "host",
        "ops",
        "keepalive",
        "retry_min",
        "retry_max",
        "stall_timeout",
        "peer_timeout",
        "max_stream_age",
        "public_orgs",
        "history_events",
        "history_age",
        "history_bytes",
        "history_bytes_total",
        "idle_channels",
        "topic_events",
        "topic_age",
        "topic_event_bytes",
        "topic_bytes",
        "topics_bytes_total",
        "idle_topics",
        "connections",
        "address_connections",
        "streams",
        "address_streams",
        "proxy_protocol_from",
        "connection_streams",
        "head_timeout",
        "idle_timeout",
        "head_bytes",
        "connection_body_bytes",
        "body_timeout",
        "coalesce",
        "keys",
        "key_bytes",
        "event_bytes",
        "reread_window",
        "publish_bytes",
        "publish_rate",
        "backplane",
        "outbox",
        "jwt_secret",
        "jwt_secret_file",
        "jwt_key",
        "jwks_url",
        "publish_key",
        "cors_origin",
        "drain_delay",
        "drain_window",
        "drain_grace",
        "drain_timeout",
        "state",
        "log",
        "log_format",
        "access_log",
    ];

    /// A new setting is put into one of the two lists.
    #[test]
    fn every_setting_is_known_to_need_another_one_or_none() {
        let dependent = || RULES.iter().map(|(setting, _)| *setting);
        for flag in Cli::command().get_arguments().filter(|flag| !flag.is_hide_set()) {
            let id = flag.get_id().as_str();
            let lists = dependent().chain(INDEPENDENT.iter().copied());
            assert_eq!(lists.filter(|listed| *listed == id).count(), 1, "{id}");
        }
        let has_brokers = cfg!(any(feature = "nats", feature = "redis"));
        if has_brokers && cfg!(all(feature = "tls", feature = "jwt", feature = "postgres")) {
            let flags: Vec<_> =
                Cli::command().get_arguments().map(|flag| flag.get_id().to_string()).collect();
            let needed = RULES.iter().flat_map(|(_, needed)| match needed {
                Needed::OneOf(settings) => *settings,
                _ => &[],
            });
            for setting in needed.chain(TOKEN_KEYS).chain(OTHER_KEYS) {
                assert!(flags.iter().any(|flag| flag == setting), "no flag: {setting}");
            }
        }
    }
}
