//! A browser without a screen: Debian's Chromium, driven by its chromedriver.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// The key under which WebDriver gives elements out.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// How long to wait for what must come.
const SOON: Duration = Duration::from_secs(30);

type Answered = Result<ureq::http::Response<ureq::Body>, ureq::Error>;

/// A browser with one window; ended when it is dropped.
pub struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Browser {
    /// Starts one that reaches nothing but this machine; `None` where there is none, but for CI.
    pub fn start(with_scripts: bool) -> Option<Browser> {
        let are_there =
            ["/usr/bin/chromium", "/usr/bin/chromedriver"].map(|it| Path::new(it).exists());
        if are_there.contains(&false) {
            assert!(
                std::env::var("CI").is_err(),
                "needs chromium and chromium-driver"
            );
            println!("SKIPPED: needs chromium and chromium-driver of Debian");
            return None;
        }
        let mut driver = Command::new("/usr/bin/chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = BufReader::new(driver.stdout.take().unwrap());
        let mut lines = said.lines().map(Result::unwrap);
        let port = lines.find_map(|line| {
            Some(
                line.split_once("successfully on port ")?
                    .1
                    .trim_end_matches('.')
                    .to_owned(),
            )
        });
        let port: u16 = port.expect("chromedriver says its port").parse().unwrap();
        // Whatever else it says is read, lest it waits.
        std::thread::spawn(move || lines.for_each(drop));
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None);
        let agent: ureq::Agent = config
            .timeout_global(Some(Duration::from_secs(90)))
            .build()
            .into();
        let mut browser = Browser {
            driver,
            session: format!("http://127.0.0.1:{port}/session"),
            agent,
            _profile: tempfile::tempdir().unwrap(),
        };
        let made = browser.post("", capabilities(browser._profile.path(), with_scripts));
        let id = made["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("{made}"));
        browser.session = format!("{}/{id}", browser.session);
        Some(browser)
    }

    fn value(mut answer: ureq::http::Response<ureq::Body>) -> Value {
        let mut json: Value = answer.body_mut().read_json().unwrap();
        let value = json["value"].take();
        assert!(value.get("error").is_none(), "{value}");
        value
    }

    fn post(&self, path: &str, body: Value) -> Value {
        let answer = self
            .agent
            .post(format!("{}{path}", self.session))
            .send_json(body);
        Self::value(answer.unwrap())
    }

    fn get(&self, path: &str) -> Value {
        Self::value(
            self.agent
                .get(format!("{}{path}", self.session))
                .call()
                .unwrap(),
        )
    }

    pub fn go(&self, url: &str) {
        self.post("/url", json!({ "url": url }));
    }

    pub fn url(&self) -> String {
        self.get("/url").as_str().unwrap().to_owned()
    }

    fn found(&self, css: &str) -> Vec<String> {
        let found = self.post("/elements", json!({"using": "css selector", "value": css}));
        let ids = found.as_array().unwrap().iter();
        ids.map(|it| it[ELEMENT].as_str().unwrap().to_owned())
            .collect()
    }

    /// How many elements there are.
    pub fn count(&self, css: &str) -> usize {
        self.found(css).len()
    }

    /// The element; waits for it.
    fn element(&self, css: &str) -> String {
        let began = Instant::now();
        loop {
            if let Some(first) = self.found(css).into_iter().next() {
                return first;
            }
            assert!(began.elapsed() < SOON, "no {css} at {}", self.url());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks something of an element. The page may exchange it after it was found: then of the one
    /// that is in its place.
    fn of_element(&self, css: &str, ask: impl Fn(&ureq::Agent, String) -> Answered) -> Value {
        let began = Instant::now();
        loop {
            let id = self.element(css);
            let answer = ask(&self.agent, format!("{}/element/{id}", self.session));
            let json: Value = answer.unwrap().body_mut().read_json().unwrap();
            let value = &json["value"];
            if value["error"] != "stale element reference" {
                assert!(value.get("error").is_none(), "{css}: {value}");
                return value.clone();
            }
            assert!(began.elapsed() < SOON, "{css} is exchanged again and again");
        }
    }

    pub fn text(&self, css: &str) -> String {
        let text = self.of_element(css, |agent, it| agent.get(format!("{it}/text")).call());
        text.as_str().unwrap().to_owned()
    }

    /// Waits until the text of an element is as wished. It may be exchanged meanwhile.
    pub fn until_text(&self, css: &str, wished: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let text = self.text(css);
            if wished(&text) {
                return text;
            }
            assert!(began.elapsed() < SOON, "{css} is {text:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn click(&self, css: &str) {
        self.of_element(css, |agent, it| {
            agent.post(format!("{it}/click")).send_json(json!({}))
        });
    }

    /// Types a text into a field, in place of what is there.
    pub fn fill(&self, css: &str, text: &str) {
        self.of_element(css, |agent, it| {
            agent.post(format!("{it}/clear")).send_json(json!({}))
        });
        self.of_element(css, |agent, it| {
            agent
                .post(format!("{it}/value"))
                .send_json(json!({ "text": text }))
        });
    }

    /// Sends a key to whatever has the focus, and returns the `id` of what has it then.
    pub fn key(&self, key: char) -> String {
        let actions = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let keys = json!([{"type": "key", "id": "keys", "actions": actions}]);
        self.post("/actions", json!({ "actions": keys }));
        let active = self.get("/element/active");
        let id = active[ELEMENT].as_str().unwrap();
        self.get(&format!("/element/{id}/property/id"))
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// What a script returns that is run in the page.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({"script": script, "args": []}))
    }

    /// A command of the DevTools protocol.
    pub fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post(
            "/goog/cdp/execute",
            json!({"cmd": command, "params": parameters}),
        )
    }

    /// What the console was told since the last call, but for what is no error.
    pub fn console_errors(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "browser"}));
        let entries = log.as_array().unwrap().iter();
        let errors =
            entries.filter(|it| ["SEVERE", "WARNING"].contains(&it["level"].as_str().unwrap()));
        errors
            .map(|it| it["message"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The addresses that pages of this origin asked for since the last call. The empty page that a
    /// browser begins with asks for what is part of the browser.
    pub fn requests(&self, origin: &str) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "performance"}));
        let messages = log.as_array().unwrap().iter();
        let messages = messages.map(|it| it["message"].as_str().unwrap());
        let messages = messages.map(|it| serde_json::from_str::<Value>(it).unwrap());
        let asked = messages.filter_map(|mut it| {
            let mut message = it["message"].take();
            let is_one = message["method"] == "Network.requestWillBeSent";
            is_one.then(|| message["params"].take())
        });
        let of = asked.filter(|it| it["documentURL"].as_str().unwrap().starts_with(origin));
        of.map(|it| it["request"]["url"].as_str().unwrap().to_owned())
            .collect()
    }

    /// On a busy machine the first ones may fail, when nothing was drawn yet.
    fn captured(&self, shot: &Value) -> String {
        let path = format!("{}/goog/cdp/execute", self.session);
        let command = json!({"cmd": "Page.captureScreenshot", "params": shot});
        let began = Instant::now();
        loop {
            let answer = self.agent.post(&path).send_json(&command);
            let json: Value = answer.unwrap().body_mut().read_json().unwrap();
            if let Some(data) = json["value"]["data"].as_str() {
                return data.to_owned();
            }
            assert!(began.elapsed() < SOON, "{json}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// A picture of the whole page, so wide.
    pub fn picture(&self, to: &Path, width: u32, scheme: &str) {
        let feature = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": feature }));
        let metrics =
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
        let shot = json!({"format": "png", "captureBeyondViewport": true});
        let png = STANDARD.decode(self.captured(&shot)).unwrap();
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, png).unwrap();
        self.devtools("Emulation.clearDeviceMetricsOverride", json!({}));
        println!("picture: {}", to.display());
    }
}

fn capabilities(profile: &Path, with_scripts: bool) -> Value {
    let profile = format!("--user-data-dir={}", profile.display());
    let args = [
        "--headless=new",
        // The sandbox of Chromium does not work as root.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--window-size=1280,900",
        // One foreign name leads here, as by DNS rebinding; others lead nowhere.
        "--host-resolver-rules=MAP evil.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
        &profile,
    ];
    let scripts = if with_scripts { 1 } else { 2 };
    let prefs = json!({"profile.managed_default_content_settings.javascript": scripts});
    json!({"capabilities": {"alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": args, "prefs": prefs},
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    }}})
}
