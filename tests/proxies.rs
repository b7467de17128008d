//! Behind Debian's nginx, as people have it in front: events arrive at once, not when a buffer is full,
//! and what happens to nginx happens to the seats.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use support::{Client, PATHS, Server, Stream, eventually};

/// nginx in the foreground with a configuration of its own, killed when this is dropped.
struct Nginx {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
}

// ===== impl Nginx =====

impl Nginx {
    /// Starts nginx in front of a server; `location` goes into its `location /`.
    fn start(server: &Server, location: &str) -> Self {
        let address =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        let directory = std::env::temp_dir().join(format!("nudged-nginx-{}", address.port()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let config = format!(
            "daemon off; worker_processes 1; pid nginx.pid; error_log stderr error;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; client_body_temp_path body; proxy_temp_path proxy;\n\
               fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
               server {{ listen {address};\n\
                 location / {{ proxy_pass http://{}; {location} }} }} }}\n",
            server.address()
        );
        std::fs::write(directory.join("nginx.conf"), config).expect("a file");
        let child = Command::new("nginx")
            .args(["-p", &directory.display().to_string(), "-c", "nginx.conf"])
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx is needed: apt-get install nginx");
        eventually("nginx listens", || std::net::TcpStream::connect(address).is_ok());
        Self { child, address, directory }
    }

    fn stream(&self) -> Stream {
        let mut client = Client::connect(self.address);
        client.send("GET /api/acme/events HTTP/1.1\r\nhost: test\r\naccept-encoding: gzip\r\n\r\n");
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(!head.to_ascii_lowercase().contains("content-encoding"), "{head}");
        Stream { client, head }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master takes its worker along on SIGTERM, which SIGKILL would leave behind.
        _ = Command::new("kill").arg(self.child.id().to_string()).status();
        _ = self.child.wait();
        _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Its default: HTTP/1.0 to the server.
const DEFAULT: &str = "";
/// What people are told to write.
const RECOMMENDED: &str = "proxy_http_version 1.1; proxy_set_header Connection \"\";";
/// What people have who serve pages: buffering, and compression of what they list. (nginx heeds no
/// `no-transform`: who lists `text/event-stream` too gets compressed streams.)
const EAGER: &str = "proxy_http_version 1.1; proxy_buffering on; proxy_buffers 8 64k; gzip on; \
    gzip_types text/plain application/json; gzip_min_length 0; gzip_proxied any;";

#[test]
fn events_arrive_one_by_one() {
    for (path, location) in [
        (PATHS[0], DEFAULT),
        (PATHS[0], RECOMMENDED),
        (PATHS[0], EAGER),
        (PATHS[1], DEFAULT),
        (PATHS[1], RECOMMENDED),
        (PATHS[1], EAGER),
    ] {
        let server = Server::start(&[path, &["--coalesce", "0"]].concat());
        let nginx = Nginx::start(&server, location);
        let mut stream = nginx.stream();
        stream.connected();
        // Each is read before the next is published, which no buffer lets through.
        for key in ["a", "b", "c"] {
            let id = server.publish("acme", &[key]).expect("subscribed");
            stream.expect_invalidate(&id, &[key]);
        }
    }
}

#[test]
fn a_client_that_leaves_nginx_frees_its_seat() {
    for location in [DEFAULT, RECOMMENDED] {
        let server = Server::start(&[]);
        let nginx = Nginx::start(&server, location);
        let mut streams: Vec<_> = (0..20).map(|_| nginx.stream()).collect();
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        assert_eq!(server.seats(), 20);
        for (n, stream) in streams.into_iter().enumerate() {
            if n % 2 == 0 { stream.client.reset() } else { drop(stream) }
        }
        eventually("every seat is free", || server.seats() == 0);
    }
}

#[test]
fn an_nginx_that_is_killed_frees_its_seats() {
    for path in PATHS {
        let server = Server::start(path);
        let nginx = Nginx::start(&server, RECOMMENDED);
        let mut streams: Vec<_> = (0..20).map(|_| nginx.stream()).collect();
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        let children = format!("/proc/{0}/task/{0}/children", nginx.child.id());
        let workers = std::fs::read_to_string(children).expect("a master with a worker");
        assert!(!workers.trim().is_empty(), "nginx has no worker to kill");
        // The master first, or it would start another worker.
        let pids = std::iter::once(nginx.child.id().to_string());
        for pid in pids.chain(workers.split_whitespace().map(Into::into)) {
            assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill(1)").success());
        }
        eventually("every seat is free", || server.seats() == 0);
    }
}
