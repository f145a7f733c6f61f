//! A real browser without a screen: Debian's Chromium, controlled by Debian's chromedriver.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::eventually;

/// The key by which the protocol names an element, <https://www.w3.org/TR/webdriver2/#elements>.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// One browser window. The test must close the window.
pub(crate) struct Browser {
    driver: Child,
    client: reqwest::Client,
    /// The driver's address for this window.
    session: String,
    /// The folder for screenshots.
    shots: PathBuf,
    /// The browser's temporary files.
    _temp: tempfile::TempDir,
}

impl Browser {
    /// Opens a window of this size, with dark or light colours.
    pub(crate) async fn open(width: u32, height: u32, dark: bool) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut driver = Command::new("chromedriver");
        let driver = driver.arg(format!("--port={port}")).stdout(Stdio::null()).stderr(Stdio::null());
        let temp = tempfile::tempdir().unwrap();
        let driver = driver.env("TMPDIR", temp.path());
        let driver = driver.spawn().expect("chromedriver runs; `make test` installs Debian's chromium-driver");
        let scheme = if dark { 0 } else { 1 };
        // A window is at least 500 wide, a phone is not.
        let phone =
            (width < 500).then(|| json!({"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0}}));
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--blink-settings=preferredColorScheme={scheme}"),
        ];
        let mut options = json!({"args": arguments});
        if let Some(phone) = phone {
            options["mobileEmulation"] = phone;
        }
        let capabilities = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}});
        let (client, url) = (reqwest::Client::new(), format!("http://127.0.0.1:{port}/session"));
        let session = eventually("the browser opens", async || {
            let opened: Value = client.post(&url).json(&capabilities).send().await.ok()?.json().await.ok()?;
            opened["value"]["sessionId"].as_str().map(|id| format!("{url}/{id}"))
        })
        .await;
        let shots = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&shots).unwrap();
        Self { driver, client, session, shots, _temp: temp }
    }

    /// Sends a command of the protocol. An error holds the driver's message.
    async fn command(&self, path: &str, body: &Value) -> Result<Value, String> {
        let sent = self.client.post(format!("{}{path}", self.session)).json(body).send().await.unwrap();
        Self::value(sent).await
    }

    async fn ask(&self, path: &str) -> Result<Value, String> {
        Self::value(self.client.get(format!("{}{path}", self.session)).send().await.unwrap()).await
    }

    async fn value(response: reqwest::Response) -> Result<Value, String> {
        let is_error = !response.status().is_success();
        let value = response.json::<Value>().await.unwrap()["value"].take();
        if is_error { Err(value["message"].to_string()) } else { Ok(value) }
    }

    pub(crate) async fn goto(&self, url: &str) {
        self.command("/url", &json!({"url": url})).await.unwrap();
    }

    /// Waits for the element with this id, and returns the element's path.
    async fn element(&self, id: &str) -> String {
        let by = json!({"using": "css selector", "value": format!("#{id}")});
        let found = async || self.command("/element", &by).await.ok();
        let element = eventually(&format!("there is {id}"), found).await;
        format!("/element/{}", element[ELEMENT].as_str().unwrap())
    }

    /// Sends a command to the element with this id, again until the element is shown and takes the command.
    async fn tell(&self, id: &str, command: &str, body: &Value) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let path = format!("{}/{command}", self.element(id).await);
            let Err(error) = self.command(&path, body).await else { return };
            assert!(std::time::Instant::now() < deadline, "{id} does not take {command}: {error}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn click(&self, id: &str) {
        self.tell(id, "click", &json!({})).await;
    }

    /// Waits until a part of the page is shown and has what the page reads for the part.
    pub(crate) async fn is_read(&self, id: &str) {
        let part = format!("document.getElementById('{id}')");
        let is_read = format!("return !{part}.hidden && {part}.getAttribute('aria-busy') === 'false'");
        eventually(id, async || (self.script(&is_read).await == true).then_some(())).await;
    }

    /// Clicks the button with this text, once the button is there.
    pub(crate) async fn press_button(&self, text: &str) {
        let shown = "[...document.querySelectorAll('button')].filter((one) => one.checkVisibility())";
        let find = format!("{shown}.find((one) => one.textContent === '{text}' && !one.disabled)");
        let click = format!("const found = {find}; if (!found) return false; found.click(); return true");
        eventually(text, async || self.script(&click).await.as_bool().filter(|&found| found)).await;
    }

    /// Presses a key. The element with the focus gets the key.
    pub(crate) async fn press(&self, key: &str) {
        let strokes = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        self.command("/actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]}))
            .await
            .unwrap();
    }

    /// Types into the element with the focus. A file input takes the path of a file.
    pub(crate) async fn type_here(&self, keys: &str) {
        let focused = self.ask("/element/active").await.unwrap();
        let path = format!("/element/{}/value", focused[ELEMENT].as_str().unwrap());
        self.command(&path, &json!({"text": keys})).await.unwrap();
    }

    /// Presses Tab until the control with this id has the focus.
    pub(crate) async fn tab_to(&self, id: &str) {
        for _ in 0..60 {
            self.press("\u{e004}").await;
            if self.script("return document.activeElement.id").await == id {
                return;
            }
        }
        panic!("the keyboard does not reach {id}");
    }

    /// Types into an element. A text area is cleared first.
    pub(crate) async fn type_into(&self, id: &str, text: &str) {
        let element = self.element(id).await;
        if self.ask(&format!("{element}/name")).await.unwrap() == "textarea" {
            self.tell(id, "clear", &json!({})).await;
        }
        self.tell(id, "value", &json!({"text": text})).await;
    }

    /// Types a text in the place of the text of the console's editor.
    pub(crate) async fn replace_text(&self, text: &str) {
        let content = "document.getElementById('editor').shadowRoot.querySelector('.cm-content')";
        let is_there = format!("return !!{content}");
        eventually("the editor is there", async || (self.script(&is_there).await == true).then_some(())).await;
        self.script(&format!("{content}.focus()")).await;
        let key = |kind: &str, value: &str| json!({"type": kind, "value": value});
        let all = [key("keyDown", "\u{e009}"), key("keyDown", "a"), key("keyUp", "a"), key("keyUp", "\u{e009}")];
        self.command("/actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": all}]}))
            .await
            .unwrap();
        // As a paste, since the editor indents lines that are typed.
        let insert = format!("document.execCommand('insertText', false, {})", json!(text));
        self.script(&insert).await;
    }

    pub(crate) async fn text(&self, id: &str) -> String {
        let path = format!("{}/text", self.element(id).await);
        self.ask(&path).await.unwrap().as_str().unwrap().to_owned()
    }

    /// Waits until an element's text contains this text.
    pub(crate) async fn says(&self, id: &str, text: &str) {
        let what = format!("{id} says {text:?}");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !self.text(id).await.contains(text) {
            if std::time::Instant::now() > deadline {
                self.shoot("in-vain").await;
                panic!("the test waited in vain: {what}; the page is in target/screenshots/in-vain.png");
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Runs a script in the page, and returns the script's value.
    pub(crate) async fn script(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({"script": script, "args": []})).await.unwrap()
    }

    /// Saves a screenshot for people, and returns the file.
    pub(crate) async fn shoot(&self, name: &str) -> PathBuf {
        let path = self.shots.join(format!("{name}.png"));
        let encoded = self.ask("/screenshot").await.unwrap();
        let mut decoder = Command::new("base64");
        let decoder = decoder.arg("--decode").stdin(Stdio::piped()).stdout(std::fs::File::create(&path).unwrap());
        let mut decoder = decoder.spawn().unwrap();
        decoder.stdin.take().unwrap().write_all(encoded.as_str().unwrap().as_bytes()).unwrap();
        assert!(decoder.wait().unwrap().success());
        path
    }

    pub(crate) async fn close(self) {
        // The drop does all there is to do.
    }

    /// Has the driver end the browser, which would outlive a driver that is killed.
    fn end_session(&self) -> std::io::Result<()> {
        let (host, path) = self.session["http://".len()..].split_once('/').unwrap();
        let mut connection = std::net::TcpStream::connect(host)?;
        connection.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
        write!(connection, "DELETE /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
        connection.read_exact(&mut [0; 12])
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.end_session();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
