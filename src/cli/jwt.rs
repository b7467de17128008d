//! Keys of tokens. They are read and checked here, so that a wrong one is an error at start.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use nudged::config::{AuthConfig, InvalidKey, JwksConfig, JwksUrl, TokenKey};

use super::values::{HumanDuration, duration};

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Tokens and origins")]
pub(super) struct JwtArgs {
    /// Secret that HS256 tokens are signed with, at least 32 bytes. Other users of this machine can see
    /// flags: prefer the variable, or --jwt-secret-file
    #[arg(long, env = "NUDGED_JWT_SECRET", value_name = "SECRET", hide_env_values = true, value_parser = token_secret)]
    jwt_secret: Option<TokenKey>,

    /// File with the secret that HS256 tokens are signed with; trailing white space is ignored
    #[arg(long, env = "NUDGED_JWT_SECRET_FILE", value_name = "FILE")]
    jwt_secret_file: Option<PathBuf>,

    /// PEM file with a public key: RSA for RS256, P-256 for ES256, Ed25519 for EdDSA; separate several
    /// with commas, or repeat the flag
    #[arg(long, env = "NUDGED_JWT_KEY", value_name = "FILE", value_delimiter = ',')]
    jwt_key: Vec<PathBuf>,

    /// URL of a JWK set with public keys: https, or http to a loopback address. A token without kid is
    /// refused if more than 4 of its keys could have signed it
    #[arg(long, env = "NUDGED_JWKS_URL", value_name = "URL")]
    jwks_url: Option<JwksUrl>,

    /// Shortest time between two fetches of the JWK set, however many tokens name an unknown key
    #[arg(long, env = "NUDGED_JWKS_INTERVAL", value_name = "TIME", default_value_t = HumanDuration(JwksConfig::INTERVAL), value_parser = duration(100..=3_600_000))]
    jwks_interval: HumanDuration,

    /// Age at which the JWK set is fetched again, even if no token names an unknown key
    #[arg(long, env = "NUDGED_JWKS_REFRESH", value_name = "TIME", default_value_t = HumanDuration(JwksConfig::REFRESH), value_parser = duration(1_000..=86_400_000))]
    jwks_refresh: HumanDuration,

    /// How long a fetch of the JWK set may take, and how long a request waits for it
    #[arg(long, env = "NUDGED_JWKS_TIMEOUT", value_name = "TIME", default_value_t = HumanDuration(JwksConfig::TIMEOUT), value_parser = duration(100..=60_000))]
    jwks_timeout: HumanDuration,

    /// Accepted issuers (`iss`), separated by commas [default: any]
    #[arg(long, env = "NUDGED_JWT_ISSUER", value_name = "ISSUER", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    jwt_issuer: Vec<String>,

    /// Accepted audiences (`aud`), separated by commas [default: any]
    #[arg(long, env = "NUDGED_JWT_AUDIENCE", value_name = "AUDIENCE", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    jwt_audience: Vec<String>,
}

// ===== impl JwtArgs =====

impl JwtArgs {
    pub(super) fn apply_to(self, auth: &mut AuthConfig) -> Result<(), String> {
        auth.keys.extend(self.jwt_secret);
        if let Some(file) = self.jwt_secret_file {
            auth.keys.push(read_key("--jwt-secret-file", &file, token_secret)?);
        }
        for file in &self.jwt_key {
            auth.keys.push(read_key("--jwt-key", file, TokenKey::from_pem)?);
        }
        auth.jwks = self.jwks_url.map(|url| JwksConfig {
            url,
            interval: self.jwks_interval.0,
            refresh: self.jwks_refresh.0,
            timeout: self.jwks_timeout.0,
        });
        auth.issuers = self.jwt_issuer;
        auth.audiences = self.jwt_audience;
        Ok(())
    }
}

/// Editors end files with a newline, which is no part of a secret.
fn token_secret(text: &str) -> Result<TokenKey, InvalidKey> {
    TokenKey::from_secret(text.trim_end())
}

/// The error names the file, and shows nothing of its contents.
fn read_key<T>(
    flag: &str,
    file: &Path,
    parse: impl FnOnce(&str) -> Result<T, InvalidKey>,
) -> Result<T, String> {
    let shown = file.display();
    let text = fs::read_to_string(file).map_err(|why| format!("{flag} {shown}: {why}"))?;
    parse(&text).map_err(|why| format!("{flag} {shown}: {why}"))
}
