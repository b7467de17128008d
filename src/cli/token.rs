//! `nudged token`: mints what a backend would, for development and for scripts.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{ArgGroup, Args};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value, json};

use super::values::{PublicOrg, Span, public_org, span};
use crate::config::TokenKey;

/// What the token shall say, and what it is signed with.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("signer").required(true).args(["secret", "secret_file", "key"])))]
pub struct Token {
    /// Secret for HS256, the server's --jwt-secret
    #[arg(long, env = "NUDGED_JWT_SECRET", value_name = "SECRET", hide_env_values = true)]
    secret: Option<String>,

    /// File with such a secret
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// File with a PEM private key (PKCS#8): RSA for RS256, P-256 for ES256, Ed25519 for EdDSA
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Name of the key, where the server has it from a JWK set
    #[arg(long, value_name = "KID")]
    kid: Option<String>,

    /// Organisations it is for, separated by commas; * for all
    #[arg(long, required = true, value_name = "ORG", value_delimiter = ',', value_parser = public_org)]
    org: Vec<PublicOrg>,

    /// What it allows: subscribe, publish, or both, separated by a comma
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', default_value = "subscribe", value_parser = ["subscribe", "publish"])]
    scope: Vec<String>,

    /// How long it is good
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = span(1_000..=31_536_000_000))]
    ttl: Span,

    /// Who issues it (iss)
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,

    /// For whom it is (aud)
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
}

/// A token, and what it says.
#[derive(Debug)]
pub struct Minted {
    /// The token.
    pub token: String,
    /// Its claims, as JSON.
    pub claims: Value,
}

// ===== impl Token =====

impl Token {
    /// Mints a token that is good from `now`.
    ///
    /// # Errors
    /// Says what is wrong with the key.
    pub fn mint(&self, now: SystemTime) -> Result<Minted, String> {
        let (algorithm, key) = self.signer()?;
        let claims = self.claims(now);
        let header = Header { kid: self.kid.clone(), ..Header::new(algorithm) };
        // As in the server: an application may have brought two.
        _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let token = encode(&header, &claims, &key)
            .map_err(|why| format!("the key cannot sign {algorithm:?}: {why}"))?;
        Ok(Minted { token, claims })
    }

    fn signer(&self) -> Result<(Algorithm, EncodingKey), String> {
        let read = |file: &PathBuf| {
            fs::read_to_string(file).map_err(|why| format!("{}: {why}", file.display()))
        };
        if let Some(file) = &self.key {
            let pem = read(file)?;
            return private_key(pem.as_bytes()).ok_or_else(|| {
                format!(
                    "--key {}: expected a PEM private key (PKCS#8): RSA, P-256 or Ed25519",
                    file.display()
                )
            });
        }
        let secret = match &self.secret_file {
            Some(file) => read(file)?,
            None => self.secret.clone().unwrap_or_default(),
        };
        let secret = secret.trim_end();
        // The server would refuse it.
        TokenKey::from_secret(secret).map_err(|why| why.to_string())?;
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
        claims.insert("scope".into(), json!(self.scope.join(" ")));
        claims.insert("iat".into(), json!(since_1970.as_secs()));
        claims.insert("exp".into(), json!((since_1970 + self.ttl.0).as_secs()));
        let named = [("iss", &self.issuer), ("aud", &self.audience)];
        for (name, value) in named.into_iter().filter_map(|(n, v)| Some((n, v.as_ref()?))) {
            claims.insert(name.into(), json!(value));
        }
        Value::Object(claims)
    }
}

fn private_key(pem: &[u8]) -> Option<(Algorithm, EncodingKey)> {
    let ec = EncodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key));
    let ed = |_| EncodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key));
    let rsa = |_| EncodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key));
    ec.or_else(ed).or_else(rsa).ok()
}
