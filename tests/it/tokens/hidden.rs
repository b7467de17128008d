//! Secrets stay out of what the program prints when it refuses its settings, and out of `--help`.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::process::Stdio;

use super::{PUBLISH_KEY, SECRET, bearer, key_pair, mint, status_of};
use crate::support::client::post;
use crate::support::programs::{OPENSSL, requires};
use crate::support::temp_dir::TempDir;
use crate::support::{Server, eventually};

/// A part of every secret of these tests.
const MARK: &str = "hunter2";

/// A key in a variable that is meant for the name of a file.
const PEM: &str = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n";

/// Runs the program, which has to end by itself; returns its exit code, and all that it printed.
fn run(args: &[&str], variables: &[(&str, OsString)]) -> (Option<i32>, String) {
    let mut command = Server::command();
    command.args(args).envs(variables.iter().map(|(name, value)| (name, value)));
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let readers: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().expect("piped")),
        Box::new(child.stderr.take().expect("piped")),
    ];
    let readers = readers.map(|mut reader| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).expect("a pipe");
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    let (mut status, start) = (None, std::time::Instant::now());
    while status.is_none() && start.elapsed() < std::time::Duration::from_secs(30) {
        status = child.try_wait().expect("a child");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    _ = child.kill();
    _ = child.wait();
    let printed = readers.map(|reader| reader.join().expect("no panic")).concat();
    let status = status.unwrap_or_else(|| panic!("{args:?} is not refused: {printed}"));
    (status.code(), printed)
}

/// Fails unless the settings are refused without a word of the secret. Returns what was printed.
fn refused(args: &[&str], variables: &[(&str, OsString)]) -> String {
    let (code, printed) = run(args, variables);
    assert_ne!(code, Some(0), "{args:?} {variables:?}");
    assert!(!printed.contains(MARK), "{args:?} {variables:?}: {printed}");
    printed
}

/// SCENARIO: a secret is too short, or a URL with a password is wrong, and the service fails to start.
/// BUG: the argument parser quoted the value in its error, which the service manager writes into its journal.
/// FIX: settings that may contain a secret are taken as they are, and the error that refuses one names only the flag.
#[test]
fn a_refused_secret_is_not_printed() {
    let (short, long) = ("hunter2-", "a-hunter2-of-more-than-32-bytes\u{e9}");
    let spaced = "hunter2 hunter2-hunter2";
    let settings: &[(&str, &str, &[&str], &[&str])] = &[
        ("--jwt-secret", "NUDGED_JWT_SECRET", &[], &["", short]),
        ("--jwt-secret-file", "NUDGED_JWT_SECRET_FILE", &[], &[long, PEM]),
        ("--jwt-key", "NUDGED_JWT_KEY", &[], &[PEM, long]),
        ("--tls-key", "NUDGED_TLS_KEY", &["--tls-cert", "Cargo.toml"], &[PEM, long]),
        (
            "--publish-key",
            "NUDGED_PUBLISH_KEY",
            &[],
            &["", short, long, "hunter2hunter2hunter2,", spaced],
        ),
        (
            "--jwks-url",
            "NUDGED_JWKS_URL",
            &[],
            &[
                "https://me:hunter2@id.example/keys",
                "ftp://id.example/?hunter2",
                "hunter2",
                "https://a:hunter2/",
            ],
        ),
        ("--secret", "NUDGED_JWT_SECRET", &["token", "--org", "acme"], &["", short]),
        ("--token", "NUDGED_TOKEN", &["publish", "acme", "posts"], &["", spaced, long]),
        ("--token", "NUDGED_TOKEN", &["listen", "acme"], &["", spaced, long]),
        (
            "--url",
            "NUDGED_URL",
            &["publish", "acme", "posts"],
            &[
                "http://me:hunter2@h",
                "http://h/?token=hunter2",
                "http://h/#hunter2",
                "http://hunter2@ h",
            ],
        ),
        (
            "--url",
            "NUDGED_URL",
            &["listen", "acme"],
            &["http://me:hunter2@h", "http://h?token=hunter2"],
        ),
    ];
    for (flag, variable, args, values) in settings {
        for value in *values {
            let joined = format!("{flag}={value}");
            let of_a_server = !matches!(args.first(), Some(&("token" | "publish" | "listen")));
            for command in [&["serve"][..], &[]].into_iter().skip(usize::from(!of_a_server)) {
                let args = [command, args].concat();
                let printed = refused(&[&args[..], &[&joined]].concat(), &[]);
                assert!(printed.contains(flag), "{flag} {value}: {printed}");
                if !value.is_empty() {
                    refused(&args, &[(variable, value.into())]);
                }
            }
        }
        // A name of a file need not be text.
        if *flag == "--tls-key" {
            continue;
        }
        let bytes =
            OsString::from_vec([b"hunter2-hunter2-hunter2-hunter2\xff".as_slice()].concat());
        refused(args, &[(variable, bytes)]);
    }
    for args in [
        &["token", "--org", "acme", "--secret-file", "hunter2"][..],
        &["token", "--org", "acme", "--key", PEM],
        &["bench", "http://me:hunter2@h/"],
        &["bench", "ftp://h/?token=hunter2"],
        &["bench", "http://127.0.0.1:1/", "--publish-url", "http://me:hunter2@h/", "-n", "1"],
        &["bench", "http://127.0.0.1:1/", "-H", "authorization Bearer hunter2"],
        &["bench", "http://127.0.0.1:1", "--publish-header", "authorization Bearer hunter2"],
        &["bench", "http://127.0.0.1:1", "--publish-header", "a hunter2: b"],
        &["bench", "http://127.0.0.1:1", "--publish-header", "a: hunter2\u{1}"],
        &["bench", "http://127.0.0.1:1/x", "--publish-header", "authorization: Bearer hunter2"],
        // Without quotes, a shell makes two arguments of a secret with a space.
        &["--jwt-secret", SECRET, "hunter2"],
        &["serve", "--jwt-secret", SECRET, "hunter2"],
        &["serve", "--publish-key", PUBLISH_KEY, "hunter2"],
        &["bench", "http://127.0.0.1:1", "--publish-header", "authorization:", "hunter2"],
        &["bench", "http://127.0.0.1:1", "--publish-header", "-hunter2"],
        &["listen", "acme", "--token", PUBLISH_KEY, "hunter2"],
        &["--jwt-secret", "--hunter2"],
        &["--jwt-secret", "-hunter2"],
        &["--jwt-key", PEM],
        &["--tls-cert", "Cargo.toml", "--tls-key", PEM],
    ] {
        refused(args, &[]);
    }
}

/// SCENARIO: the URL of a JWK set has a key in its query, and `--help` is run where it is set.
/// BUG: `--help` shows the values of variables, and the one of the URL was not exempt.
/// FIX: the values of all settings that may contain a secret are hidden.
#[test]
fn help_shows_no_secret() {
    let url = "https://id.example/keys?key=hunter2";
    let variables = [
        ("NUDGED_JWT_SECRET", "hunter2-hunter2-hunter2-hunter2-"),
        ("NUDGED_JWT_SECRET_FILE", "hunter2"),
        ("NUDGED_JWT_KEY", PEM),
        ("NUDGED_TLS_KEY", PEM),
        ("NUDGED_PUBLISH_KEY", "hunter2-hunter2-hunter2"),
        ("NUDGED_JWKS_URL", url),
        ("NUDGED_TOKEN", "hunter2"),
        ("NUDGED_URL", "http://me:hunter2@h"),
    ]
    .map(|(name, value)| (name, OsString::from(value)));
    for command in
        [&[][..], &["serve"], &["token"], &["publish"], &["close"], &["listen"], &["bench"]]
    {
        for help in ["--help", "-h"] {
            let (code, printed) = run(&[command, &[help]].concat(), &variables);
            assert_eq!(code, Some(0), "{command:?}");
            assert!(!printed.contains(MARK), "{command:?}: {printed}");
        }
    }
}

/// SCENARIO: a publish key with a comma in it.
/// BUG: it became two keys, each of which was easier to guess, and neither was the one that publishers send.
/// FIX: a key is one value. Several are separated by white space, which no key contains, and a comma is refused.
#[test]
fn a_publish_key_is_one_value() {
    let keys = ["first-key-of-the-test", "second-key-of-the-test"];
    let by_flags = Server::start(&["--publish-key", keys[0], "--publish-key", keys[1]]);
    let mut command = Server::command();
    command.env("NUDGED_PUBLISH_KEY", format!("{}\n{}\n", keys[0], keys[1]));
    let by_variable = Server::start_as(command, crate::support::Transport::Http1, &[]);
    let request = |server: &Server, key: &str| {
        let field = format!("\r\n{}content-type", bearer(key));
        let post = post("/api/acme/events", "application/json", r#"{"keys":["a"]}"#);
        server.request(&post.replacen("\r\ncontent-type", &field, 1)).status()
    };
    for server in [by_flags, by_variable] {
        for key in keys {
            assert_eq!(request(&server, key), 202, "{key}");
        }
        assert_eq!(request(&server, &keys.join(",")), 401);
        assert_eq!(request(&server, "third-key-of-the-test"), 401);
    }
    let joined = keys.join(",");
    let by_flag = run(&["--publish-key", &joined], &[]);
    let by_variable = run(&[], &[("NUDGED_PUBLISH_KEY", joined.into())]);
    for (code, printed) in [by_flag, by_variable] {
        assert_ne!(code, Some(0));
        assert!(printed.contains("white space"), "it says how: {printed}");
        assert!(!printed.contains(keys[1]), "{printed}");
    }
}

/// SCENARIO: `--jwt-secret-file` is given the PEM file of a public key.
/// BUG: its text was the secret, so that anyone with the public key could sign tokens.
/// FIX: what has the form of a key is refused as a secret, and the error names the flag that takes it.
#[test]
fn a_public_key_is_no_secret() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let [private, public] = key_pair(&folder, "one", &["-algorithm", "ED25519"]);
    let certificate = crate::support::certificate::Certificate::of_tests();
    let written = |name: &str, text: &str| {
        let file = folder.file(name);
        std::fs::write(&file, text).expect("a file");
        file
    };
    let pem = std::fs::read_to_string(&public).expect("a file");
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let forms = [
        public.clone(),
        private,
        certificate.certificate,
        written("spaced", &format!("\n  {pem}")),
        written("one line", &pem.replace('\n', "\\n")),
        written("bare", &base64),
        written(
            "jwk",
            r#" {"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        ),
        written("jwks", r#"{"keys":[{"kty":"RSA","e":"AQAB","n":"AQAB"}]}"#),
        written(
            "ssh",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBfh1QnYAZ5hWqzTKbxXDAZ7f0eCVOvkPBz7BIcA2pWe me",
        ),
    ];
    for file in &forms {
        let text = std::fs::read_to_string(file).expect("a file");
        let by_variable = [("NUDGED_JWT_SECRET", OsString::from(&text))];
        for (flag, (code, printed)) in [
            ("--jwt-key", run(&["--jwt-secret-file", file], &[])),
            ("--jwt-key", run(&[], &by_variable)),
            ("--key", run(&["token", "--org", "acme", "--secret-file", file], &[])),
        ] {
            assert_ne!(code, Some(0), "{file}");
            assert!(printed.contains(flag), "{file}: {printed}");
            let line = text.lines().nth(1).unwrap_or(&text);
            assert!(!printed.contains(line), "{file}: {printed}");
        }
    }
    // The key is good where it belongs.
    let server = Server::start(&["--jwt-key", &public, "--jwt-secret", SECRET]);
    let token = mint(&["--org", "acme", "--scope", "publish"]);
    assert_eq!(status_of(&server, &token), 403);
    eventually("it serves", || server.get("/livez").status() == 200);
}
