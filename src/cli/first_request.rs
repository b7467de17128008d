//! The request that the greeting proposes: one that this server answers.

use nudged::config::{Config, Endpoint, PublicOrgs};
use nudged::server::Address;

/// A command for a shell; `None` without an address.
pub(crate) fn first_request(config: &Config, addresses: &[Address]) -> Option<String> {
    let public = curl(addresses.first()?);
    if config.auth.is_open() {
        return Some(format!("curl -N {public}/api/acme/events"));
    }
    if config.auth.takes_tokens() {
        let token = "-H \"authorization: Bearer $TOKEN\"";
        return Some(format!("curl -N {token} {public}/api/acme/events"));
    }
    // There is no token that opens a member stream.
    if let Some(org) = public_org(&config.hub.public.orgs) {
        return Some(format!("curl -N {public}/api/{org}/public/events"));
    }
    let publishing = addresses.iter().find(|address| address.internal).map_or(public, curl);
    Some(format!(
        "curl -H \"authorization: Bearer $KEY\" -H 'content-type: application/json' \
         -d '{{\"keys\":[\"posts\"]}}' {publishing}/api/acme/events"
    ))
}

/// The arguments of curl with which the URLs of this address begin.
fn curl(address: &Address) -> String {
    let Endpoint::Unix(path) = &address.endpoint else { return address.to_string() };
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    let (option, name) = match text.strip_prefix('@') {
        Some(name) => ("--abstract-unix-socket", name),
        None => ("--unix-socket", &text[..]),
    };
    let name = match name.chars().all(is_plain) {
        true => name.to_owned(),
        false => format!("'{}'", name.replace('\'', "'\\''")),
    };
    let scheme = if address.secure { "https" } else { "http" };
    format!("{option} {name} {scheme}://localhost")
}

/// An org that has a public stream.
fn public_org(orgs: &PublicOrgs) -> Option<&str> {
    match orgs {
        PublicOrgs::All => Some("acme"),
        PublicOrgs::Listed(orgs) => orgs.iter().map(|org| org.as_str()).min(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use nudged::config::{AuthConfig, Secret};

    use super::*;

    fn proposed(orgs: PublicOrgs, internal: bool) -> String {
        let key = Secret::publish_key("a-key-that-is-long-enough").expect("a key");
        let auth = AuthConfig { publish_keys: vec![key], ..AuthConfig::default() };
        let mut config = Config { auth, ..Config::default() };
        config.hub.public.orgs = orgs;
        let address = |port: u16, internal| Address {
            endpoint: ([127, 0, 0, 1], port).into(),
            secure: false,
            internal,
        };
        let addresses = [address(1, false), address(2, true)];
        first_request(&config, &addresses[..if internal { 2 } else { 1 }]).expect("an address")
    }

    #[test]
    fn with_a_publish_key_alone_a_public_stream_or_a_publish_is_proposed() {
        let listed = |names: &[&str]| {
            PublicOrgs::Listed(names.iter().map(|name| name.parse().expect("a name")).collect())
        };
        for (orgs, internal, url) in [
            (PublicOrgs::All, false, "http://127.0.0.1:1/api/acme/public/events"),
            (listed(&["b", "a"]), true, "http://127.0.0.1:1/api/a/public/events"),
            (listed(&[]), false, "http://127.0.0.1:1/api/acme/events"),
            (listed(&[]), true, "http://127.0.0.1:2/api/acme/events"),
        ] {
            let command = proposed(orgs, internal);
            assert!(command.ends_with(url), "{command}");
            assert!(!command.contains("$TOKEN"), "{command}");
            assert_eq!(command.contains("$KEY"), command.contains("-d "), "{command}");
        }
    }

    #[test]
    fn a_unix_socket_is_an_option_of_curl() {
        let listening = |path: &str, secure| Address {
            endpoint: Endpoint::Unix(path.into()),
            secure,
            internal: false,
        };
        for (path, secure, expected) in [
            ("/run/nudged.sock", false, "--unix-socket /run/nudged.sock http://localhost"),
            ("it's", true, "--unix-socket 'it'\\''s' https://localhost"),
            ("@nudged", false, "--abstract-unix-socket nudged http://localhost"),
        ] {
            assert_eq!(curl(&listening(path, secure)), expected);
        }
    }
}
