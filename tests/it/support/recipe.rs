//! Proxies with the configurations of `.proxies`, as they stand there but for addresses and folders.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::programs::{CADDY, ENVOY, HAPROXY, HTTP_PROXY, LIGHTTPD, NGINX, Program, locked};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipe {
    Nginx,
    Haproxy,
    Caddy,
    Envoy,
    Lighttpd,
    HttpProxy,
    /// nginx with the paths of the system that nudged replaces.
    Migrating,
}

/// What a user of nginx has around the recipe.
const NGINX_MAIN: &str = "daemon off; worker_processes 1; pid nginx.pid; error_log nginx.log;\n\
    events { worker_connections 1024; }\n\
    http { client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
      uwsgi_temp_path uwsgi; scgi_temp_path scgi; include nginx.conf; }\n";

/// What a user of lighttpd has around the recipe.
const LIGHTTPD_MAIN: &str = "server.bind = \"127.0.0.1\"\nserver.port = PORT\n\
    server.document-root = \"DIR\"\nserver.errorlog = \"DIR/unfiltered\"\ninclude \"lighttpd.conf\"\n";

// ===== impl Recipe =====

impl Recipe {
    pub(crate) const ALL: [Self; 7] = [
        Self::Nginx,
        Self::Haproxy,
        Self::Caddy,
        Self::Envoy,
        Self::Lighttpd,
        Self::HttpProxy,
        Self::Migrating,
    ];

    pub(crate) fn program(self) -> &'static Program {
        match self {
            Self::Nginx | Self::Migrating => &NGINX,
            Self::Haproxy => &HAPROXY,
            Self::Caddy => &CADDY,
            Self::Envoy => &ENVOY,
            Self::Lighttpd => &LIGHTTPD,
            Self::HttpProxy => &HTTP_PROXY,
        }
    }

    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => &["nginx.conf"],
            Self::Haproxy => &["haproxy.cfg"],
            Self::Caddy => &["Caddyfile"],
            Self::Envoy => &["envoy.yaml"],
            Self::Lighttpd => &["lighttpd.conf", "lighttpd.lua"],
            Self::HttpProxy => &["http-proxy.cjs"],
            Self::Migrating => &["nginx-migrating.conf"],
        }
    }

    /// The text of its first file.
    pub(crate) fn text(self) -> String {
        text(self.files()[0])
    }

    /// Writes its files to a folder, the first one with this text, and returns the command that runs it there. Logs go
    /// to standard output and to files `*.log` of the folder.
    pub(super) fn command(
        self,
        first: &str,
        dir: &Path,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Command {
        let folder = dir.display().to_string();
        for (n, file) in self.files().iter().enumerate() {
            let text = if n == 0 { first.to_owned() } else { text(file) };
            let text = text.replace("8080", &from.port().to_string());
            let text = text.replace("6834", &to.port().to_string());
            let folders = ["/var/log/nginx", "/var/log/lighttpd", "/etc/lighttpd/conf-enabled"];
            let text = folders.iter().fold(text, |text, there| text.replace(there, &folder));
            std::fs::write(dir.join(file), text).expect("a file");
        }
        let file = |name: &str| dir.join(name);
        let mut command;
        match self {
            Self::Nginx | Self::Migrating => {
                let main = NGINX_MAIN
                    .replace("include nginx.conf", &format!("include {}", self.files()[0]));
                std::fs::write(file("main.conf"), main).expect("a file");
                command = Command::new("nginx");
                command.arg("-p").arg(dir).args(["-c", "main.conf"]);
            }
            Self::Haproxy => {
                command = Command::new("haproxy");
                command.args(["-W", "-f"]).arg(file("haproxy.cfg"));
            }
            Self::Caddy => {
                command = Command::new(locked!("bin/caddy"));
                command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file("Caddyfile"));
                command.env("CADDY_ADMIN", format!("unix/{}", file("admin").display()));
                command.env("XDG_CONFIG_HOME", dir).env("XDG_DATA_HOME", dir);
            }
            Self::Envoy => {
                command = Command::new(locked!("bin/envoy"));
                command.args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "warn", "-c"]);
                command.arg(file("envoy.yaml"));
            }
            Self::Lighttpd => {
                let main = LIGHTTPD_MAIN.replace("PORT", &from.port().to_string());
                let main = main.replace("DIR", &folder);
                std::fs::write(file("main.conf"), main).expect("a file");
                command = Command::new("lighttpd");
                command.args(["-D", "-f"]).arg(file("main.conf"));
            }
            Self::HttpProxy => {
                command = Command::new(locked!("bin/node"));
                command.arg(file("http-proxy.cjs")).env("NODE_PATH", locked!("node_modules"));
            }
        }
        command
    }
}

/// A file of `.proxies`.
pub(crate) fn text(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".proxies").join(file);
    std::fs::read_to_string(path).expect("a file of .proxies")
}

/// A text without the piece between two others, which have to be there; `end` stays.
pub(crate) fn without(text: &str, start: &str, end: &str) -> String {
    let (before, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start:?}"));
    let at = rest.find(end).unwrap_or_else(|| panic!("no {end:?} after {start:?}"));
    format!("{before}{}", &rest[at..])
}
