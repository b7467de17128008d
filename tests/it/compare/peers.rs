//! The servers that are compared: their names, configuration files and versions.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use clap::ValueEnum;

use super::configuration::{
    Centrifugo, Certificate, Engine, Mercure, Nchan, PEERS, Pushpin, Transport, unfilled,
};
use super::peer::Peer;
use super::program::{self, Module, Program};
use crate::support::temp_dir::TempDir;

#[test]
fn every_server_has_a_name_and_a_value_of_its_own_and_can_be_chosen() {
    let names: HashSet<_> = Peer::ALL.iter().map(|peer| peer.name()).collect();
    assert_eq!(names.len(), Peer::ALL.len());
    let values = Peer::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let values: Vec<_> = values.map(|value| value.get_name().to_owned()).collect();
    let unique: HashSet<_> = values.iter().collect();
    assert_eq!(unique.len(), values.len(), "{values:?}");
    let is_kebab = |value: &String| {
        value.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    assert!(values.iter().all(is_kebab), "{values:?}");
    for peer in Peer::value_variants() {
        assert!(Peer::ALL.contains(peer), "{peer:?}");
    }
}

#[test]
fn only_what_was_asked_for_is_compared() {
    let chosen = |only: &[Peer], has_before| {
        let is_chosen = |peer: &Peer| peer.is_asked_for(only, has_before);
        Peer::ALL.into_iter().filter(is_chosen).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&[Peer::Mercure, Peer::Raw], false), [Peer::Raw, Peer::Mercure]);
    let both = [Peer::NudgedTls, Peer::NudgedTlsBefore, Peer::CentrifugoTls];
    assert_eq!(chosen(&[Peer::CentrifugoTls, Peer::NudgedTls], true), both);
    assert_eq!(chosen(&[Peer::Hyper], true), [Peer::NudgedBefore, Peer::Hyper]);
    assert_eq!(chosen(&[], true), Peer::ALL);
}

#[test]
fn every_configuration_is_filled_in_completely() {
    let folder = Path::new("/tmp/a-folder");
    let file = |name| folder.join(name);
    let certificate = Certificate { certificate: file("c.pem"), key: file("k.pem") };
    for tls in [None, Some(&certificate)] {
        let nchan = Nchan {
            tls,
            folder,
            port: 4001,
            workers: 1,
            descriptors: 20_000,
            connections: 10_000,
            history: 77,
        };
        let text = nchan.text().unwrap();
        assert!(text.contains("nchan_message_buffer_length 77;"), "{text}");
        assert_eq!(text.contains("ssl_certificate_key /tmp/a-folder/k.pem;"), tls.is_some());

        let url = "http://127.0.0.1:4002";
        let database = file("mercure.db");
        let bolt = Transport::Bolt { file: &database, history: 77 };
        for (transport, line) in [(Transport::Local, "transport local"), (bolt, "size 77")] {
            let text = Mercure { tls, url, key: "a-key", transport }.text().unwrap();
            assert!(text.contains(line), "{text}");
            assert!(text.contains("jwt a-key"), "{text}");
            let tls_line = "tls /tmp/a-folder/c.pem /tmp/a-folder/k.pem";
            assert_eq!(text.contains(tls_line), tls.is_some(), "{text}");
        }

        let engines = [
            (Engine::Memory { history: 77 }, "history_size: 77"),
            (Engine::Redis { url: "redis://here", history: 77 }, "address: \"redis://here\""),
            (Engine::Nats { url: "nats://here" }, "url: \"nats://here\""),
        ];
        for (engine, line) in engines {
            let centrifugo = Centrifugo { tls, port: 4003, key: "a-key", engine, connections: 5 };
            let text = centrifugo.text().unwrap();
            assert!(text.contains(line), "{text}");
            assert!(text.contains("connection_limit: 5\n"), "{text}");
            assert_eq!(text.contains("cert_pem: \"/tmp/a-folder/c.pem\""), tls.is_some(), "{text}");
            let has_history = !matches!(engine, Engine::Nats { .. });
            assert_eq!(text.contains("force_recovery: true"), has_history, "{text}");
        }
    }
    let pushpin = Pushpin { folder, port: 4004, publish_port: 4005, connections: 9_000 };
    let text = pushpin.text().unwrap();
    assert!(text.contains("client_maxconn=9000"), "{text}");
    assert!(text.contains("{rundir}"), "its own place was filled in: {text}");
}

#[test]
fn every_file_with_a_value_to_fill_in_is_the_configuration_of_a_server() {
    let mut with_values = Vec::new();
    for entry in fs::read_dir(PEERS).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension != "rs") && unfilled(&text).is_some()
        {
            with_values.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    with_values.sort();
    // Those that the test above fills in.
    let filled = [
        "centrifugo-history.yaml",
        "centrifugo-nats.yaml",
        "centrifugo-redis.yaml",
        "centrifugo-tls.yaml",
        "centrifugo.yaml",
        "mercure-bolt.Caddyfile",
        "mercure-tls.Caddyfile",
        "mercure.Caddyfile",
        "nchan-tls.conf",
        "nchan.conf",
        "pushpin.conf",
    ];
    assert_eq!(with_values, filled);
}

#[test]
fn a_value_to_fill_in_is_a_name_in_braces() {
    assert_eq!(unfilled("listen {port};\n"), Some("port"));
    assert_eq!(unfilled("{ x }\n{publish_port}"), Some("publish_port"));
    assert_eq!(unfilled("events {\n}\nrun={rundir}/{ipc_prefix}x {}"), None);
}

#[test]
fn a_missing_program_is_named_with_the_command_that_installs_it() {
    let empty = TempDir::new();
    let all = [
        (Program::OpenSsl, "openssl is missing: apt-get install openssl"),
        (Program::Pushpin, "pushpin is missing: apt-get install pushpin condure zurl"),
        (
            Program::Mercure,
            "mercure is missing: an archive from https://github.com/dunglas/mercure",
        ),
        (
            Program::Centrifugo,
            "centrifugo is missing: curl -sSLf https://centrifugal.dev/install.sh",
        ),
        (
            Program::DurableStreams,
            "durable-streams-server is missing: cargo install durable-streams",
        ),
        (Program::Node, "node is missing: Node.js 20 or later, with npm: https://nodejs.org"),
        (Program::Bun, "bun is missing: npm install -g bun"),
    ];
    for (program, missing) in all {
        let why = program.output_on(empty.path().as_os_str(), &["--version"]).unwrap_err();
        assert!(why.starts_with(missing), "{why}");
    }
}

#[test]
fn the_version_of_mercure_is_that_of_its_module_and_of_its_caddy() {
    let build_info = "go\tgo1.26.8\npath\tgithub.com/dunglas/mercure/caddy/mercure\n\
                      mod\tgithub.com/dunglas/mercure/caddy\t(devel)\t\n\
                      dep\tgithub.com/caddyserver/caddy/v2\tv2.11.4\th1:XKx=\n\
                      dep\tgithub.com/dunglas/mercure\tv1.0.0-alpha.3\n=>\t../\t(devel)\n";
    let version = "Mercure v1.0.0-alpha.3 or later, built from";
    let folder = "a folder with its source, Caddy v2.11.4, go1.26.8";
    assert_eq!(program::mercure(build_info), Some(format!("{version} {folder}")));
    let of_commit = format!("{build_info}build\tvcs.revision=192faaa\n");
    let commit = "commit 192faaa of its source, Caddy v2.11.4, go1.26.8";
    assert_eq!(program::mercure(&of_commit), Some(format!("{version} {commit}")));
    let released = build_info.replace("=>\t../\t(devel)\n", "dep\tlast\tv1.0.0\n");
    assert_eq!(
        program::mercure(&released).as_deref(),
        Some("Mercure v1.0.0-alpha.3, Caddy v2.11.4, go1.26.8")
    );
    assert_eq!(program::mercure("v2.11.4 h1:XKx=\n"), None);
    let caddy = Module { version: "v2.11.4".into(), is_replaced: false };
    assert_eq!(program::module(build_info, "github.com/caddyserver/caddy/v2"), Some(caddy));
}

#[test]
fn the_version_of_centrifugo_is_in_its_file_if_it_does_not_state_it() {
    let released = program::centrifugo("Centrifugo v6.9.1 (Go version: go1.26.8)", || Err(()));
    assert_eq!(released.unwrap(), "Centrifugo v6.9.1 (Go version: go1.26.8)");
    let printed = "Centrifugo v0.0.0 (Go version: go1.26.8)";
    let found =
        |bytes: &[u8]| program::centrifugo(printed, || Ok::<_, ()>(bytes.to_vec())).unwrap();
    let file = b"\0\xffpath\tx\nmod\tgithub.com/centrifugal/centrifugo/v6\tv6.9.1\th1:Jy=\n\0";
    assert_eq!(found(file), "Centrifugo v6.9.1, as go install builds it (Go version: go1.26.8)");
    assert_eq!(found(b"nothing"), format!("{printed}, built from a folder with its source"));
}

#[test]
fn the_version_of_durable_streams_is_in_the_paths_of_its_source() {
    let file = b"\0/durable-streams-rust\0/registry/src/durable-streams-0.1.5/src/main.rs\xff";
    assert_eq!(program::durable_streams(file), "durable-streams-server 0.1.5");
    let unknown = "durable-streams-server, which does not state its version";
    assert_eq!(program::durable_streams(b"/durable-streams-rust/src"), unknown);
}
