//! Several tabs of a Chromium.

use fantoccini::Locator;
use fantoccini::wd::WindowHandle;
use serde_json::{Value, json};

use super::{Page, Site};
use crate::support::chromium::Browser;
use crate::support::eventually;

/// A Chromium, ended when this is dropped.
pub(crate) struct Chrome {
    browser: Browser,
    /// The one without a page: a window can be opened only from one that is there.
    first: WindowHandle,
}

pub(crate) struct Tab<'chrome> {
    chrome: &'chrome Chrome,
    handle: WindowHandle,
}

// ===== impl Chrome =====

impl Chrome {
    /// With one tab, that [`Self::tab`] does not return.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with these flags.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let flags: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let browser = Browser::open_with("about:blank", &flags);
        let first = browser.runtime.block_on(browser.page.window()).expect("a window");
        Self { browser, first }
    }

    /// Opens a page in a tab with a window of its own: it is seen until it is hidden.
    pub(crate) fn tab(&self, url: &str) -> Tab<'_> {
        self.open(url, false)
    }

    /// Opens a page in one more tab of the first window, of which only the tab that was used last is seen.
    pub(crate) fn tab_of_window(&self, url: &str) -> Tab<'_> {
        self.open(url, true)
    }

    fn open(&self, url: &str, is_tab: bool) -> Tab<'_> {
        let page = &self.browser.page;
        let first = page.switch_to_window(self.first.clone());
        self.browser.runtime.block_on(first).expect("a window");
        let window = self.browser.runtime.block_on(page.new_window(is_tab)).expect("a window");
        let tab = Tab { chrome: self, handle: window.handle };
        tab.go(url);
        tab
    }
}

// ===== impl Tab =====

impl Tab<'_> {
    pub(crate) fn go(&self, url: &str) {
        self.select();
        self.chrome.browser.go(url);
    }

    /// A command of the DevTools protocol, and its result.
    pub(crate) fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.select();
        self.chrome.browser.devtools(command, parameters)
    }

    pub(crate) fn close(self) {
        self.select();
        let page = &self.chrome.browser.page;
        self.chrome.browser.runtime.block_on(page.close_window()).expect("a window");
    }

    pub(crate) fn reload(&self) {
        self.select();
        let page = &self.chrome.browser.page;
        self.chrome.browser.runtime.block_on(page.refresh()).expect("the page");
    }

    pub(crate) fn back(&self) {
        self.select();
        let page = &self.chrome.browser.page;
        self.chrome.browser.runtime.block_on(page.back()).expect("the page");
    }

    /// Has the page's main thread work for so long, from soon on. Nothing can be run in the page meanwhile.
    pub(crate) fn block(&self, seconds: f64) {
        self.run(&format!(
            "setTimeout(() => {{ const end = performance.now() + {seconds} * 1000; while (performance.now() < end); }}, 100)"
        ));
    }

    /// Blocks the page's main thread until the site releases it. Nothing can be run in the page meanwhile.
    pub(crate) fn block_until_released(&self, site: &Site) {
        let before = site.held();
        self.run(
            "fetch('/blocks').then(() => {
                const request = new XMLHttpRequest();
                request.open('GET', '/held', false);
                request.send();
            })",
        );
        // Not before: the driver would wait for the page with its answer, and the test, which releases it, for the driver.
        site.hold(true);
        eventually("the page is blocked", || site.held() > before);
    }

    pub(crate) fn set_offline(&self, offline: bool) {
        let conditions = json!({ "offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
        self.devtools("Network.enable", &json!({}));
        self.devtools("Network.emulateNetworkConditions", &conditions);
    }

    pub(crate) fn set_frozen(&self, frozen: bool) {
        let state = if frozen { "frozen" } else { "active" };
        self.devtools("Page.setWebLifecycleState", &json!({ "state": state }));
    }

    /// Minimises its window, or restores it.
    pub(crate) fn set_hidden(&self, hidden: bool) {
        self.select();
        let page = &self.chrome.browser.page;
        let runtime = &self.chrome.browser.runtime;
        if hidden {
            runtime.block_on(page.minimize_window()).expect("a window");
        } else {
            runtime.block_on(page.set_window_size(800, 600)).expect("a window");
        }
        let is_hidden = || self.run("return document.hidden") == hidden;
        eventually("the page is hidden, or seen", is_hidden);
    }

    /// What its body shows, as a PNG, in a window of this size.
    pub(crate) fn picture(&self, width: u32, height: u32) -> Vec<u8> {
        self.select();
        let page = &self.chrome.browser.page;
        self.chrome.browser.runtime.block_on(async {
            page.set_window_size(width, height).await.expect("a window");
            let body = page.find(Locator::Css("body")).await.expect("a body");
            body.screenshot().await.expect("a picture")
        })
    }

    fn select(&self) {
        let page = &self.chrome.browser.page;
        let handle = self.handle.clone();
        self.chrome.browser.runtime.block_on(page.switch_to_window(handle)).expect("a window");
    }
}

impl Page for Tab<'_> {
    fn run(&self, script: &str) -> Value {
        self.select();
        self.chrome.browser.execute(script, "")
    }
}
