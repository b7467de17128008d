//! Files with keys of tokens, which are read at startup and again while the server runs.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{InvalidKey, TokenKey};

/// A file with keys that tokens may be signed with, and its keys as they were when it was read last.
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
    content: Content,
    keys: Vec<TokenKey>,
}

/// Why the keys of a file cannot be used. Shows nothing of its content.
#[derive(Debug)]
pub struct InvalidKeyFile {
    path: PathBuf,
    why: String,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    /// Secrets for HS256, one a line.
    Secrets,
    /// A public key in PEM.
    PublicKey,
}

/// The most secrets in one file: a token of HS256 is verified with each of them.
pub const SECRETS_MAX: usize = 16;

/// The largest file of keys, in bytes.
pub const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// What every key in PEM has, and no secret.
const PEM: &str = "-----BEGIN";

/// Stands between a secret and its date.
const UNTIL: &str = "until";

// ===== impl KeyFile =====

impl KeyFile {
    /// Reads a file with one to 16 secrets for HS256, each on a line of its own: `SECRET`, or
    /// `SECRET until 2026-12-01T00:00:00Z`, which is accepted before that time only. White space at the end of a line
    /// is ignored, and so are empty lines.
    ///
    /// # Errors
    /// The file cannot be read, has more than 64 KiB, or has a line that is no such secret; or there is no secret in it.
    pub fn secrets(path: impl Into<PathBuf>) -> Result<Self, InvalidKeyFile> {
        Self::read(path.into(), Content::Secrets)
    }

    /// Reads a file with one public key, as in [`TokenKey::from_pem`].
    ///
    /// # Errors
    /// The file cannot be read, has more than 64 KiB, or is no such key.
    pub fn public_key(path: impl Into<PathBuf>) -> Result<Self, InvalidKeyFile> {
        Self::read(path.into(), Content::PublicKey)
    }

    /// Reads the file again, if it is a regular one: to open a pipe could block for ever.
    ///
    /// # Errors
    /// As when it was read first, or it is no regular file. The keys stay as they were.
    pub fn read_again(&mut self) -> Result<(), InvalidKeyFile> {
        if std::fs::metadata(&self.path).is_ok_and(|file| !file.is_file()) {
            let (path, why) = (self.path.clone(), "it is no regular file".into());
            return Err(InvalidKeyFile { path, why });
        }
        *self = Self::read(self.path.clone(), self.content)?;
        Ok(())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether only the server and the issuer may know its content.
    pub fn is_secret(&self) -> bool {
        matches!(self.content, Content::Secrets)
    }

    /// Its keys, also those that are not accepted any more.
    pub(crate) fn keys(&self) -> &[TokenKey] {
        &self.keys
    }

    fn read(path: PathBuf, content: Content) -> Result<Self, InvalidKeyFile> {
        let read = read_limited(&path).and_then(|text| match content {
            Content::Secrets => parse_secrets(&text),
            Content::PublicKey => {
                TokenKey::from_pem(&text).map(|key| vec![key]).map_err(|why| why.to_string())
            }
        });
        match read {
            Ok(keys) => Ok(Self { path, content, keys }),
            Err(why) => Err(InvalidKeyFile { path, why }),
        }
    }
}

fn read_limited(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path)
        .and_then(|file| file.take(KEY_FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 > KEY_FILE_BYTES_MAX => {
            Err(format!("it has more than {KEY_FILE_BYTES_MAX} bytes"))
        }
        Ok(_) => Ok(text),
        Err(why) => Err(why.to_string()),
    }
}

fn parse_secrets(text: &str) -> Result<Vec<TokenKey>, String> {
    if text.contains(PEM) {
        return Err("this is a key in PEM, and no secret; a public one is for --jwt-key".into());
    }
    let lines = text.lines().map(str::trim_end).enumerate().filter(|(_, line)| !line.is_empty());
    let secrets = lines.map(|(index, line)| {
        parse_secret(line).map_err(|why| format!("line {}: {why}", index + 1))
    });
    let secrets: Vec<_> = secrets.collect::<Result<_, _>>()?;
    match secrets.len() {
        0 => Err("there is no secret in it".into()),
        count if count > SECRETS_MAX => {
            Err(format!("it has {count} secrets, and may have {SECRETS_MAX}"))
        }
        _ => Ok(secrets),
    }
}

fn parse_secret(line: &str) -> Result<TokenKey, String> {
    let Some((secret, rest)) = line.split_once(char::is_whitespace) else {
        return TokenKey::from_secret(line).map_err(|why| why.to_string());
    };
    let date = match rest.trim_start().strip_prefix(UNTIL) {
        Some(date) if !secret.is_empty() && date.is_empty() => date,
        Some(date) if !secret.is_empty() && date.starts_with(char::is_whitespace) => date.trim(),
        _ => {
            return Err(
                "a secret has no white space in it; an old one is written as SECRET until \
                 2026-12-01T00:00:00Z"
                    .into(),
            );
        }
    };
    let until = humantime::parse_rfc3339(date)
        .map_err(|_| "an old secret is written as SECRET until 2026-12-01T00:00:00Z")?;
    let key = TokenKey::from_secret(secret).map_err(|why: InvalidKey| why.to_string())?;
    Ok(key.with_end(until))
}

// ===== impl TokenKey =====

impl TokenKey {
    /// The same key, which verifies no token from this time on. A stream that was opened before ends when its token
    /// expires.
    pub fn with_end(self, until: SystemTime) -> Self {
        Self { until: Some(until), ..self }
    }

    /// Whether it verifies tokens at this time of the wall clock.
    pub(crate) fn is_current(&self, wall: SystemTime) -> bool {
        self.until.is_none_or(|until| wall < until)
    }
}

// ===== impl InvalidKeyFile =====

impl fmt::Display for InvalidKeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

impl Error for InvalidKeyFile {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NEW: &str = "0123456789abcdef0123456789abcdef";
    const OLD: &str = "fedcba9876543210fedcba9876543210";

    #[test]
    fn an_old_secret_verifies_before_its_date_only() {
        let text = format!("{NEW}\r\n\n{OLD}\t until  1970-01-02T00:00:00Z \n");
        let [new, old] = &parse_secrets(&text).expect("two secrets")[..] else { panic!("{text}") };
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let day = 24 * 60 * 60;
        assert!(new.is_current(at(0)) && new.is_current(at(1 << 40)));
        assert!(old.is_current(at(0)) && old.is_current(at(day - 1)));
        assert!(!old.is_current(at(day)) && !old.is_current(at(1 << 40)));
    }

    #[test]
    fn a_file_is_bounded_and_its_lines_are_secrets() {
        let lines = |count| format!("{NEW}\n").repeat(count);
        assert_eq!(parse_secrets(&lines(SECRETS_MAX)).map(|keys| keys.len()), Ok(SECRETS_MAX));
        for (text, why) in [
            (lines(SECRETS_MAX + 1), "17 secrets"),
            (String::new(), "no secret"),
            ("-----BEGIN PUBLIC KEY-----\nMCow\n-----END".to_owned(), "--jwt-key"),
            (format!("{NEW}\n\n {OLD}\n"), "line 3: a secret has no white space"),
            (format!("{NEW} untilled 1970-01-02T00:00:00Z"), "line 1: a secret has no white space"),
            (format!("{NEW} until"), "line 1: an old secret"),
            (format!("{NEW} until 1970-01-02T00:00:00Z {OLD}"), "line 1: an old secret"),
            (" until 1970-01-02T00:00:00Z".to_owned(), "line 1: a secret has no white space"),
            ("short until 1970-01-02T00:00:00Z".to_owned(), "line 1: a secret for HS256 needs"),
        ] {
            let refused = parse_secrets(&text).expect_err("no secrets");
            assert!(refused.contains(why), "{refused}");
            assert!(!refused.contains(NEW) && !refused.contains(OLD), "{refused}");
        }
        assert!(KeyFile::secrets("/dev/zero").expect_err("endless").to_string().contains("65536"));
    }
}
