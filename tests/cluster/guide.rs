//! What `src/guide/cluster.md` and the README show, as it stands there but for ports and folders.

use std::process::{Command, Stdio};

use crate::harness::Cluster;
use crate::support::killed::Killed;
use crate::support::markdown::blocks;
use crate::support::nats::NatsServer;
use crate::support::port::ReservedPort;
use crate::support::programs::{NATS_SERVER, PYTHON, REDIS_SERVER, requires};
use crate::support::redis::RedisServer;
use crate::support::redis_client::RedisClient;
use crate::support::server::Signal;
use crate::support::temp_dir::TempDir;
use crate::support::{Client, Server, Stream, Transport, eventually};

const CLUSTER: &str = include_str!("../../src/guide/cluster.md");
const README: &str = include_str!("../../README.md");

/// The block of commands with this in it.
fn commands(text: &'static str, part: &str) -> Vec<&'static str> {
    let is_ours = |block: &&str| block.contains(part);
    blocks(text, "sh").into_iter().find(is_ours).expect("the commands").lines().collect()
}

/// The server that a line of the four starts, when it has started.
fn node(line: &str, ports: [&str; 2]) -> Server {
    let (program, args) = line.split_once(" -- ").expect("a server");
    assert!(["cargo run --release", "cargo run --release --features redis"].contains(&program));
    let args = args.trim_end_matches(" &").replace(ports[0], ports[1]);
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
fn survives_kill_9(commands: &[&str], package: &str, port: &str, folder: &str) {
    let (reserved, dir) = (ReservedPort::new(), TempDir::new());
    let number = reserved.address.port().to_string();
    let ports = [port, &number];
    let [install, broker, first, second] = commands[..] else { panic!("{commands:?}") };
    assert_eq!(install, format!("sudo apt-get install -y {package}"));
    let broker = broker.replace(port, &number).replace(folder, &dir.file(""));
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {}", broker.trim_end_matches(" &"))]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _broker = Killed(command.spawn().expect("sh(1)"));

    let mut one = node(first, ports);
    let mut stream = one.stream("acme");
    let id = stream.connected();
    let published = one.publish("acme", &["posts"]).expect("with a log there is an id");
    stream.expect_invalidate(&published, &["posts"]);
    one.signal(Signal::KILL);
    one.wait();
    let one = node(first, ports);
    let mut stream = resume(&one, &id);
    assert_eq!(stream.greeting().2, "resumed");
    stream.expect_invalidate(&published, &["posts"]);

    let two = node(second, ports);
    let later = two.publish("acme", &["more"]).expect("with a log there is an id");
    stream.expect_invalidate(&later, &["more"]);
    drop(one);
    let mut stream = resume(&two, &published);
    assert_eq!(stream.greeting().2, "resumed");
    stream.expect_invalidate(&later, &["more"]);
}

#[test]
fn the_four_commands_are_servers_that_survive_kill_9() {
    requires!(NATS_SERVER);
    let commands = commands(CLUSTER, "nats-server");
    assert_eq!(commands, self::commands(README, "nats-server"));
    survives_kill_9(&commands, "nats-server", "4333", "/var/tmp/nudged-log");
}

#[test]
fn the_four_commands_of_redis_are_servers_that_survive_kill_9() {
    requires!(REDIS_SERVER);
    survives_kill_9(&commands(CLUSTER, "redis-server"), "redis-server", "6380", "/var/tmp");
}

/// The next event that is no keepalive.
fn next(stream: &mut Stream) -> String {
    let events = std::iter::repeat_with(|| stream.next());
    events.into_iter().find(|event| !event.contains("event: ping")).expect("without an end")
}

/// The only block of this language with this in it.
fn block(language: &str, part: &str) -> &'static str {
    let blocks = blocks(CLUSTER, language).into_iter().filter(|block| block.contains(part));
    let [block] = blocks.collect::<Vec<_>>()[..] else { panic!("one block with {part:?}") };
    block
}

/// Two servers that are ready, and a stream of the second one.
fn two_servers(url: &str) -> ([Server; 2], Stream) {
    let servers = [(); 2].map(|()| {
        let server = Server::start(&["--backplane", url, "--coalesce", "0"]);
        eventually("it is ready", || server.get("/readyz").status() == 200);
        server
    });
    let mut stream = servers[1].stream("acme");
    stream.connected();
    (servers, stream)
}

/// The settings of the guide are taken, and its user may do all that a server needs.
#[test]
fn the_settings_and_the_user_of_redis_suffice() {
    requires!(REDIS_SERVER);
    let user = block("text", "user nudged on").replace("PASSWORD", "s3cret");
    let redis = RedisServer::start_with(&format!("{}{user}", block("text", "noeviction")));
    let (servers, mut stream) = two_servers(&format!("redis://nudged:s3cret@{}", redis.address()));
    let id = servers[0].publish("acme", &["posts"]).expect("with a log there is an id");
    stream.expect_invalidate(&id, &["posts"]);
    let denied = redis.client().run("ACL LOG").items();
    assert!(denied.is_empty(), "{denied:?}");
    let mut other = RedisClient::connect(redis.address(), Some("nudged:s3cret")).expect("a login");
    for command in ["GET nudged:log", "DEL nudged:log", "XADD other 0-* d x", "CONFIG GET port"] {
        let parts: Vec<_> = command.split(' ').collect();
        let why = other.request(&parts).expect_err(command).to_string();
        assert!(why.contains("NOPERM"), "{command}: {why}");
    }
}

#[test]
fn the_command_that_appends_an_entry_works_and_del_mends_what_another_one_breaks() {
    requires!(REDIS_SERVER);
    let redis = RedisServer::start();
    let (servers, mut stream) = two_servers(&redis.url());
    let run = |command: &str| {
        let local = format!("redis-cli -p {} ", redis.port());
        let command = command.replace("redis-cli ", &local);
        let output = Command::new("sh").args(["-c", &command]).output().expect("sh(1)");
        assert!(output.status.success(), "{output:?}");
    };
    let append = block("sh", "redis-cli XADD");
    run(append);
    let event = next(&mut stream);
    assert!(event.ends_with("event: invalidate\ndata: {\"keys\":[\"posts\"]}\n\n"), "{event}");
    let id = event.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id");
    assert_eq!(resume(&servers[0], id).greeting().2, "connected", "it has no tag");

    run(&append.replace("0-*", "*"));
    let publish = || {
        let body = "{\"keys\":[\"after\"]}";
        servers[0].post("/api/acme/events", "application/json", body).status()
    };
    assert_eq!(publish(), 503);
    run("redis-cli DEL nudged:log");
    eventually("publishes are taken again", || publish() == 202);
    let event = next(&mut stream);
    assert!(event.contains("event: connected\n"), "{event}");
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
        let event = next(stream);
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
    let (servers, mut stream) = two_servers(&url);
    let id = servers[0].publish("acme", &["posts"]).expect("with a log there is an id");
    stream.expect_invalidate(&id, &["posts"]);
    assert!(!nats.log().contains("Violation"), "{}", nats.log());
}
