//! What a server serves, for the terminal: the lines that it begins with, and the report of `--check`.

use nudged::config::{Config, CorsPolicy, ForwardedField, Peers, PublicOrgs, STREAMS_MIN};
use nudged::server::Address;

/// Orgs that are named in a line; there may be thousands.
const ORGS_SHOWN: usize = 10;

/// Which clients may subscribe and publish.
pub(crate) fn access(config: &Config) -> String {
    let auth = &config.auth;
    let access = if auth.is_open() {
        "open: no key is configured, so every client that reaches this address may subscribe and publish"
    } else if auth.takes_tokens() {
        "closed: subscribers and publishers need a token (nudged token --help)"
    } else if serves_no_stream(config) {
        "closed: publishers need their key, and no stream can be opened: there is no key for tokens, and no \
         --public-orgs"
    } else {
        "closed: publishers need their key, and there is no key for tokens: only public streams open"
    };
    let pages = match &config.cors {
        CorsPolicy::SameOrigin => "",
        _ if auth.is_open() => ", and so may the pages of --cors-origin",
        _ => "",
    };
    let log = config.backplane.as_ref().map(|backplane| {
        format!("publishes: to every server of the log {} at {}\n", backplane.log, backplane.url)
    });
    let outbox = config.outbox.as_ref();
    let outbox = outbox.map(|outbox| format!("outbox: what is committed in {}\n", outbox.url));
    let [log, outbox] = [log, outbox].map(Option::unwrap_or_default);
    format!("{access}{pages}\n{}\n{log}{outbox}", public_streams(config))
}

/// What is not known of the peers at these addresses; empty if all is.
pub(crate) fn peers(config: &Config, addresses: &[Address]) -> String {
    if !addresses.iter().any(|address| address.endpoint.is_unix()) {
        return String::new();
    }
    let field = match config.forwarded_field {
        ForwardedField::Forwarded => "Forwarded",
        _ => "X-Forwarded-For",
    };
    let names_clients =
        |place, setting| format!("; their clients are those in {place} ({setting} unix)");
    let clients = if config.proxy_protocol_from.contains(&Peers::Unix) {
        names_clients("the header of the PROXY protocol", "--proxy-protocol-from")
    } else if config.trusted_proxies.contains(&Peers::Unix) {
        names_clients(field, "--trust-forwarded-for")
    } else {
        ", and no limit of an address applies to them".into()
    };
    format!("peers: those of Unix sockets have no address{clients}\n")
}

/// Whether the keys and `--public-orgs` leave nothing to subscribe to.
pub(crate) fn serves_no_stream(config: &Config) -> bool {
    let auth = &config.auth;
    let shows_public = match &config.hub.public.orgs {
        PublicOrgs::Listed(orgs) => !orgs.is_empty(),
        PublicOrgs::All => true,
        _ => auth.is_open(),
    };
    !auth.is_open() && !auth.takes_tokens() && !shows_public
}

/// Which streams open without a token.
fn public_streams(config: &Config) -> String {
    match &config.hub.public.orgs {
        PublicOrgs::Listed(orgs) if orgs.is_empty() => "public streams: none".into(),
        PublicOrgs::Listed(orgs) => {
            let mut names: Vec<_> = orgs.iter().map(ToString::to_string).collect();
            names.sort_unstable();
            let more = names.len().saturating_sub(ORGS_SHOWN);
            names.truncate(ORGS_SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("public streams: of {}{more} (--public-orgs)", names.join(", "))
        }
        _ => "public streams: of every organisation (--public-orgs)".into(),
    }
}

/// What would be served.
pub(crate) fn report(config: &Config, addresses: &[Address]) -> String {
    let mut text = "the settings are valid; with them nudged would serve\n".to_owned();
    for address in addresses {
        let kind = match (address.internal, address.secure && address.endpoint.is_unix()) {
            (true, _) => " (internal)",
            (false, true) => " (TLS)",
            (false, false) => "",
        };
        text += &format!("address: {address}{kind}\n");
    }
    text += &peers(config, addresses);
    #[cfg(feature = "tls")]
    if let Some(files) = &config.tls {
        text += &format!(
            "certificate: {}, key: {}\n",
            files.certificate.display(),
            files.key.display()
        );
    }
    text += &access(config);
    text += &format!("{}\n{}\n{}\n", keys(config), hosts(config), origins(config));
    text += &proxies(config);
    text += &state(config);
    text += &limits(config);
    text
}

/// No key is shown, nor what is in a file of keys.
fn keys(config: &Config) -> String {
    let mut keys: Vec<String> = Vec::new();
    #[cfg_attr(not(feature = "jwt"), expect(unused_mut, reason = "only tokens have conditions"))]
    let mut conditions = String::new();
    let auth = &config.auth;
    #[cfg(feature = "jwt")]
    {
        keys.extend(auth.keys.iter().map(|_| "a secret for tokens".into()));
        keys.extend(auth.key_files.iter().map(|file| {
            let kind = if file.is_secret() { "secrets" } else { "a public key" };
            format!("{kind} for tokens in {}", file.path().display())
        }));
        keys.extend(auth.jwks.iter().map(|_| "a JWK set, which a check does not fetch".into()));
        for (name, values) in [("issuer", &auth.issuers), ("audience", &auth.audiences)] {
            if !values.is_empty() {
                conditions += &format!("; {name}: {}", values.join(" or "));
            }
        }
    }
    keys.extend(match auth.publish_keys.len() {
        0 => None,
        1 => Some("a publish key".into()),
        several => Some(format!("{several} publish keys")),
    });
    let none = if keys.is_empty() { "none" } else { "" };
    format!("keys: {none}{}{conditions}", keys.join(", "))
}

fn hosts(config: &Config) -> String {
    let names: Vec<_> = config.hosts.iter().map(ToString::to_string).collect();
    let is_local = config.auth.is_open() && !config.insecure_open;
    let first = if is_local { "localhost, loopback addresses" } else { "localhost, any address" };
    match names.is_empty() && !is_local {
        true => "hosts: any (--host)".into(),
        false => format!("hosts: {} (--host)", [&[first.into()][..], &names].concat().join(", ")),
    }
}

fn origins(config: &Config) -> String {
    let origins = match &config.cors {
        CorsPolicy::Any => "any, without cookies".into(),
        CorsPolicy::Listed(origins) => {
            let origins: Vec<_> = origins.iter().map(ToString::to_string).collect();
            origins.join(", ")
        }
        _ => "none".into(),
    };
    format!("other origins: {origins} (--cors-origin)")
}

/// The peers that have to name their clients.
fn proxies(config: &Config) -> String {
    let peers: Vec<_> = config.proxy_protocol_from.iter().map(ToString::to_string).collect();
    match peers.is_empty() {
        true => String::new(),
        false => {
            format!(
                "header of the PROXY protocol: from {} (--proxy-protocol-from)\n",
                peers.join(", ")
            )
        }
    }
}

fn state(config: &Config) -> String {
    let file = config.state.as_ref();
    file.map(|file| format!("state over a restart: {} (--state)\n", file.display()))
        .unwrap_or_default()
}

fn limits(config: &Config) -> String {
    let files = rlimit::Resource::NOFILE.get().map(|(files, _)| files).unwrap_or_default();
    let from_files = format!("as many as {files} open files allow");
    let from_connections = format!("as many as connections, and at least {STREAMS_MIN}");
    let rows = [
        ("connections", Some(shown(config.connections_max, &from_files))),
        ("streams", Some(shown(config.streams_max, &from_connections))),
        ("connections of an address", some(config.address_connections_max)),
        ("streams of an address", some(config.address_streams_max)),
        ("member streams of an organisation", some(config.hub.org_streams_max)),
        ("public streams of an organisation", some(config.hub.org_public_streams_max)),
        ("streams of a topic", some(config.hub.topic_streams_max)),
        ("publishes a second", config.publish_rate.map(|rate| rate.per_second.to_string())),
    ];
    let rows =
        rows.into_iter().filter_map(|(name, limit)| Some(format!("limit of {name}: {}\n", limit?)));
    rows.collect()
}

fn some(limit: Option<usize>) -> Option<String> {
    limit.map(|limit| limit.to_string())
}

fn shown(limit: Option<usize>, default: &str) -> String {
    some(limit).unwrap_or_else(|| default.into())
}
