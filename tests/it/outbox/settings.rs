//! The settings of the outbox, and its SQL.

use crate::support::Server;
use crate::support::postgres::{Postgres, outbox_sql};
use crate::support::programs::{POSTGRES, requires};

#[test]
fn a_wrong_setting_is_refused_with_the_reason_and_without_the_password() {
    let url = "postgres://app:sesame@localhost/app";
    let modes = [format!("{url}?sslmode=require"), format!("{url}?sslmode=verify-ca")];
    for (args, why) in [
        (&["--outbox", "localhost/app"][..], "its scheme is not postgres"),
        (&["--outbox", "postgres://localhost/app"], "it has no user"),
        (&["--outbox", &modes[1]], "verify-full"),
        (&["--outbox", &modes[0], "--outbox-ca", "ca.pem"], "sslmode=verify-full"),
        (&["--outbox", url, "--outbox-ca", "/no/such/file"], "--outbox-ca /no/such/file"),
        (&["--outbox", url, "--outbox-direct", "x"], "--outbox-direct: its scheme"),
        (&["--outbox", url, "--outbox-interval", "1ms"], "allowed is 10ms to"),
        (&["--outbox", "postgres://app:sesame@localhost"], "it names no database"),
        (
            &["--outbox", url, "--outbox-direct", url, "--backplane", "nats://localhost"],
            "--outbox-direct does nothing with --backplane without --outbox-listen",
        ),
        (&["--outbox-listen"], "does nothing without --outbox"),
        (&["--outbox-delay", "1s"], "does nothing without --outbox"),
    ] {
        let (code, text) = Server::refuses_to_start(args);
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.contains(why) && !text.contains("sesame"), "{args:?}: {text}");
    }
}

/// What a server that is checked, or started, says about the outbox, without the login.
#[test]
fn a_check_names_the_database() {
    let mut command = Server::command();
    let url = "postgres://app:sesame@[::1]:7,other/app?sslmode=require";
    let checked = command.args(["serve", "--check", "--outbox", url]).output().expect("it runs");
    let text = String::from_utf8(checked.stdout).expect("text");
    assert!(checked.status.success(), "{text}");
    let line = "\noutbox: what is committed in postgres://[::1]:7,other:5432/app\n";
    assert!(text.contains(line) && !text.contains("sesame"), "{text}");
}

#[test]
fn the_sql_may_be_run_again_and_is_all_that_is_needed() {
    requires!(POSTGRES);
    let postgres = Postgres::bare();
    let sql = postgres.sql();
    for flags in [&[][..], &[], &["--notify"], &["--notify"], &[]] {
        sql.run(&outbox_sql(flags));
        sql.run("SELECT nudge('acme', 'a')");
    }
    assert_eq!(sql.waiting(), 5);
    // It works in a schema of its own, and from a function with an empty search_path.
    sql.run("CREATE SCHEMA app; SET search_path = app");
    sql.run(&outbox_sql(&[]));
    sql.run("SET search_path = ''; SELECT app.nudge('acme', 'a')");
    assert_eq!(sql.number("SELECT count(*) FROM app.nudged_outbox"), 1);
}
