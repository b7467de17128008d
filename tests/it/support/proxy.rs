//! Debian's nginx and HAProxy, configured as usual.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::port::ReservedPort;
use super::server::{Signal, signal};
use super::temp_dir::TempDir;
use super::{Client, Server, Stream, eventually, header};

/// A proxy process with its own configuration, ended when this is dropped.
pub(crate) struct Proxy {
    child: Child,
    address: SocketAddr,
    _port: ReservedPort,
    _dir: TempDir,
}

/// What the documentation recommends for nginx's `location`.
pub(crate) const RECOMMENDED: &str = "proxy_http_version 1.1; proxy_set_header Connection \"\";";

// ===== impl Proxy =====

impl Proxy {
    /// Starts nginx in front of a server; `location` goes into its `location /`.
    pub(crate) fn nginx(server: &Server, location: &str) -> Self {
        Self::start("nginx", "nginx.conf", |address| {
            format!(
                "daemon off; worker_processes 1; pid nginx.pid; error_log stderr crit;\n\
                 events {{ worker_connections 1024; }}\n\
                 http {{ access_log off; client_body_temp_path body; proxy_temp_path proxy;\n\
                   fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
                   server {{ listen {address};\n\
                     location / {{ proxy_pass http://{}; {location} }} }} }}\n",
                server.address()
            )
        })
    }

    /// Starts HAProxy in front of a server. With `http-no-delay` it forwards bytes at once, instead of up to 200 ms
    /// later; `timeouts` are lines of its `defaults`.
    pub(crate) fn haproxy(server: &Server, timeouts: &[&str]) -> Self {
        Self::start("haproxy", "haproxy.cfg", |address| {
            format!(
                "global\n  maxconn 1000\ndefaults\n  mode http\n  option http-no-delay\n  {}\n\
                 listen nudged\n  bind {address}\n  server one {}\n",
                timeouts.join("\n  "),
                server.address()
            )
        })
    }

    fn start(program: &str, file: &str, config: impl FnOnce(SocketAddr) -> String) -> Self {
        let port = ReservedPort::new();
        let address = port.address;
        let dir = TempDir::new();
        std::fs::write(dir.path().join(file), config(address)).expect("a file");
        let mut command = Command::new(program);
        match program {
            "nginx" => command.arg("-p").arg(dir.path()).args(["-c", file]),
            // Master and worker as in nginx, so that both proxies are ended in the same way.
            _ => command.args(["-W", "-f"]).arg(dir.path().join(file)),
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.spawn().unwrap_or_else(|why| panic!("{program}: {why}"));
        // Made before anything can fail, so that the process is ended in any case.
        let proxy = Self { child, address, _port: port, _dir: dir };
        eventually("the proxy listens", || TcpStream::connect(address).is_ok());
        proxy
    }

    pub(crate) fn stream(&self) -> Stream {
        let headers = "accept-encoding: gzip\r\n";
        let stream = Stream::open(Client::connect(self.address), "/api/acme/events", headers);
        assert_eq!(header(&stream.head, "content-encoding"), None, "{}", stream.head);
        stream
    }

    /// Kills every process of the proxy with SIGKILL.
    pub(crate) fn kill(&self) {
        let master = self.child.id();
        let children = format!("/proc/{master}/task/{master}/children");
        let workers = std::fs::read_to_string(children).expect("a master with a worker");
        assert!(!workers.trim().is_empty(), "the proxy has no worker to kill");
        // The master first, or it would start another worker; a worker may end with its master.
        let pids = std::iter::once(master.to_string());
        for pid in pids.chain(workers.split_whitespace().map(Into::into)) {
            _ = signal(pid.parse().expect("a number"), Signal::KILL);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // On SIGTERM the master ends its worker, which would survive a SIGKILL of the master.
        _ = signal(self.child.id(), Signal::TERM);
        _ = self.child.wait();
    }
}
