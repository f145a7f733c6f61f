//! A service for each test, and functions that send requests to the service.

mod engine;
mod index;
pub(crate) mod postgres;
pub(crate) mod process;
mod program;
mod zips;

use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::multipart::{Form, Part};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use youtube_serverless::app::{self, Listeners};
use youtube_serverless::config::Config;
use youtube_serverless::telemetry;

pub(crate) use engine::Engine;
pub(crate) use index::{Index, bridge, wheel};
pub(crate) use process::Service;
pub(crate) use program::{Program, postgres_at};
pub(crate) use zips::{go, python, zip};

/// The longest time that a condition may take to come true on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Options of a container that a test makes of a platform's image. With the image's own labels, reconciliation would
/// take the container for a leftover.
pub(crate) const OF_NO_PLATFORM: [&str; 2] =
    ["--label=youtube-serverless.platform=", "--label=youtube-serverless.run="];

/// A running service.
pub(crate) struct TestApp {
    pub(crate) url: String,
    /// Where functions answer over HTTP. Empty without FUNCTIONS_PORT.
    pub(crate) functions_url: String,
    pub(crate) client: Client,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) platform: String,
    stop: CancellationToken,
    /// The service. None after its end.
    service: Option<JoinHandle<anyhow::Result<()>>>,
}

/// A function of the service under test.
#[derive(Clone)]
pub(crate) struct Deployed {
    pub(crate) id: String,
    pub(crate) image: String,
}

/// An answer with its whole body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl TestApp {
    /// Runs a test against a service with these settings, and checks that the service leaves nothing behind.
    pub(crate) async fn run(settings: &[(&str, &str)], test: impl AsyncFnOnce(&Self)) {
        static LOG: Once = Once::new();
        LOG.call_once(|| telemetry::start(tracing::Level::WARN, youtube_serverless::config::LogFormat::Text, None));
        let dir = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let _stops = stop.clone().drop_guard();
        let (service, [url, functions_url]) = serve(vars(dir.path(), settings), stop.clone()).await;
        let id_file = dir.path().join("data/platform-id");
        let platform = eventually("the platform has an id", async || std::fs::read_to_string(&id_file).ok()).await;
        let mut app = Self { url, functions_url, client: Client::new(), dir, platform, stop, service: Some(service) };
        eventually("docker answers", async || (app.get("/health").await.status == 200).then_some(())).await;
        test(&app).await;
        if !app.stop.is_cancelled() {
            app.delete_all().await;
        }
        app.stop();
        let service = app.service.take().unwrap();
        let ended = tokio::task::spawn_blocking(|| service.join()).await.unwrap();
        ended.expect("the service did not panic").expect("the service stopped cleanly");
        app.assert_no_containers();
        // The test itself could no longer delete these functions after the stop. The next start of the platform would
        // remove the images.
        for image in app.images() {
            // Docker may have removed an unnamed image in the meantime, so a failure is ignored.
            let _ = Command::new("docker")
                .args(["image", "rm", "--force", "--", image.split(' ').nth(1).unwrap()])
                .output();
        }
        let temp = app.dir.path().join("temp");
        assert_eq!(std::fs::read_dir(temp).unwrap().count(), 0, "the service left temp files");
    }

    /// Tells the service to stop, as a signal would.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    async fn delete_all(&self) {
        for function in self.get("/api/functions").await.body.as_array().expect("a list") {
            self.delete(function["functionId"].as_str().unwrap()).await.assert_status(200);
        }
        eventually("all images are removed", async || self.images().is_empty().then_some(())).await;
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, id: &str) -> Answer {
        answer(self.request(Method::DELETE, &format!("/api/functions/{id}"))).await
    }

    pub(crate) async fn post_json(&self, path: &str, body: impl Into<String>) -> Answer {
        answer(self.request(Method::POST, path).header("content-type", "application/json").body(body.into())).await
    }

    /// Submits a zip. The submission may fail.
    pub(crate) async fn submit(&self, zip: Vec<u8>) -> Answer {
        self.submit_form(Form::new().part("code", Part::bytes(zip).file_name("function.zip"))).await
    }

    pub(crate) async fn submit_form(&self, form: Form) -> Answer {
        answer(self.request(Method::POST, "/api/submit").multipart(form)).await
    }

    /// Deploys a function from a zip, and expects success.
    pub(crate) async fn deploy(&self, zip: Vec<u8>) -> Deployed {
        let answer = self.submit(zip).await.assert_status(200);
        Deployed::of(&answer)
    }

    /// Deploys a function that everybody reaches over HTTP by this name.
    pub(crate) async fn deploy_site(&self, name: &str, zip: Vec<u8>) -> Deployed {
        let code = Part::bytes(zip).file_name("function.zip");
        let form = Form::new().part("code", code).text("name", name.to_owned()).text("http", "public");
        let answer = self.submit_form(form).await.assert_status(200);
        Deployed::of(&answer)
    }

    /// A request to a function.
    pub(crate) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.functions_url))
    }

    pub(crate) async fn execute(&self, function: &Deployed) -> Answer {
        self.get(&format!("/api/execute?functionId={}", function.id)).await
    }

    pub(crate) async fn execute_with(&self, function: &Deployed, input: Value) -> Answer {
        self.post_json("/api/execute", json!({"functionId": function.id, "input": input}).to_string()).await
    }

    /// Deploys a Python program, executes the function once, expects success, and returns the output.
    pub(crate) async fn output_of(&self, program: &str) -> String {
        let function = self.deploy(python(program)).await;
        self.execute(&function).await.assert_outcome(200, "ok").output().to_owned()
    }

    pub(crate) fn all_containers(&self) -> Vec<String> {
        let filter = format!("label=youtube-serverless.platform={}", self.platform);
        docker(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"])
    }

    /// The names of the containers of one function.
    pub(crate) fn containers_of(&self, function: &Deployed) -> Vec<String> {
        let filter = format!("label=youtube-serverless.function.id={}", function.id);
        docker(&["ps", "--all", "--filter", &filter, "--filter", "name=youtube-serverless-", "--format", "{{.Names}}"])
    }

    /// Waits until an execution of a function has begun, and returns its container's name.
    pub(crate) async fn begun(&self, function: &Deployed) -> String {
        let path = format!("/api/functions/{}", function.id);
        eventually("an execution has begun", async || self.get(&path).await.body["lastExecuted"].as_u64()).await;
        self.containers_of(function).pop().expect("the execution runs in a container")
    }

    pub(crate) fn assert_no_containers(&self) {
        assert_eq!(self.all_containers(), [""; 0], "containers are left");
    }

    /// The names and ids of this platform's images, dangling images included.
    pub(crate) fn images(&self) -> Vec<String> {
        let filter = format!("label=youtube-serverless.platform={}", self.platform);
        docker(&["images", "--filter", &filter, "--format", "{{.Repository}} {{.ID}}"])
    }
}

impl Deployed {
    /// The function that the answer to a submit tells.
    fn of(answer: &Answer) -> Self {
        let text = |key: &str| answer.body[key].as_str().expect(key).to_owned();
        Self { id: text("functionId"), image: text("imageId") }
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn assert_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:#}", self.body);
        self
    }

    /// Expects a problem with this status and code, whose detail contains this text.
    #[track_caller]
    pub(crate) fn assert_problem(self, status: u16, code: &str, detail: &str) -> Self {
        assert_eq!(self.status, status, "{:#}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["title"], StatusCode::from_u16(status).unwrap().canonical_reason().unwrap());
        assert_eq!(self.body["code"], code, "{:#}", self.body);
        assert!(self.body["detail"].as_str().unwrap().contains(detail), "{:#}", self.body);
        assert_eq!(self.body["requestId"], self.headers["x-request-id"].to_str().unwrap());
        self
    }

    /// Expects an execution with this status and outcome.
    #[track_caller]
    pub(crate) fn assert_outcome(self, status: u16, outcome: &str) -> Self {
        assert_eq!((self.status, self.body["outcome"].as_str()), (status, Some(outcome)), "{:#}", self.body);
        assert_eq!(self.body["statusCode"], status);
        assert_eq!(self.headers["content-type"], "application/json");
        self
    }

    #[track_caller]
    pub(crate) fn output(&self) -> &str {
        self.body["output"].as_str().unwrap_or_else(|| panic!("no output in {:#}", self.body))
    }

    #[track_caller]
    pub(crate) fn stderr(&self) -> &str {
        self.body["stderr"].as_str().unwrap_or_else(|| panic!("no stderr in {:#}", self.body))
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        // The service of a test that failed must not go on beside other tests, nor without its folder.
        self.stop.cancel();
        drop(self.service.take().map(JoinHandle::join));
    }
}

/// Starts a service on a thread of its own, so that no command which the test waits for holds the service up. Returns
/// the thread, and the URLs of the API and of functions.
async fn serve(vars: Vec<(String, String)>, stop: CancellationToken) -> (JoinHandle<anyhow::Result<()>>, [String; 2]) {
    let (bound, urls) = oneshot::channel();
    let service = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let config = Config::from_vars(vars).unwrap();
            let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let functions = Listeners::bind_functions(&config).await.unwrap();
            let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
            bound.send([url(&api), functions.as_ref().map(url).unwrap_or_default()]).unwrap();
            app::run(config, Listeners { api, functions }, stop).await
        })
    });
    (service, urls.await.expect("the service listens"))
}

/// The environment of a service under test. TEST_STORE and TEST_TRANSPORT run the same tests over the other store and
/// the other transport.
pub(crate) fn vars(dir: &Path, settings: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut vars: Vec<(String, String)> = Vec::new();
    for image in ["PYTHON_IMAGE", "GO_IMAGE"] {
        vars.extend(std::env::var(image).ok().map(|value| (image.to_owned(), value)));
    }
    for (variable, folder) in [("DATA_DIR", "data"), ("TEMP_DIR_BASE", "temp")] {
        vars.push((variable.to_owned(), dir.join(folder).to_str().unwrap().to_owned()));
    }
    // Most tests count containers.
    vars.extend(["SLOTS_PYTHON", "SLOTS_GO"].map(|name| (name.to_owned(), "0".to_owned())));
    if let Some(url) = store_url(dir) {
        vars.extend([("STORE_URL".to_owned(), url), ("SECRETS_KEY".to_owned(), "1a".repeat(32))]);
    }
    vars.extend(std::env::var("TEST_TRANSPORT").ok().map(|value| ("INSTANCE_TRANSPORT".to_owned(), value)));
    vars.extend(settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
    vars
}

/// The database of the services in a folder where tests run on PostgreSQL. A service that starts again in the folder
/// finds its database again.
pub(crate) fn store_url(dir: &Path) -> Option<String> {
    let is_meant = std::env::var("TEST_STORE").is_ok_and(|store| store == "postgres");
    is_meant.then(|| postgres::database(dir.file_name().unwrap().to_str().unwrap()))
}

pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    read(request.send().await.expect("the service answers")).await
}

pub(crate) async fn read(response: Response) -> Answer {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("the answer arrives whole");
    let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    Answer { status, headers, body }
}

/// The containers (`["ps", "--all"]`) or images (`["images"]`) of the platform in this folder.
pub(crate) fn labelled(dir: &Path, what: &[&str]) -> Vec<String> {
    let platform = std::fs::read_to_string(dir.join("data/platform-id")).unwrap();
    docker(&[what, &["--quiet", "--filter", &format!("label=youtube-serverless.platform={platform}")]].concat())
}

/// Runs a docker command that must succeed, and returns its lines.
#[track_caller]
pub(crate) fn docker(args: &[&str]) -> Vec<String> {
    let output = Command::new("docker").args(args).output().expect("docker runs");
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Evaluates a condition repeatedly until the condition gives a value. Panics when this takes too long.
pub(crate) async fn eventually<T>(what: &str, condition: impl AsyncFn() -> Option<T>) -> T {
    eventually_within(SOON, what, condition).await
}

/// As [`eventually`], with another limit.
pub(crate) async fn eventually_within<T>(limit: Duration, what: &str, condition: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(value) = condition().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the test waited in vain: {what}");
}
