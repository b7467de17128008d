//! `nudged token`: signs a token as a backend would, for development and scripts, with the claims that a server reads
//! by default.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{ArgGroup, Args};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use nudged::config::{InvalidKey, TokenKey};
use nudged::ids::{InvalidTopicName, TopicName};
use serde_json::{Map, Value, json};

use super::values::{Hidden, HumanDuration, PublicOrg, duration, public_org, read_file};
use super::{Exit, output};

/// The claims of the token, and the key that signs it.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("signer").required(true).args(["secret", "secret_file", "key"])))]
pub(crate) struct Token {
    /// Secret for HS256, the server's --jwt-secret
    #[arg(long, env = "NUDGED_JWT_SECRET", value_name = "SECRET", hide_env_values = true)]
    secret: Option<Hidden>,

    /// File with secrets for HS256, the server's --jwt-secret-file; the first one signs
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// PEM file with a private key (PKCS#8): RSA for RS256, P-256 for ES256, Ed25519 for EdDSA
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Name of the key in the server's JWK set (`kid`)
    #[arg(long, value_name = "KID")]
    kid: Option<String>,

    /// Orgs that the token is for, separated by commas; * for all
    #[arg(long, required = true, value_name = "ORG", value_delimiter = ',', value_parser = public_org)]
    org: Vec<PublicOrg>,

    /// Topics of these orgs that the token is for, separated by commas: names, beginnings like run-*, or *
    /// for all [default: none]
    #[arg(long, value_name = "TOPIC", value_delimiter = ',', value_parser = topic_pattern)]
    topics: Vec<String>,

    /// What the token allows, separated by commas: subscribe, publish, exclusive, which needs subscribe and
    /// lets a stream of a topic end all others, or ops, which needs --org * and shows what /ops does
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', default_value = SUBSCRIBE, value_parser = [SUBSCRIBE, PUBLISH, EXCLUSIVE, OPS])]
    scope: Vec<String>,

    /// How long the token is valid, from now on (`exp`)
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration(1_000..=31_536_000_000))]
    ttl: HumanDuration,

    /// How long the streams that it opens may last, from now on (`until`) [default: as long as --ttl]
    #[arg(long, value_name = "TIME", value_parser = duration(1_000..=31_536_000_000))]
    until: Option<HumanDuration>,

    /// Issuer (`iss`)
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,

    /// Audience (`aud`)
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
}

const SUBSCRIBE: &str = "subscribe";
const PUBLISH: &str = "publish";
const EXCLUSIVE: &str = "exclusive";
const OPS: &str = "ops";

// ===== impl Token =====

impl Token {
    pub(crate) fn run(self) -> Result<ExitCode, Exit> {
        let (token, claims) = self.sign(SystemTime::now()).map_err(Exit::usage)?;
        output::note(claims);
        output::write(format_args!("{token}\n"))?;
        Ok(ExitCode::SUCCESS)
    }

    /// A token that is valid from `now`, and its claims.
    fn sign(&self, now: SystemTime) -> Result<(String, Value), String> {
        self.check_scopes()?;
        let (algorithm, key) = self.signer()?;
        let claims = self.claims(now);
        let header = Header { kid: self.kid.clone(), ..Header::new(algorithm) };
        // Without a choice the library panics if two providers are compiled in.
        _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let token = encode(&header, &claims, &key)
            .map_err(|why| format!("the key cannot sign {algorithm:?}: {why}"))?;
        Ok((token, claims))
    }

    /// Fails if one of the scopes does nothing.
    fn check_scopes(&self) -> Result<(), String> {
        let has = |scope| self.scope.iter().any(|given| given == scope);
        if has(EXCLUSIVE) && (!has(SUBSCRIBE) || self.topics.is_empty()) {
            return Err(format!(
                "--scope {EXCLUSIVE} does nothing without the scope {SUBSCRIBE} and --topics: it is for \
                 streams of topics"
            ));
        }
        if has(OPS) && !self.org.iter().any(|org| matches!(org, PublicOrg::All)) {
            return Err(format!("--scope {OPS} does nothing without --org '*': it shows all orgs"));
        }
        Ok(())
    }

    fn signer(&self) -> Result<(Algorithm, EncodingKey), String> {
        if let Some(file) = &self.key {
            let pem = read_file("--key", file)?;
            return private_key(pem.as_bytes()).ok_or_else(|| {
                format!(
                    "--key {}: expected a PEM private key (PKCS#8): RSA, P-256 or Ed25519",
                    file.display()
                )
            });
        }
        let (flag, secret) = match (&self.secret_file, &self.secret) {
            // The first one, without a date.
            (Some(file), _) => {
                let text = read_file("--secret-file", file)?;
                refuse_key("--secret-file", &text)?;
                ("--secret-file", text.split_whitespace().next().unwrap_or_default().to_owned())
            }
            (None, secret) => {
                let text = secret.as_ref().map_or("", |Hidden(secret)| secret.trim_end());
                ("--secret", text.to_owned())
            }
        };
        // The server would refuse it.
        refuse_key(flag, &secret)?;
        TokenKey::from_secret(&secret).map_err(|why| format!("{flag}: {why}"))?;
        Ok((Algorithm::HS256, EncodingKey::from_secret(secret.as_bytes())))
    }

    fn claims(&self, now: SystemTime) -> Value {
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let orgs = self.org.iter().map(|org| match org {
            PublicOrg::All => "*",
            PublicOrg::One(org) => org.as_str(),
        });
        let mut claims = Map::new();
        match &orgs.collect::<Vec<_>>()[..] {
            [org] => claims.insert("org".into(), json!(org)),
            orgs => claims.insert("orgs".into(), json!(orgs)),
        };
        if !self.topics.is_empty() {
            claims.insert("topics".into(), json!(self.topics));
        }
        claims.insert("scope".into(), json!(self.scope.join(" ")));
        claims.insert("iat".into(), json!(since_1970.as_secs()));
        claims.insert("exp".into(), json!((since_1970 + self.ttl.0).as_secs()));
        if let Some(HumanDuration(until)) = self.until {
            claims.insert("until".into(), json!((since_1970 + until).as_secs()));
        }
        let named = [("iss", &self.issuer), ("aud", &self.audience)];
        for (name, value) in named.into_iter().filter_map(|(n, v)| Some((n, v.as_ref()?))) {
            claims.insert(name.into(), json!(value));
        }
        Value::Object(claims)
    }
}

/// A name of a topic, the beginning of names with a `*` behind it, or `*`.
fn topic_pattern(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('*').unwrap_or(text);
    if text == "*" || name.parse::<TopicName>().is_ok() {
        return Ok(text.to_owned());
    }
    Err(format!("{InvalidTopicName}; a * may stand at its end, for any ending: run-*"))
}

/// Fails if this is a key or a certificate in place of a secret.
fn refuse_key(flag: &str, text: &str) -> Result<(), String> {
    match TokenKey::from_secret(text) {
        Err(InvalidKey::KeyAsSecret) => Err(format!(
            "{flag}: this is a key or a certificate, and no secret; give a private key to --key, as PEM"
        )),
        _ => Ok(()),
    }
}

fn private_key(pem: &[u8]) -> Option<(Algorithm, EncodingKey)> {
    let ec = EncodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key));
    let ed = |_| EncodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key));
    let rsa = |_| EncodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key));
    ec.or_else(ed).or_else(rsa).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    /// The claims with these flags, or why there are none.
    fn claims(args: &str) -> Result<Value, String> {
        let args = format!("nudged token --org acme --secret {} {args}", "s".repeat(32));
        let cli = Cli::from_args(args.split_whitespace()).map_err(|why| why.to_string())?;
        let Some(Command::Token(token)) = cli.command else { panic!("another command") };
        token.sign(SystemTime::now()).map(|(_, claims)| claims)
    }

    #[test]
    fn a_token_names_its_topics_and_none_by_default() {
        let with =
            claims("--topics run-*,a.b --topics * --scope subscribe,exclusive").expect("claims");
        assert_eq!(with["topics"], json!(["run-*", "a.b", "*"]));
        assert_eq!(with["scope"], "subscribe exclusive");
        assert_eq!(claims("").expect("claims").get("topics"), None);
        let all = claims("--org * --scope ops,subscribe").expect("claims");
        assert_eq!((&all["orgs"], &all["scope"]), (&json!(["acme", "*"]), &json!("ops subscribe")));
    }

    #[test]
    fn a_topic_that_cannot_exist_and_a_scope_that_does_nothing_are_refused() {
        for (args, why) in [
            ("--topics a*b", "a * may stand at its end"),
            ("--topics a,,b", "a topic's name is 1 to 128"),
            ("--topics run-**", "a topic's name is 1 to 128"),
            ("--topics .a", "starts with a letter or digit"),
            ("--scope exclusive --topics a", "does nothing without the scope subscribe"),
            ("--scope subscribe,exclusive", "and --topics"),
            ("--scope listen", "[possible values: subscribe, publish, exclusive, ops]"),
            ("--scope ops", "does nothing without --org '*'"),
        ] {
            let refused = claims(args).expect_err(args);
            assert!(refused.contains(why), "{args}: {refused}");
        }
    }
}
