//! Access: keys, and origins.

use clap::Args;
use http::HeaderName;
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

    /// Origins whose pages may read responses, with cookies, separated by commas; in
    /// https://*.preview.example the asterisk is any one label; * alone allows any origin, without
    /// cookies
    #[arg(long, env = "NUDGED_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    cors_origin: Vec<String>,

    /// Header fields that these pages may send, beside those of nudged, of tracing and
    /// x-requested-with; separate several with commas
    #[arg(long, env = "NUDGED_CORS_HEADER", value_name = "NAME", value_delimiter = ',', value_parser = field_name)]
    pub(super) cors_header: Vec<HeaderName>,
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

/// Browsers take an asterisk for a name, or for any field but `authorization`, depending on the request.
fn field_name(text: &str) -> Result<HeaderName, String> {
    let name = text.parse().ok().filter(|name: &HeaderName| name != "*");
    name.ok_or_else(|| "a header field has a name like x-tenant".into())
}
