//! Chromium under WebDriver.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use fantoccini::ClientBuilder;
use serde_json::{Value, json};

use super::client::post;
use super::port::ReservedPort;
use super::{Client, eventually};

/// Chromium under WebDriver, ended when this is dropped.
pub(crate) struct Browser {
    driver: Child,
    pub(crate) page: fantoccini::Client,
    pub(crate) runtime: tokio::runtime::Runtime,
    profile: std::path::PathBuf,
    port: ReservedPort,
}

const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
];

// ===== impl Browser =====

impl Browser {
    pub(crate) fn open(url: &str) -> Self {
        Self::open_with(url, &[])
    }

    /// The same with these flags.
    pub(crate) fn open_with(url: &str, flags: &[String]) -> Self {
        let reserved = ReservedPort::new();
        let port = reserved.address.port();
        let profile = std::env::temp_dir().join(format!("nudged-chromium-{port}"));
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        eventually("chromedriver listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        let profile_flag = format!("--user-data-dir={}", profile.display());
        let mut args = vec![profile_flag];
        args.extend_from_slice(flags);
        args.extend(FLAGS.map(String::from));
        // The certificate of the tests is self-signed.
        let capabilities =
            json!({ "acceptInsecureCerts": true, "goog:chromeOptions": { "args": args } });
        let Value::Object(capabilities) = capabilities else { unreachable!("an object") };
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let page = runtime.block_on(async {
            let page =
                ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
                    .capabilities(capabilities)
                    .connect(&format!("http://127.0.0.1:{port}"))
                    .await
                    .expect("a session");
            page.goto(url).await.expect("the page");
            page
        });
        Self { driver, page, runtime, profile, port: reserved }
    }

    pub(crate) fn go(&self, url: &str) {
        self.runtime.block_on(self.page.goto(url)).expect("the page");
    }

    /// Runs a script in the page and returns its result.
    pub(crate) fn run(&self, script: &str, argument: &str) -> Value {
        let result = self.page.execute_async(script, vec![argument.into()]);
        self.runtime.block_on(result).expect("a script")
    }

    /// Runs a function's body in the page and returns what it returns.
    pub(crate) fn execute(&self, script: &str, argument: &str) -> Value {
        let result = self.page.execute(script, vec![argument.into()]);
        self.runtime.block_on(result).expect("a script")
    }

    /// A command of the DevTools protocol, and its result.
    pub(crate) fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let session = self.runtime.block_on(self.page.session_id()).expect("it answers");
        let session = session.expect("a session");
        let body = json!({ "cmd": command, "params": parameters }).to_string();
        let path = format!("/session/{session}/goog/cdp/execute");
        // It answers requests for this machine only.
        let request =
            post(&path, "application/json", &body).replace("host: test", "host: localhost");
        let mut client = Client::connect(self.port.address);
        client.send(&request);
        let head = client.read_head().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{command}: {head}");
        // It writes no space behind the colon.
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.expect("a length").trim().parse().expect("a number");
        let body = client.read_exact(length);
        let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
        answer["value"].take()
    }

    /// The events that the page has received, as name, data and last event id.
    pub(crate) fn seen(&self) -> Vec<[String; 3]> {
        let seen = self.runtime.block_on(self.page.execute("return seen", vec![]));
        serde_json::from_value(seen.expect("a script")).expect("triples")
    }

    pub(crate) fn expect(&self, expected: &[[&str; 3]]) {
        let mut seen = self.seen();
        eventually(&format!("the page has received {expected:?}"), || {
            seen = self.seen();
            seen.len() >= expected.len()
        });
        assert_eq!(seen, expected);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        _ = self.runtime.block_on(self.page.clone().close());
        _ = self.driver.kill();
        _ = self.driver.wait();
        _ = std::fs::remove_dir_all(&self.profile);
    }
}
