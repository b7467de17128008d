//! The settings of the server: what contradicts itself, what is misspelt, and `nudged serve --check`.

use std::fs;
use std::net::TcpListener;
use std::process::{Output, Stdio};

use crate::support::certificate::Certificate;
use crate::support::programs::{OPENSSL, requires};
use crate::support::server::Signal;
use crate::support::temp_dir::TempDir;
use crate::support::{Server, Transport};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const KEY: &str = "publish-key-of-the-test";

/// No address of this machine, so that a server whose settings are accepted ends too.
const NOWHERE: &str = "192.0.2.1:0";

/// Why the program does not start with these flags, and these variables.
fn refusal(flags: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = Server::command();
    command.envs(variables.iter().copied()).env("NUDGED_LISTEN", NOWHERE);
    let (code, message) = Server::refuses_to_start_as(command, flags);
    assert_eq!(code, Some(2), "{flags:?} {variables:?}: {message}");
    message
}

/// `nudged serve --check` with these flags and variables.
fn check(flags: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Server::command();
    command.args(["serve", "--check"]).args(flags).envs(variables.iter().copied());
    command.stderr(Stdio::piped()).output().expect("the program")
}

/// What `--check` says of settings that are right.
fn checked(flags: &[&str], variables: &[(&str, &str)]) -> String {
    let output = check(flags, variables);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The log of a server with these variables, to its end.
fn log_with(variables: &[(&str, &str)]) -> String {
    let mut command = Server::command();
    command.envs(variables.iter().copied()).stderr(Stdio::piped());
    let mut server = Server::start_as(command, Transport::Http1, &[]);
    server.signal(Signal::TERM);
    let mut log = server.take_stderr();
    server.wait();
    std::io::read_to_string(&mut log).expect("text")
}

/// SCENARIO: a server is given `--jwt-issuer` and no key, or `--jwks-interval` and no `--jwks-url`.
/// BUG: it started, open in the first case, as if the setting had an effect.
/// FIX: a setting that does nothing without another is an error that names both, as a flag and as a variable.
#[test]
fn a_setting_that_does_nothing_without_another_is_an_error_that_names_it() {
    let (cert, key) = ("--tls-cert", "--tls-key");
    let secret = &["--jwt-secret", SECRET][..];
    let closed = &["--publish-key", KEY][..];
    let rows: [(&[&str], &str, &str, &str); 22] = [
        (&[], "--jwt-issuer", "us", "--jwks-url"),
        (&[], "--jwt-audience", "us", "--jwt-key"),
        (closed, "--jwt-issuer", "us", "--jwt-secret-file"),
        (secret, "--jwks-interval", "1s", "--jwks-url"),
        (secret, "--jwks-refresh", "1s", "--jwks-url"),
        (&[], "--jwks-timeout", "1s", "--jwks-url"),
        (&[], "--trust-forwarded-for", "10.0.0.0/8", "--address-streams"),
        (&[], "--publish-burst", "3", "--publish-rate"),
        (&[], "--internal-connections", "3", "--internal-listen"),
        (&[], cert, "cert.pem", key),
        (&[], key, "key.pem", cert),
        (&[], "--plain-listen", "127.0.0.1:0", cert),
        (secret, "--public-keys", "posts", "--public-orgs"),
        (secret, "--org-public-streams", "3", "--public-orgs"),
        (&["--public-orgs="], "--public-keys", "posts", "--public-orgs"),
        (closed, "--org-streams", "3", "--jwt-secret-file"),
        (closed, "--topic-streams", "3", "--jwt-secret-file"),
        (&[], "--topic-event-bytes", "262145", "--topic-bytes 262144"),
        (
            &["--topics-bytes-total", "70000"],
            "--topic-bytes",
            "70001",
            "--topics-bytes-total 70000",
        ),
        (&["--insecure-open"], "--cors-header", "x-a", "--cors-origin"),
        (&["--retry-max", "1s"], "--retry-min", "2s", "--retry-max"),
        (&[], "--drain-window", "1h", "--drain-timeout"),
    ];
    for (others, flag, value, missing) in rows {
        let variable = format!("NUDGED_{}", flag[2..].replace('-', "_").to_uppercase());
        for message in [
            refusal(&[others, &[flag, value]].concat(), &[]),
            refusal(others, &[(&variable, value)]),
        ] {
            assert!(message.contains(flag) && message.contains(missing), "{flag}: {message}");
            assert!(!message.contains("cannot listen"), "{flag}: {message}");
        }
    }
}

/// SCENARIO: a template leaves `NUDGED_JWT_ISSUER=` in the environment of a server.
/// BUG: the issuer was the empty string, so every token was refused without a word.
/// FIX: an empty variable is no variable, for every setting and every command.
#[test]
fn an_empty_variable_is_unset() {
    let help = Server::command().args(["serve", "--help"]).output().expect("the program");
    let help = String::from_utf8(help.stdout).expect("text");
    let names = help.split("[env: ").skip(1).filter_map(|rest| rest.split('=').next());
    let empty: Vec<_> =
        names.chain(["NUDGED_URL", "NUDGED_TOKEN"]).map(|name| (name, "")).collect();
    assert!(empty.len() > 40, "{empty:?}");
    let mut command = Server::command();
    command.envs(empty.iter().copied());
    let server = Server::start_as(command, Transport::Http1, &[]);
    server.get("/api/acme/events");
    let url = format!("http://{}", server.address());
    let mut publish = Server::command();
    publish.envs(empty.iter().copied()).args(["publish", "acme", "posts", "--url", &url]);
    let published = publish.output().expect("the program");
    assert!(published.status.success(), "{published:?}");
    let mut token = Server::command();
    token.envs(empty.iter().copied()).args(["token", "--org", "acme"]);
    let refused = token.stderr(Stdio::piped()).output().expect("the program");
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("--secret-file"), "no secret is given: {message}");
}

#[test]
fn a_value_that_no_token_could_have_is_refused() {
    for flag in ["--jwt-issuer", "--jwt-audience"] {
        for value in ["", "us,"] {
            let message = refusal(&["--jwt-secret", SECRET, flag, value], &[]);
            assert!(message.contains(flag), "{message}");
            assert!(!message.contains("cannot listen"), "{message}");
        }
    }
}

/// SCENARIO: `NUDGED_JWT_SECERT` is set, and the server is meant to be closed.
/// BUG: it started open, without a word.
/// FIX: a name that is a slip away from a known one is an error.
#[test]
fn a_misspelt_variable_is_an_error_that_names_the_right_one() {
    for (wrong, right) in [
        ("NUDGED_JWT_SECERT", "NUDGED_JWT_SECRET"),
        ("NUDGED_JWT_SECRETS_FILE", "NUDGED_JWT_SECRET_FILE"),
        ("NUDGED_PUBLIC_KEY", "NUDGED_PUBLIC_KEYS"),
        ("NUDGED_LISTENN", "NUDGED_LISTEN"),
        ("NUDGED_HOSTS", "NUDGED_HOST"),
        ("NUDGE_JWT_SECRET", "NUDGED_JWT_SECRET"),
        ("NUDEGD_JWT_SECRET", "NUDGED_JWT_SECRET"),
        ("nudged_jwt_secret", "NUDGED_JWT_SECRET"),
        ("NUDGED_JWT-SECRET", "NUDGED_JWT_SECRET"),
    ] {
        let message = refusal(&[], &[(wrong, SECRET)]);
        assert!(message.contains(wrong) && message.contains(right), "{wrong}: {message}");
        assert!(!message.contains(SECRET), "{message}");
    }
    // A client is not stopped by what is meant for a server.
    let mut token = Server::command();
    token.env("NUDGED_JWT_SECERT", SECRET).args(["token", "--org", "a", "--secret", SECRET]);
    assert!(token.stderr(Stdio::null()).output().expect("the program").status.success());
}

#[test]
fn an_unknown_variable_is_logged_unless_kubernetes_makes_it() {
    let log = log_with(&[("NUDGED_COLOUR", "red"), ("NUDGED_PORT", "8080"), ("NUDGED_TAG", "1")]);
    for name in ["NUDGED_COLOUR", "NUDGED_PORT", "NUDGED_TAG"] {
        assert_eq!(log.matches(name).count(), 1, "{log}");
    }
    let quiet = log_with(&[
        ("NUDGED_SERVICE_HOST", "10.0.0.1"),
        ("NUDGED_SERVICE_PORT", "6834"),
        ("NUDGED_SERVICE_PORT_HTTP", "6834"),
        ("NUDGED_PORT", "tcp://10.0.0.1:6834"),
        ("NUDGED_PORT_6834_TCP", "tcp://10.0.0.1:6834"),
        ("NUDGED_PORT_6834_TCP_PROTO", "tcp"),
        ("NUDGED_PORT_6834_TCP_PORT", "6834"),
        ("NUDGED_PORT_6834_TCP_ADDR", "10.0.0.1"),
        ("NUDGED_INTERNAL_SERVICE_HOST", "10.0.0.2"),
        ("NUDGED_INTERNAL_SERVICE_PORT_METRICS", "6835"),
        ("NUDGED_INTERNAL_PORT", "udp://10.0.0.2:6835"),
        ("NUDGED_INTERNAL_PORT_6835_UDP_ADDR", "10.0.0.2"),
        ("NUDGED_TEST_ALL", "1"),
        ("NUDGED_FUZZ_SECONDS", "1"),
        ("NUDGED_URL", "http://localhost"),
        ("NUDGED_TOKEN", "a"),
        ("NUDGED_EMPTY", ""),
        ("NUDGED_JWT_SECERT", ""),
    ]);
    assert_eq!(quiet, "");
}

/// `nginx -t`: it is run beside the server that it is meant for.
#[test]
fn a_check_says_what_would_be_served_and_serves_nothing() {
    let server = Server::start(&[]);
    let address = server.address().to_string();
    let said = checked(&["--listen", &address], &[]);
    for part in [&format!("http://{address}")[..], "open", "every organisation", "loopback"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(server.get("/livez").status(), 200);

    let dir = TempDir::new();
    let secret = dir.file("secret");
    fs::write(&secret, SECRET).expect("a file");
    let flags = ["--jwt-secret-file", &secret, "--listen", "127.0.0.1:0", "--publish-key", KEY];
    let said = checked(
        &[
            &flags[..],
            &["--public-orgs", "acme,shop", "--org-streams", "9", "--topic-streams", "7"],
        ]
        .concat(),
        &[("NUDGED_CORS_ORIGIN", "https://app.example")],
    );
    for part in
        ["closed", "acme, shop", "https://app.example", "9", "a topic: 7", &secret, "a publish key"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains(SECRET) && !said.contains(KEY), "{said}");
    let said = checked(&flags, &[]);
    assert!(said.contains("public streams: none"), "{said}");
}

#[test]
fn a_check_reads_the_certificate() {
    requires!(OPENSSL);
    let certificate = Certificate::of_tests();
    let [cert, file, key, private] = certificate.flags();
    let said = checked(&[cert, file, key, private], &[]);
    assert!(said.contains("https://127.0.0.1:6834") && said.contains(file), "{said}");
    let wrong = check(&[cert, file, key, file], &[]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("certificate"), "{wrong:?}");
}

#[test]
fn a_check_finds_what_would_keep_the_server_from_starting() {
    let dir = TempDir::new();
    let short = dir.file("short");
    fs::write(&short, "too-short").expect("a file");
    let elsewhere = &["--listen", NOWHERE, "--publish-key", KEY];
    for (flags, variables, why) in [
        (&["--jwt-secret-file", "/nowhere"][..], &[][..], "No such file"),
        (&["--jwt-secret-file", &short], &[], "32 bytes"),
        (&["--listen", "0.0.0.0:0"], &[], "--insecure-open"),
        (&["--internal-listen", "0.0.0.0:0"], &[], "--insecure-open"),
        (elsewhere, &[], NOWHERE),
        (&["--jwt-issuer", "us"], &[], "--jwt-key"),
        (&["--log", "nudged=loud"], &[], "--log"),
        (&["--tls-cert", "/nowhere", "--tls-key", "/nowhere"], &[], "--tls-key: No such file"),
        (&[], &[("NUDGED_JWT_SECERT", SECRET)], "NUDGED_JWT_SECRET"),
        (&[], &[("NUDGED_KEEPALIVE", "soon")], "--keepalive"),
        (&["--cors-origin", "https://example.com:abc", "--insecure-open"], &[], "--cors-origin"),
    ] {
        let output = check(flags, variables);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {output:?}");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains(why), "{flags:?}: {message}");
        assert_eq!(output.stdout, b"", "{flags:?}");
    }
    // What a check finds free is free for the server.
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let address = port.to_string();
    checked(&["--listen", &address], &[]);
    drop(Server::start(&["--listen", &address]));
}

/// SCENARIO: one address is given for the public and for the internal entrance.
/// BUG: `--check` found nothing wrong, and the server blamed another server.
/// FIX: both name the mistake.
#[test]
fn one_address_of_two_kinds_is_named_as_such() {
    let dir = TempDir::new();
    let path = format!("unix:{}", dir.file("socket"));
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    for address in [path, port.to_string()] {
        let flags = ["--listen", &address, "--internal-listen", &address];
        for more in [&["--check"][..], &[]] {
            let output = Server::command().args(flags).args(more).output().expect("the program");
            let message = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{more:?}: {message}");
            assert!(message.contains(&format!("{address} twice")), "{more:?}: {message}");
        }
    }
}

// ===== public streams =====

/// The lines that a server prints before it serves.
fn greeting(args: &[&str]) -> String {
    let mut command = Server::command();
    command.args(["--listen", "127.0.0.1:0", "--drain-window", "0"]).args(args);
    let mut child = command.spawn().expect("the program");
    let stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut lines = String::new();
    for line in std::io::BufRead::lines(stdout).map_while(Result::ok) {
        lines += &format!("{line}\n");
        if line.starts_with("try: ") {
            break;
        }
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    lines
}

/// SCENARIO: a server with a key serves strangers at `/api/acme/public/events`.
/// BUG: it did so for every organisation, had no setting against it, and its first line said that there were none.
/// FIX: with a key there are none but those of `--public-orgs`, whose list may be empty, and the first lines say which.
#[test]
fn a_closed_server_has_the_public_streams_that_are_configured() {
    let secret = &["--jwt-secret", SECRET][..];
    let key = &["--publish-key", KEY][..];
    for (flags, acme, other, said) in [
        (secret, 404, 404, "public streams: none"),
        (key, 404, 404, "public streams: none"),
        (
            &[secret, &["--public-orgs", "acme,shop"]].concat(),
            200,
            404,
            "public streams: of acme, shop",
        ),
        (
            &[key, &["--public-orgs", "*"]].concat(),
            200,
            200,
            "public streams: of every organisation",
        ),
        (&[secret, &["--public-orgs="]].concat(), 404, 404, "public streams: none"),
        (&[], 200, 200, "public streams: of every organisation"),
        (&["--public-orgs="], 404, 404, "public streams: none"),
        (&["--public-orgs", ""], 404, 404, "public streams: none"),
    ] {
        let server = Server::start(flags);
        for (org, expected) in [("acme", acme), ("other", other)] {
            let path = format!("/api/{org}/public/events");
            let mut client = server.connect();
            client.send(&format!("HEAD {path} HTTP/1.1\r\nhost: t\r\n\r\n"));
            let head = client.read_head();
            assert!(head.starts_with(&format!("HTTP/1.1 {expected} ")), "{flags:?} {org}: {head}");
            if expected == 200 {
                server.stream_with(&path, "").connected();
            } else {
                assert_eq!(server.get(&path).status(), 404, "{flags:?} {org}");
            }
        }
        drop(server);
        let lines = greeting(flags);
        assert!(lines.contains(said), "{flags:?}: {lines}");
    }
}
