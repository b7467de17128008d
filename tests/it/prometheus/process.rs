//! A Prometheus of a test.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::FOLDER;
use super::expression::Known;
use crate::support::broker_process::BrokerProcess;
use crate::support::port::ReservedPort;
use crate::support::temp_dir::TempDir;
use crate::support::{Client, eventually};

/// One that scrapes a server as the job `nudged`, and evaluates the alerts. Killed when this is dropped.
pub(super) struct Prometheus {
    _process: BrokerProcess,
    port: ReservedPort,
    _dir: TempDir,
}

// ===== impl Prometheus =====

impl Prometheus {
    /// Starts one, and waits until it has scraped the server.
    pub(super) fn of(server: SocketAddr) -> Self {
        let (dir, port) = (TempDir::new(), ReservedPort::new());
        let alerts = format!("{FOLDER}/alerts.yml");
        let configuration = format!(
            "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }}\n\
             rule_files: [{alerts:?}]\n\
             scrape_configs: [{{ job_name: nudged, static_configs: [{{ targets: ['{server}'] }}] }}]\n"
        );
        fs::write(dir.file("prometheus.yml"), configuration).expect("a file");
        let log = File::create(dir.file("log")).expect("a file");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", dir.file("prometheus.yml")));
        command.arg(format!("--storage.tsdb.path={}", dir.file("data")));
        command.arg(format!("--web.listen-address={}", port.address)).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let mut process = BrokerProcess(command.spawn().expect("prometheus is installed"));
        eventually("Prometheus is ready", || {
            process.expect_running(|| fs::read_to_string(dir.file("log")).unwrap_or_default());
            TcpStream::connect(port.address).is_ok_and(|socket| {
                get(Client::on(socket), "/-/ready").0.starts_with("HTTP/1.0 200 ")
            })
        });
        let prometheus = Self { _process: process, port, _dir: dir };
        eventually("the server is scraped", || {
            !prometheus.query("up{job=\"nudged\"} == 1").is_empty()
        });
        prometheus
    }

    /// What it answers to an expression, which it has to understand: labels and numbers.
    pub(super) fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let data = self.get(&format!("query?query={}", encoded(expression)));
        let result = data["result"].as_array().unwrap_or_else(|| panic!("{expression}: {data}"));
        let samples = result.iter().map(|sample| {
            let value = sample["value"][1].as_str().expect("a vector of samples");
            (sample["metric"].clone(), value.parse().expect("a number"))
        });
        samples.collect()
    }

    /// All series that it has of the job.
    pub(super) fn series(&self) -> Known {
        let data = self.get(&format!("series?match[]={}", encoded("{job=\"nudged\"}")));
        let mut known = Known::new();
        for series in data.as_array().expect("series") {
            let mut labels: BTreeMap<String, String> =
                serde_json::from_value(series.clone()).expect("labels");
            known.entry(labels.remove("__name__").expect("a name")).or_default().push(labels);
        }
        known
    }

    /// The alerting rules, with their state.
    pub(super) fn alerts(&self) -> Vec<Value> {
        let data = self.get("rules?type=alert");
        let groups = data["groups"].as_array().expect("groups");
        groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
    }

    fn get(&self, path: &str) -> Value {
        let client = Client::connect(self.port.address);
        let (head, body) = get(client, &format!("/api/v1/{path}"));
        let mut body: Value =
            serde_json::from_str(&body).unwrap_or_else(|why| panic!("{why}: {head}{body}"));
        assert_eq!(body["status"], "success", "{path}: {body}");
        body["data"].take()
    }
}

/// The head and the body of a response.
fn get(mut client: Client, path: &str) -> (String, String) {
    // So that the body is not chunked.
    client.send(&format!("GET {path} HTTP/1.0\r\n\r\n"));
    let head = client.read_head();
    (head, String::from_utf8(client.read_to_end()).expect("UTF-8"))
}

fn encoded(text: &str) -> impl std::fmt::Display {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
}
