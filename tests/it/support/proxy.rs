//! Proxies: nginx and HAProxy configured as usual, and all of `.proxies`.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::port::ReservedPort;
use super::recipe::{self, Recipe};
use super::server::{Signal, signal};
use super::temp_dir::TempDir;
use super::{Client, Server, Stream, eventually, header};

/// A proxy process with its own configuration, ended when this is dropped.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) address: SocketAddr,
    _port: ReservedPort,
    dir: TempDir,
}

/// What the documentation recommends for nginx's `location`.
pub(crate) const RECOMMENDED: &str = "proxy_http_version 1.1; proxy_set_header Connection \"\";";

// ===== impl Proxy =====

impl Proxy {
    /// Starts nginx in front of a server; `location` goes into its `location /`.
    pub(crate) fn nginx(server: &Server, location: &str) -> Self {
        Self::nginx_to(server.address(), location)
    }

    /// The same in front of any address.
    pub(crate) fn nginx_to(to: SocketAddr, location: &str) -> Self {
        Self::start("nginx", "nginx.conf", |address| {
            format!(
                "daemon off; worker_processes 1; pid nginx.pid; error_log stderr error;\n\
                 events {{ worker_connections 1024; }}\n\
                 http {{ access_log off; client_body_temp_path body; proxy_temp_path proxy;\n\
                   fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
                   server {{ listen {address};\n\
                     location / {{ proxy_pass http://{to}; {location} }} }} }}\n",
            )
        })
    }

    /// Starts HAProxy in front of a server. With `http-no-delay` it forwards bytes at once, instead of up to 200 ms
    /// later; `timeouts` are lines of its `defaults`.
    pub(crate) fn haproxy(server: &Server, timeouts: &[&str]) -> Self {
        Self::haproxy_to(server.address(), timeouts)
    }

    /// The same in front of any address.
    pub(crate) fn haproxy_to(to: SocketAddr, defaults: &[&str]) -> Self {
        Self::start("haproxy", "haproxy.cfg", |address| {
            format!(
                "global\n  maxconn 1000\n  log stdout format raw local0\ndefaults\n  mode http\n\
                   log global\n  option httplog\n  option http-no-delay\n  {}\n\
                 listen nudged\n  bind {address}\n  server one {to}\n",
                defaults.join("\n  "),
            )
        })
    }

    /// Starts HAProxy with the configuration of `.proxies` for two servers of one log.
    #[allow(dead_code, reason = "tests/it has no such servers")]
    pub(crate) fn haproxy_cluster(first: SocketAddr, second: SocketAddr) -> Self {
        let text = recipe::text("haproxy-cluster.cfg");
        let servers = [("127.0.0.1:6834", first), ("127.0.0.1:6835", second)];
        let text = servers.iter().fold(text, |text, (there, here)| {
            assert!(text.contains(there), "{there}");
            text.replace(there, &here.to_string())
        });
        Self::start("haproxy", "haproxy.cfg", |address| {
            text.replace("127.0.0.1:8080", &address.to_string())
        })
    }

    /// Starts HAProxy with this text of the configuration of `.proxies` for an L4 balancer.
    #[allow(dead_code, reason = "tests/cluster has no such balancer")]
    pub(crate) fn haproxy_tcp(text: &str, to: SocketAddr) -> Self {
        assert!(text.contains("127.0.0.1:6834"), "{text}");
        let text = text.replace("127.0.0.1:6834", &to.to_string());
        Self::start("haproxy", "haproxy.cfg", |address| {
            text.replace("127.0.0.1:8080", &address.to_string())
        })
    }

    /// Starts nginx as an L4 balancer; this goes into its `server`.
    #[allow(dead_code, reason = "tests/cluster has no such balancer")]
    pub(crate) fn nginx_stream(server: &str) -> Self {
        Self::start("nginx", "nginx.conf", |address| {
            format!(
                "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
                 daemon off; worker_processes 1; pid nginx.pid; error_log stderr error;\n\
                 events {{ worker_connections 1024; }}\n\
                 stream {{ server {{ listen {address}; {server} }} }}\n",
            )
        })
    }

    /// Starts a proxy of `.proxies` in front of this address.
    pub(crate) fn recipe(recipe: Recipe, to: SocketAddr) -> Self {
        Self::recipe_as(recipe, &recipe.text(), to)
    }

    /// The same with another text as its first file.
    pub(crate) fn recipe_as(recipe: Recipe, text: &str, to: SocketAddr) -> Self {
        let (port, dir) = (ReservedPort::new(), TempDir::new());
        let command = recipe.command(text, dir.path(), port.address, to);
        Self::run(command, port, dir)
    }

    fn start(program: &str, file: &str, config: impl FnOnce(SocketAddr) -> String) -> Self {
        let port = ReservedPort::new();
        let address = port.address;
        let dir = TempDir::new();
        fs::write(dir.path().join(file), config(address)).expect("a file");
        let mut command = Command::new(program);
        match program {
            "nginx" => command.arg("-p").arg(dir.path()).args(["-c", file]),
            // Master and worker as in nginx, so that both proxies are ended in the same way.
            _ => command.args(["-W", "-f"]).arg(dir.path().join(file)),
        };
        Self::run(command, port, dir)
    }

    fn run(mut command: Command, port: ReservedPort, dir: TempDir) -> Self {
        let output = File::create(dir.path().join("output.log")).expect("a file");
        command.stdout(output.try_clone().expect("a descriptor")).stderr(output);
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|why| panic!("{command:?}: {why}"));
        // Made before anything can fail, so that the process is ended in any case.
        let mut proxy = Self { child, address: port.address, _port: port, dir };
        eventually("the proxy listens", || {
            let ended = proxy.child.try_wait().expect("a child");
            assert!(ended.is_none(), "{ended:?}, {command:?}:\n{}", proxy.logs());
            TcpStream::connect(proxy.address).is_ok()
        });
        proxy
    }

    /// What its logs have (`*.log` in its folder).
    pub(crate) fn logs(&self) -> String {
        let files = fs::read_dir(self.dir.path()).expect("a folder");
        let files = files.map(|file| file.expect("a file").path());
        let logs = files.filter(|file| file.extension().is_some_and(|e| e == "log"));
        logs.map(|log| String::from_utf8_lossy(&fs::read(log).expect("a file")).into_owned())
            .collect()
    }

    /// Ends it, and returns what its logs have.
    pub(crate) fn end(mut self) -> String {
        _ = signal(self.child.id(), Signal::TERM);
        _ = self.child.wait();
        self.logs()
    }

    pub(crate) fn stream(&self) -> Stream {
        let headers = "accept-encoding: gzip\r\n";
        let stream = Stream::open(Client::connect(self.address), "/api/acme/events", headers);
        assert_eq!(header(&stream.head, "content-encoding"), None, "{}", stream.head);
        stream
    }

    /// Kills every process of the proxy with SIGKILL.
    pub(crate) fn kill(&self) {
        let workers = self.workers();
        assert!(!workers.is_empty(), "the proxy has no worker to kill");
        // The master first, or it would start another worker; a worker may end with its master.
        for pid in std::iter::once(self.child.id()).chain(workers) {
            _ = signal(pid, Signal::KILL);
        }
    }

    /// Sends a signal to the master.
    pub(crate) fn signal(&self, signal: Signal) {
        self::signal(self.child.id(), signal).expect("it runs");
    }

    /// The processes that the master has started.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let master = self.child.id();
        let children = format!("/proc/{master}/task/{master}/children");
        let workers = fs::read_to_string(children).expect("a master");
        workers.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // On SIGTERM the master ends its worker, which would survive a SIGKILL of the master.
        _ = signal(self.child.id(), Signal::TERM);
        _ = self.child.wait();
    }
}
