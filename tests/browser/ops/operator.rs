//! The page as an operator sees and uses it.

use std::time::SystemTime;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use crate::harness::{Chrome, Page, SECRET, Site, Tab};
use crate::support::{Server, eventually};

/// Records what the page does wrong. It is run before the page.
pub(crate) const RECORD: &str = "
    window.problems = [];
    addEventListener('error', event => problems.push(`error: ${event.message}`));
    addEventListener('unhandledrejection', event => problems.push(`rejection: ${event.reason}`));
    document.addEventListener('securitypolicyviolation',
        event => problems.push(`policy: ${event.violatedDirective} ${event.blockedURI}`));
    for (const name of ['error', 'warn']) console[name] = (...all) => problems.push(`${name}: ${all.join(' ')}`);
";

/// The page in a tab.
pub(crate) struct Operator<P>(pub(crate) P);

// ===== impl Operator =====

impl<'chrome> Operator<Tab<'chrome>> {
    /// Opens the page of a server.
    pub(super) fn open(chrome: &'chrome Chrome, server: &Server) -> Self {
        Self::open_at(chrome, &format!("http://{}/ops", server.address()))
    }

    /// Opens the page from a site that has it as it is now, and answers as a server might.
    pub(super) fn open_scripted(chrome: &'chrome Chrome, site: &Site) -> Self {
        Self::open_scripted_at(chrome, site, "/ops")
    }

    pub(super) fn open_scripted_at(chrome: &'chrome Chrome, site: &Site, path: &str) -> Self {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/ops/page.html");
        site.add(path, std::fs::read_to_string(file).expect("a file"));
        Self::open_at(chrome, &format!("{}{path}", site.origin()))
    }

    fn open_at(chrome: &'chrome Chrome, url: &str) -> Self {
        let tab = chrome.tab("about:blank");
        tab.devtools("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": RECORD }));
        tab.go(url);
        Self(tab)
    }
}

impl<P: Page> Operator<P> {
    pub(crate) fn run(&self, script: &str) -> Value {
        self.0.run(script)
    }

    /// The text of the elements that a selector matches, one a line.
    pub(crate) fn text(&self, selector: &str) -> String {
        let script =
            "return [...document.querySelectorAll(SELECTOR)].map(e => e.textContent).join('\\n')";
        let script = script.replace("SELECTOR", &json!(selector).to_string());
        self.run(&script).as_str().expect("text").to_owned()
    }

    /// The rows of a table's body or the items of a list.
    pub(crate) fn rows(&self, id: &str) -> Vec<Vec<String>> {
        let script = "return [...document.getElementById(ID).children].map(row => [...row.children].map(cell => cell.textContent))";
        let rows = self.run(&script.replace("ID", &json!(id).to_string()));
        serde_json::from_value(rows).expect("rows")
    }

    /// The large number with this title.
    pub(crate) fn number(&self, title: &str) -> String {
        let script = "return [...document.querySelectorAll('article')].find(e => e.querySelector('h2').textContent === TITLE)?.querySelector('b').textContent ?? ''";
        let number = self.run(&script.replace("TITLE", &json!(title).to_string()));
        number.as_str().expect("text").to_owned()
    }

    pub(crate) fn fill(&self, id: &str, text: &str) {
        let script = "const field = document.getElementById(ID); field.value = TEXT; field.dispatchEvent(new Event('input'))";
        let script = script.replace("ID", &json!(id).to_string());
        self.run(&script.replace("TEXT", &json!(text).to_string()));
    }

    pub(crate) fn click(&self, selector: &str) {
        let script = "document.querySelector(SELECTOR).click()";
        self.run(&script.replace("SELECTOR", &json!(selector).to_string()));
    }

    /// Enters an organisation, or its topic.
    pub(crate) fn choose(&self, org: &str, topic: &str) {
        let separator = if topic.is_empty() { "" } else { " / " };
        self.fill("channel", &format!("{org}{separator}{topic}"));
    }

    pub(crate) fn follow(&self, org: &str, topic: &str) {
        self.choose(org, topic);
        self.click("#follow .go");
    }

    /// Enters a token.
    pub(crate) fn enter(&self, token: &str) {
        self.fill("token", token);
        self.click("#enter button");
    }

    /// Waits for something to be in the text of elements; a failure has what there is.
    pub(crate) fn eventually_has(&self, selector: &str, part: &str) {
        let mut text = String::new();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(part, || {
                text = self.text(selector);
                text.contains(part)
            });
        }));
        assert!(result.is_ok(), "no {part} in {selector}: {text}; {:?}", self.problems());
    }

    pub(crate) fn eventually_numbers(&self, title: &str, number: &str) {
        let mut last = String::new();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(title, || {
                last = self.number(title);
                last == number
            });
        }));
        assert!(result.is_ok(), "{title} is {last}, not {number}; {:?}", self.problems());
    }

    /// Errors, warnings of the console, and what the policy refused.
    pub(crate) fn problems(&self) -> Vec<String> {
        serde_json::from_value(self.run("return window.problems ?? []")).expect("texts")
    }

    /// There were none, and no request went to another origin.
    pub(crate) fn assert_quiet(&self) {
        assert_eq!(self.problems(), [""; 0]);
        let others = "return performance.getEntriesByType('resource').map(e => e.name).filter(name => !name.startsWith(`${location.origin}/`))";
        assert_eq!(self.run(others), json!([]));
    }
}

/// A token for an hour.
pub(super) fn token(org: &str, scope: &str) -> String {
    token_for(org, scope, 3600)
}

pub(super) fn token_for(org: &str, scope: &str, seconds: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let exp = now.as_secs() + seconds;
    let claims = json!({ "exp": exp, "org": org, "scope": scope, "topics": "*" });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("it signs")
}
