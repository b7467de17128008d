//! TLS and passwords.

use super::{logging, next_keys};
use crate::support::certificate::Certificate;
use crate::support::postgres::Postgres;
use crate::support::programs::{OPENSSL, POSTGRES, requires};
use crate::support::temp_dir::TempDir;

/// With characters that a URL has to encode.
const PASSWORD: &str = "se:s@me /?#%&é";
const ENCODED: &str = "se%3As%40me%20%2F%3F%23%25%26%C3%A9";

/// A database whose user `app` needs a password, and `is_secure` TLS.
fn with_password(is_secure: bool) -> Postgres {
    let postgres = Postgres::start();
    postgres.sql().run(&format!(
        "CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'; \
         GRANT SELECT, UPDATE, DELETE ON nudged_outbox TO app"
    ));
    postgres.ask_for_passwords(is_secure);
    postgres
}

/// Drains, and does so encrypted if `is_secure`.
fn drains(postgres: &Postgres, url: &str, args: &[&str], is_secure: bool) {
    let (server, log) = logging(url, args);
    let lines = log.until("the outbox is drained");
    assert!(!lines.contains("not drained"), "{url} {args:?}: {lines}");
    let mut stream = server.stream("acme");
    stream.connected();
    let sql = postgres.sql();
    sql.run("SELECT nudge('acme', 'a')");
    assert_eq!(next_keys(&mut stream), ["a"]);
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
        WHERE application_name = 'nudged' AND ssl";
    assert_eq!(sql.number(encrypted) > 0, is_secure, "{url} {args:?}");
}

/// Is refused with this reason, which has no part of a password.
fn fails(url: &str, args: &[&str], why: &str) {
    let (_server, log) = logging(url, args);
    let lines = log.until("the outbox is not drained");
    assert!(lines.contains(why), "{url} {args:?} {why:?}: {lines}");
    for secret in [PASSWORD, ENCODED, "sesame"] {
        assert!(!lines.contains(secret), "{lines}");
    }
}

#[test]
fn a_password_is_sent_as_scram_and_never_shown() {
    requires!(POSTGRES);
    let postgres = with_password(false);
    let user = |login: &str| postgres.url_of(login);
    drains(&postgres, &user(&format!("app:{ENCODED}")), &[], false);
    fails(&user("app:sesame"), &[], "password authentication failed");
    fails(&user("app"), &[], "password missing");
    // What is encrypted when it is asked for fails without TLS, and the password is not sent.
    for mode in ["require", "verify-full"] {
        let url = format!("{}?sslmode={mode}", user("app:sesame"));
        fails(&url, &[], "server does not support TLS");
    }
}

#[test]
fn a_connection_is_as_its_mode_says() {
    requires!(POSTGRES, OPENSSL);
    let dir = TempDir::new();
    let make = |name: &str, san: &str| {
        Certificate::make_with(
            &[san, "basicConstraints=critical,CA:FALSE"],
            &dir.path().join(name),
            name,
        )
    };
    let here = make("here", "subjectAltName=IP:127.0.0.1,DNS:localhost");
    let elsewhere = make("elsewhere", "subjectAltName=DNS:db.example");
    let postgres = with_password(true);
    postgres.use_certificate(&here);
    let url = |mode: &str| {
        let url = postgres.url_of(&format!("app:{ENCODED}"));
        if mode.is_empty() { url } else { format!("{url}?sslmode={mode}") }
    };
    let ca = ["--outbox-ca", &here.certificate];
    drains(&postgres, &url(""), &[], true);
    drains(&postgres, &url("prefer"), &[], true);
    drains(&postgres, &url("require"), &[], true);
    drains(&postgres, &url("verify-full"), &ca, true);
    drains(&postgres, &url(""), &ca, true);
    let local = url("verify-full").replace("127.0.0.1", "localhost");
    drains(&postgres, &local, &ca, true);
    fails(&url("disable"), &[], "no encryption");
    // Of another authority: those of the system, or one of ours.
    fails(&url("verify-full"), &[], "name its authority with --outbox-ca");
    let other = ["--outbox-ca", &elsewhere.certificate];
    fails(&url("verify-full"), &other, "not of an authority in --outbox-ca");
    // Of this authority, for another name.
    postgres.use_certificate(&elsewhere);
    let ca = ["--outbox-ca", &elsewhere.certificate];
    fails(&url("verify-full"), &ca, "not valid for name");
    fails(&url(""), &ca, "not valid for name");
    drains(&postgres, &url("require"), &[], true);
}
