//! Keys of tokens. They are read and checked here, so that a wrong one is an error at start.

use std::path::PathBuf;

use clap::Args;
use nudged::config::{
    AuthConfig, InvalidKey, InvalidKeyFile, JwksConfig, JwksUrl, KeyFile, TokenKey,
};

use super::values::{HumanDuration, duration};

#[derive(Args, Clone, Debug)]
pub(super) struct JwtArgs {
    /// Secret that HS256 tokens are signed with, at least 32 bytes. Other users of this machine can see
    /// flags: prefer the variable, or --jwt-secret-file
    #[arg(long, env = "NUDGED_JWT_SECRET", value_name = "SECRET", hide_env_values = true, value_parser = token_secret)]
    jwt_secret: Option<TokenKey>,

    /// File with secrets that HS256 tokens are signed with, one a line. An old one has a date until which
    /// it is accepted: SECRET until 2026-12-01T00:00:00Z. Read again when it changes, and on SIGHUP;
    /// separate several files with commas, or repeat the flag
    #[arg(long, env = "NUDGED_JWT_SECRET_FILE", value_name = "FILE", value_delimiter = ',')]
    jwt_secret_file: Vec<PathBuf>,

    /// PEM file with a public key: RSA for RS256, P-256 for ES256, Ed25519 for EdDSA. Read again when it
    /// changes, and on SIGHUP; separate several with commas, or repeat the flag
    #[arg(long, env = "NUDGED_JWT_KEY", value_name = "FILE", value_delimiter = ',')]
    jwt_key: Vec<PathBuf>,

    /// URL of a JWK set with public keys: https, or http to a loopback address. Needs --jwt-audience. A
    /// token without kid is refused if more than 4 of its keys could have signed it
    #[arg(long, env = "NUDGED_JWKS_URL", value_name = "URL")]
    jwks_url: Option<JwksUrl>,

    /// Shortest time between two fetches of the JWK set, however many tokens none of its keys verifies
    #[arg(long, env = "NUDGED_JWKS_INTERVAL", value_name = "TIME", default_value_t = HumanDuration(JwksConfig::INTERVAL), value_parser = duration(100..=3_600_000))]
    jwks_interval: HumanDuration,

    /// Age at which the JWK set is fetched again, even if its keys verify every token
    #[arg(long, env = "NUDGED_JWKS_REFRESH", value_name = "TIME", default_value_t = HumanDuration(JwksConfig::REFRESH), value_parser = duration(1_000..=86_400_000))]
    jwks_refresh: HumanDuration,

    /// How long a fetch of the JWK set may take, and how long a request waits for it
    #[arg(long, env = "NUDGED_JWKS_TIMEOUT", value_name = "TIME", default_value_t = HumanDuration(JwksConfig::TIMEOUT), value_parser = duration(100..=60_000))]
    jwks_timeout: HumanDuration,

    /// Accepted issuers (`iss`), separated by commas [default: any]
    #[arg(long, env = "NUDGED_JWT_ISSUER", value_name = "ISSUER", value_delimiter = ',')]
    jwt_issuer: Vec<String>,

    /// Accepted audiences (`aud`), separated by commas, one of which a token has to name; any alone
    /// accepts tokens for every audience [default: any, but required with --jwks-url]
    #[arg(long, env = "NUDGED_JWT_AUDIENCE", value_name = "AUDIENCE", value_delimiter = ',')]
    jwt_audience: Vec<String>,
}

/// The word for every audience.
const ANY: &str = "any";

// ===== impl JwtArgs =====

impl JwtArgs {
    pub(super) fn apply_to(self, auth: &mut AuthConfig) -> Result<(), String> {
        auth.keys.extend(self.jwt_secret);
        let named = |flag: &'static str| move |why: InvalidKeyFile| format!("{flag} {why}");
        for file in self.jwt_secret_file {
            auth.key_files.push(KeyFile::secrets(file).map_err(named("--jwt-secret-file"))?);
        }
        for file in self.jwt_key {
            auth.key_files.push(KeyFile::public_key(file).map_err(named("--jwt-key"))?);
        }
        auth.audiences = audiences(self.jwt_audience, self.jwks_url.is_some())?;
        auth.jwks = self.jwks_url.map(|url| JwksConfig {
            url,
            interval: self.jwks_interval.0,
            refresh: self.jwks_refresh.0,
            timeout: self.jwks_timeout.0,
        });
        auth.issuers = self.jwt_issuer;
        Ok(())
    }
}

/// Editors end files with a newline, which is no part of a secret.
fn token_secret(text: &str) -> Result<TokenKey, InvalidKey> {
    TokenKey::from_secret(text.trim_end())
}

/// The accepted audiences; none for any. An issuer that publishes its keys may sign tokens for other services too.
fn audiences(named: Vec<String>, is_published: bool) -> Result<Vec<String>, String> {
    match &named[..] {
        [] if is_published => Err("--jwks-url: the issuer may sign tokens for other services with \
             these keys; name yours, as tokens do in `aud`, with --jwt-audience NAME, or accept them \
             all with --jwt-audience any"
            .into()),
        [any] if any == ANY => Ok(Vec::new()),
        several if several.iter().any(|name| name == ANY) => {
            Err("--jwt-audience: any is for every audience; it stands alone".into())
        }
        _ => Ok(named),
    }
}
