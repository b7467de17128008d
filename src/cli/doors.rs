//! The settings of who may come in. Keys are read and checked here, so that a wrong one is an error at
//! the start.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::values::{Span, span};
use crate::config::{
    AuthConfig, CorsPolicy, InvalidKey, InvalidOrigin, JwksConfig, JwksUrl, Secret, TokenKey,
};

/// Who may come in; without any key the server is open.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Tokens and origins")]
pub(super) struct Doors {
    /// Secret that tokens are signed with by HS256, at least 32 bytes; other users of this machine
    /// can see it as a flag, so better the variable or --jwt-secret-file
    #[arg(long, env = "NUDGED_JWT_SECRET", value_name = "SECRET", hide_env_values = true, value_parser = token_secret)]
    jwt_secret: Option<TokenKey>,

    /// File with such a secret; white space at its end does not count
    #[arg(long, env = "NUDGED_JWT_SECRET_FILE", value_name = "FILE")]
    jwt_secret_file: Option<PathBuf>,

    /// File with a PEM public key: RSA for RS256, P-256 for ES256, Ed25519 for EdDSA; several are
    /// separated by commas, or given one by one
    #[arg(long, env = "NUDGED_JWT_KEY", value_name = "FILE", value_delimiter = ',')]
    jwt_key: Vec<PathBuf>,

    /// Where public keys are published as a JWK set: https, or http to a loopback address
    #[arg(long, env = "NUDGED_JWKS_URL", value_name = "URL")]
    jwks_url: Option<JwksUrl>,

    /// The least time from one fetch of the JWK set to the next, however many unknown keys are named
    #[arg(long, env = "NUDGED_JWKS_INTERVAL", value_name = "TIME", default_value_t = Span(JwksConfig::INTERVAL), value_parser = span(100..=3_600_000))]
    jwks_interval: Span,

    /// The age at which the JWK set is fetched again although it has every key that is asked for
    #[arg(long, env = "NUDGED_JWKS_REFRESH", value_name = "TIME", default_value_t = Span(JwksConfig::REFRESH), value_parser = span(1_000..=86_400_000))]
    jwks_refresh: Span,

    /// How long a fetch of the JWK set may take, and a request wait for it
    #[arg(long, env = "NUDGED_JWKS_TIMEOUT", value_name = "TIME", default_value_t = Span(JwksConfig::TIMEOUT), value_parser = span(100..=60_000))]
    jwks_timeout: Span,

    /// Who has to have issued a token (iss), one of them if several are given; anyone by default
    #[arg(long, env = "NUDGED_JWT_ISSUER", value_name = "ISSUER", value_delimiter = ',')]
    jwt_issuer: Vec<String>,

    /// For whom a token has to be (aud), one of them if several are given; anyone by default
    #[arg(long, env = "NUDGED_JWT_AUDIENCE", value_name = "AUDIENCE", value_delimiter = ',')]
    jwt_audience: Vec<String>,

    /// Key that publishers without a token send as authorization: Bearer, at least 16 characters; it
    /// allows to publish to every org, and does not expire
    #[arg(long, env = "NUDGED_PUBLISH_KEY", value_name = "KEY", value_delimiter = ',', hide_env_values = true, value_parser = Secret::publish_key)]
    publish_key: Vec<Secret>,

    /// Origins whose pages may read answers, with cookies; several are separated by commas. * is any,
    /// without cookies
    #[arg(long, env = "NUDGED_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    cors_origin: Vec<String>,
}

// ===== impl Doors =====

impl Doors {
    pub(super) fn into_auth(self) -> Result<AuthConfig, String> {
        let mut keys: Vec<_> = self.jwt_secret.into_iter().collect();
        if let Some(file) = self.jwt_secret_file {
            keys.push(read_key("--jwt-secret-file", &file, token_secret)?);
        }
        for file in &self.jwt_key {
            keys.push(read_key("--jwt-key", file, TokenKey::from_pem)?);
        }
        let jwks = self.jwks_url.map(|url| JwksConfig {
            url,
            interval: self.jwks_interval.0,
            refresh: self.jwks_refresh.0,
            timeout: self.jwks_timeout.0,
        });
        Ok(AuthConfig {
            keys,
            jwks,
            issuers: self.jwt_issuer,
            audiences: self.jwt_audience,
            publish_keys: self.publish_key,
        })
    }

    pub(super) fn cors(&self) -> Result<CorsPolicy, String> {
        match &self.cors_origin[..] {
            [] => Ok(CorsPolicy::SameOrigin),
            [any] if any == "*" => Ok(CorsPolicy::Any),
            origins if origins.iter().any(|origin| origin == "*") => {
                Err("--cors-origin: * is any origin, without cookies; it stands alone".into())
            }
            origins => origins
                .iter()
                .map(|text| {
                    let refused = |why: InvalidOrigin| format!("--cors-origin {text}: {why}");
                    text.parse().map_err(refused)
                })
                .collect::<Result<_, _>>()
                .map(CorsPolicy::Listed),
        }
    }
}

/// What an editor leaves at the end of a file is no part of a secret.
fn token_secret(text: &str) -> Result<TokenKey, InvalidKey> {
    TokenKey::from_secret(text.trim_end())
}

/// Says which file is wrong, and nothing of what is in it.
fn read_key<T>(
    flag: &str,
    file: &Path,
    parse: impl FnOnce(&str) -> Result<T, InvalidKey>,
) -> Result<T, String> {
    let shown = file.display();
    let text = fs::read_to_string(file).map_err(|why| format!("{flag} {shown}: {why}"))?;
    parse(&text).map_err(|why| format!("{flag} {shown}: {why}"))
}
