//! Access: keys, and origins.

use clap::Args;
use nudged::config::{AuthConfig, CorsPolicy, InvalidOrigin, Secret};

#[derive(Args, Clone, Debug)]
pub(super) struct AuthArgs {
    #[cfg(feature = "jwt")]
    #[command(flatten)]
    tokens: super::jwt::JwtArgs,

    /// Key that publishers send as authorization: Bearer instead of a token, at least 16 characters;
    /// allows publishing to every org, and does not expire. Separate several with commas
    #[arg(long, env = "NUDGED_PUBLISH_KEY", value_name = "KEY", value_delimiter = ',', hide_env_values = true, value_parser = Secret::publish_key)]
    publish_key: Vec<Secret>,

    /// Origins whose pages may read responses, with cookies, separated by commas; * alone allows any
    /// origin, without cookies
    #[arg(long, env = "NUDGED_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    cors_origin: Vec<String>,
}

// ===== impl AuthArgs =====

impl AuthArgs {
    pub(super) fn into_config(self) -> Result<AuthConfig, String> {
        #[cfg_attr(not(feature = "jwt"), expect(unused_mut, reason = "only tokens are added"))]
        let mut auth = AuthConfig { publish_keys: self.publish_key, ..AuthConfig::default() };
        #[cfg(feature = "jwt")]
        self.tokens.apply_to(&mut auth)?;
        Ok(auth)
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
