//! Access: keys, and origins.

use clap::Args;
use nudged::config::{AuthConfig, CorsPolicy, InvalidKey, InvalidOrigin, Secret};

use super::values::Hidden;

#[derive(Args, Clone, Debug)]
pub(super) struct AuthArgs {
    #[cfg(feature = "jwt")]
    #[command(flatten)]
    tokens: super::jwt::JwtArgs,

    /// Key that publishers send as authorization: Bearer instead of a token, at least 16 characters;
    /// allows publishing to every org, and does not expire. Repeat the flag for several, or separate
    /// them with white space, as in the variable
    #[arg(long, env = "NUDGED_PUBLISH_KEY", value_name = "KEY", hide_env_values = true)]
    publish_key: Vec<Hidden>,

    /// Origins whose pages may read responses, with cookies, separated by commas; * alone allows any
    /// origin, without cookies
    #[arg(long, env = "NUDGED_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    cors_origin: Vec<String>,
}

// ===== impl AuthArgs =====

impl AuthArgs {
    pub(super) fn into_config(self) -> Result<AuthConfig, String> {
        #[cfg_attr(not(feature = "jwt"), expect(unused_mut, reason = "only tokens are added"))]
        let mut auth = AuthConfig { publish_keys: self.publish_keys()?, ..AuthConfig::default() };
        #[cfg(feature = "jwt")]
        self.tokens.apply_to(&mut auth)?;
        Ok(auth)
    }

    /// The error shows no key. A value without any would leave a server open that was meant to be closed.
    fn publish_keys(&self) -> Result<Vec<Secret>, String> {
        let refused = |why: InvalidKey| format!("--publish-key: {why}");
        let mut keys = Vec::new();
        for Hidden(value) in &self.publish_key {
            if value.trim_ascii().is_empty() {
                return Err(refused(InvalidKey::PublishKey));
            }
            for key in value.split_ascii_whitespace() {
                keys.push(Secret::publish_key(key).map_err(refused)?);
            }
        }
        Ok(keys)
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
