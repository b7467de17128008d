//! Firefox under Marionette, its own protocol for tests: Debian has no geckodriver, which only translates to it.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::BOUND;
use super::eventually;
use super::killed::Killed;
use super::temp_dir::TempDir;

/// A Firefox with a profile of its own and one page, ended when this is dropped.
pub(crate) struct Firefox {
    process: Killed,
    marionette: RefCell<Marionette>,
    _profile: TempDir,
}

/// The connection to it: messages are `LENGTH:JSON`, in turn.
struct Marionette {
    connection: BufReader<TcpStream>,
    /// The number of the last command.
    number: u64,
}

/// Nothing of it leaves this machine but what the test asks for.
const SETTINGS: &str = r#"
user_pref("marionette.port", 0);
user_pref("app.update.disabledForTesting", true);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
"#;

// ===== impl Firefox =====

impl Firefox {
    pub(crate) fn open(url: &str) -> Self {
        Self::open_with(url, "", "")
    }

    /// The same with more settings (`user_pref`), and a file for the secrets of its TLS connections.
    pub(crate) fn open_with(url: &str, settings: &str, key_log: &str) -> Self {
        let profile = TempDir::new();
        let settings = format!("{SETTINGS}{settings}");
        std::fs::write(profile.path().join("user.js"), settings).expect("a file");
        let mut command = Command::new("firefox-esr");
        command.args(["--headless", "--no-remote", "--marionette"]);
        command.args(["--remote-allow-system-access", "--profile"]);
        command.arg(profile.path()).env("HOME", profile.path());
        if !key_log.is_empty() {
            command.env("SSLKEYLOGFILE", key_log);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Killed(command.spawn().expect("firefox-esr"));
        let file = profile.path().join("MarionetteActivePort");
        let mut connection = None;
        eventually("Firefox listens", || {
            let port = std::fs::read_to_string(&file).ok().and_then(|port| port.parse().ok());
            let port = port.map(|port: u16| ("127.0.0.1", port));
            connection = port.and_then(|address| TcpStream::connect(address).ok());
            connection.is_some()
        });
        let connection = connection.expect("connected");
        connection.set_read_timeout(Some(BOUND)).expect("a socket");
        let mut marionette = Marionette { connection: BufReader::new(connection), number: 0 };
        marionette.receive(); // its greeting
        let firefox = Self { process, marionette: RefCell::new(marionette), _profile: profile };
        // The certificate of the tests is self-signed.
        firefox.command("WebDriver:NewSession", &json!({ "acceptInsecureCerts": true }));
        firefox.go(url);
        firefox
    }

    pub(crate) fn go(&self, url: &str) {
        self.command("WebDriver:Navigate", &json!({ "url": url }));
    }

    /// Runs a function's body in the page and returns what it returns.
    pub(crate) fn execute(&self, script: &str) -> Value {
        let parameters = json!({ "script": script, "args": [], "sandbox": null });
        self.command("WebDriver:ExecuteScript", &parameters)["value"].take()
    }

    /// The handle of the tab that commands are for.
    pub(crate) fn tab(&self) -> String {
        let handle = self.command("WebDriver:GetWindowHandle", &json!({}));
        handle["value"].as_str().expect("a handle").to_owned()
    }

    /// Opens a tab, and returns its handle. The one before stays the one that commands are for.
    pub(crate) fn new_tab(&self) -> String {
        let window = self.command("WebDriver:NewWindow", &json!({ "type": "tab" }));
        window["handle"].as_str().expect("a handle").to_owned()
    }

    /// Has the commands that follow be for this tab. With `focus` it comes to the front, which hides the one before.
    pub(crate) fn switch_to(&self, handle: &str, focus: bool) {
        self.command("WebDriver:SwitchToWindow", &json!({ "handle": handle, "focus": focus }));
    }

    /// Closes the tab; the commands that follow need another.
    pub(crate) fn close_tab(&self) {
        self.command("WebDriver:CloseWindow", &json!({}));
    }

    pub(crate) fn reload(&self) {
        self.command("WebDriver:Refresh", &json!({}));
    }

    pub(crate) fn back(&self) {
        self.command("WebDriver:Back", &json!({}));
    }

    /// Runs a function's body in the browser itself, with what extensions can do.
    pub(crate) fn execute_as_browser(&self, script: &str) -> Value {
        self.command("Marionette:SetContext", &json!({ "value": "chrome" }));
        let parameters = json!({ "script": script, "args": [], "sandbox": "system" });
        let result = self.command("WebDriver:ExecuteScript", &parameters)["value"].take();
        self.command("Marionette:SetContext", &json!({ "value": "content" }));
        result
    }

    /// The events that the page has received, as name, data and last event id.
    pub(crate) fn seen(&self) -> Vec<[String; 3]> {
        serde_json::from_value(self.execute("return window.seen")).expect("triples")
    }

    fn command(&self, name: &str, parameters: &Value) -> Value {
        self.marionette.borrow_mut().command(name, parameters)
    }
}

impl Drop for Firefox {
    fn drop(&mut self) {
        // By itself it ends its processes, which are several; where that fails, this one is killed.
        let mut marionette = self.marionette.borrow_mut();
        if marionette.send("Marionette:Quit", &json!({ "flags": ["eForceQuit"] })).is_ok() {
            let mut left = 1000;
            while left > 0 && matches!(self.process.0.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
                left -= 1;
            }
        }
    }
}

// ===== impl Marionette =====

impl Marionette {
    fn command(&mut self, name: &str, parameters: &Value) -> Value {
        self.send(name, parameters).expect("Firefox listens");
        let mut answer = self.receive();
        assert_eq!(answer[1], self.number, "{name}: {answer}");
        assert!(answer[2].is_null(), "{name}: {answer}");
        answer[3].take()
    }

    fn send(&mut self, name: &str, parameters: &Value) -> std::io::Result<()> {
        self.number += 1;
        let message = json!([0, self.number, name, parameters]).to_string();
        write!(self.connection.get_mut(), "{}:{message}", message.len())
    }

    fn receive(&mut self) -> Value {
        let mut length = Vec::new();
        self.connection.read_until(b':', &mut length).expect("an answer of Firefox");
        let length = String::from_utf8(length).expect("ASCII");
        let length = length.trim_end_matches(':').parse().expect("a length");
        let mut message = vec![0; length];
        self.connection.read_exact(&mut message).expect("the rest of it");
        serde_json::from_slice(&message).expect("JSON")
    }
}
