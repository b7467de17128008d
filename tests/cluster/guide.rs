//! What `src/guide/cluster.md` and the README show, as it stands there but for ports and folders.

use std::process::{Command, Stdio};

use crate::harness::Cluster;
use crate::support::killed::Killed;
use crate::support::markdown::blocks;
use crate::support::nats::NatsServer;
use crate::support::port::ReservedPort;
use crate::support::programs::{NATS_SERVER, PYTHON, requires};
use crate::support::server::Signal;
use crate::support::temp_dir::TempDir;
use crate::support::{Client, Server, Stream, Transport, eventually};

const CLUSTER: &str = include_str!("../../src/guide/cluster.md");
const README: &str = include_str!("../../README.md");

/// The four commands of both.
fn commands() -> Vec<&'static str> {
    let is_ours = |block: &&str| block.contains("nats-server");
    let [guide, readme] = [CLUSTER, README].map(|text| {
        blocks(text, "sh").into_iter().find(is_ours).expect("the commands").lines().collect()
    });
    assert_eq!(guide, readme);
    guide
}

/// The server that a line of the four starts, when it has started.
fn node(line: &str, broker: u16) -> Server {
    let args = line.strip_prefix("cargo run --release -- ").expect("a server");
    let args = args.trim_end_matches(" &").replace("4333", &broker.to_string());
    let mut args: Vec<_> = args.split(' ').collect();
    match args.iter_mut().find(|arg| **arg == "127.0.0.1:6835") {
        Some(address) => *address = "127.0.0.1:0",
        None => args.extend(["--listen", "127.0.0.1:0"]),
    }
    let server = Server::start_as(Server::command(), Transport::Http1, &args);
    eventually("it is ready", || server.get("/readyz").status() == 200);
    server
}

fn resume(server: &Server, id: &str) -> Stream {
    let client = Client::connect(server.address());
    Stream::open(client, "/api/acme/events", &format!("last-event-id: {id}\r\n"))
}

/// With one server and with two: none of their streams reads everything again because a server was killed.
#[test]
fn the_four_commands_are_servers_that_survive_kill_9() {
    requires!(NATS_SERVER);
    let (port, dir) = (ReservedPort::new(), TempDir::new());
    let number = port.address.port();
    let commands = commands();
    let [install, broker, first, second] = commands[..] else { panic!("{commands:?}") };
    assert_eq!(install, "sudo apt-get install -y nats-server");
    let broker = broker.replace("4333", &number.to_string());
    let broker = broker.replace("/var/tmp/nudged-log", &dir.file("log"));
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {}", broker.trim_end_matches(" &"))]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _broker = Killed(command.spawn().expect("sh(1)"));

    let mut one = node(first, number);
    let mut stream = one.stream("acme");
    let id = stream.connected();
    let published = one.publish("acme", &["posts"]).expect("with a log there is an id");
    stream.expect_invalidate(&published, &["posts"]);
    one.signal(Signal::KILL);
    one.wait();
    let one = node(first, number);
    let mut stream = resume(&one, &id);
    assert_eq!(stream.greeting().2, "resumed");
    stream.expect_invalidate(&published, &["posts"]);

    let two = node(second, number);
    let later = two.publish("acme", &["more"]).expect("with a log there is an id");
    stream.expect_invalidate(&later, &["more"]);
    drop(one);
    let mut stream = resume(&two, &published);
    assert_eq!(stream.greeting().2, "resumed");
    stream.expect_invalidate(&later, &["more"]);
}

#[test]
fn the_program_that_appends_a_record_works() {
    requires!(NATS_SERVER, PYTHON);
    let nats = NatsServer::start();
    let cluster = Cluster::on(&nats, 2, &[]);
    let mut streams: Vec<_> = cluster.nodes.iter().map(|n| n.server().stream("acme")).collect();
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    let script = blocks(CLUSTER, "python").concat();
    let run = |script: &str| {
        let script = script.replace("4222", &nats.address().port().to_string());
        Command::new("python3").args(["-c", &script]).output().expect("python3")
    };
    let output = run(&script);
    assert!(output.status.success(), "{output:?}");
    let position = String::from_utf8(output.stdout).expect("text");
    for stream in &mut streams {
        let event = std::iter::repeat_with(|| stream.next()).find(|e| !e.contains("event: ping"));
        let event = event.expect("without an end");
        assert!(event.ends_with("event: invalidate\ndata: {\"keys\":[\"posts\"]}\n\n"), "{event}");
        let id = event.lines().next().expect("an id");
        assert!(id.ends_with(&format!("-{}", position.trim())), "{id}: {position}");
    }
    let nowhere = run(&script.replace("log=\"nudged\"", "log=\"none\""));
    let stderr = String::from_utf8(nowhere.stderr).expect("text");
    assert!(!nowhere.status.success() && stderr.contains("there is no such log"), "{stderr}");
}

/// The user that the guide gives a server may do all that it needs, and nothing else.
#[test]
fn the_rights_of_the_guide_suffice() {
    requires!(NATS_SERVER);
    let block = blocks(CLUSTER, "text").into_iter().find(|block| block.contains("permissions"));
    let block = block.expect("the user of a server").replace("$NUDGED_PASSWORD", "\"s3cret\"");
    let users = block.split_once("authorization").expect("its users").1;
    let mut nats = NatsServer::start_with("");
    nats.stop();
    nats.settings = format!("authorization{users}");
    nats.spawn();
    let url = format!("nats://nudged:s3cret@{}", nats.address());
    let servers = [(); 2].map(|()| {
        let server = Server::start(&["--backplane", &url, "--coalesce", "0"]);
        eventually("it is ready", || server.get("/readyz").status() == 200);
        server
    });
    let mut stream = servers[1].stream("acme");
    stream.connected();
    let id = servers[0].publish("acme", &["posts"]).expect("with a log there is an id");
    stream.expect_invalidate(&id, &["posts"]);
    assert!(!nats.log().contains("Violation"), "{}", nats.log());
}
