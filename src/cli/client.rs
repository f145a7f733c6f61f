//! The API, as a command asks it.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use ureq::http::Response;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};
use ureq::{Agent, Body, RequestBuilder, SendBody};

use super::transport::AnswerFirst;

/// For a connection. An answer may take as long as a build or an execution takes.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Two streams of the largest MAX_OUTPUT_SIZE there can be, each byte escaped.
const MAX_ANSWER: u64 = 1 << 30;

/// Asks one platform.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    url: String,
    token: Option<String>,
}

/// How a body is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    Post,
    Put,
}

/// An answer that is no problem, though a function may have failed.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Client {
    pub(super) fn new(url: &str, token: Option<&str>) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).timeout_connect(Some(CONNECT_LIMIT));
        let config = config.user_agent(concat!("youtube-serverless/", env!("CARGO_PKG_VERSION"))).build();
        let connector = DefaultConnector::default().chain(AnswerFirst);
        let agent = Agent::with_parts(config, connector, DefaultResolver::default());
        Self { agent, url: url.trim_end_matches('/').to_owned(), token: token.map(str::to_owned) }
    }

    pub(super) fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.answer(self.with_token(self.agent.get(self.at(path))).call())
    }

    pub(super) fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.answer(self.with_token(self.agent.delete(self.at(path))).call())
    }

    pub(super) fn post_json(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let mut request = self.with_token(self.agent.post(self.at(path))).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.answer(request.send(body))
    }

    pub(super) fn put_json(&self, path: &str, body: &str) -> anyhow::Result<Answer> {
        let request = self.with_token(self.agent.put(self.at(path))).header("content-type", "application/json");
        self.answer(request.send(body))
    }

    pub(super) fn patch_json(&self, path: &str, body: &str) -> anyhow::Result<Answer> {
        let request = self.with_token(self.agent.patch(self.at(path))).header("content-type", "application/json");
        self.answer(request.send(body))
    }

    /// The bytes of an answer that is no JSON.
    pub(super) fn get_bytes(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let mut response = self.answered(self.with_token(self.agent.get(self.at(path))).call())?;
        if response.status() != 200 {
            self.read(response)?;
            bail!("{} answered with something that is not this platform's", self.url);
        }
        let bytes = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        bytes.context("the answer did not arrive whole")
    }

    /// Sends a body of this length as it is read, and hears of each line of the answer's events. Returns the last one's
    /// data.
    pub(super) fn send_for_events(
        &self,
        (method, path): (Method, &str),
        content_type: &str,
        length: u64,
        mut body: impl Read,
        mut log: impl FnMut(&str),
    ) -> anyhow::Result<Value> {
        let request = match method {
            Method::Post => self.agent.post(self.at(path)),
            Method::Put => self.agent.put(self.at(path)),
        };
        let request = self.with_token(request).header("content-type", content_type);
        let request = request.header("content-length", length.to_string()).header("accept", "text/event-stream");
        let response = self.answered(request.send(SendBody::from_reader(&mut body)))?;
        let mut deployed = None;
        let other = self.events(response, |name, data| {
            match name {
                "log" => log(data),
                "problem" => return Err(problem(&json(data)?)),
                _ => deployed = Some(json(data)?),
            }
            Ok(())
        })?;
        deployed.or(other).context("the answer ended before the build did")
    }

    /// Hears of each event of a path, by its name and its data.
    pub(super) fn follow(&self, path: &str, mut event: impl FnMut(&str, Value)) -> anyhow::Result<()> {
        let request = self.with_token(self.agent.get(self.at(path))).header("accept", "text/event-stream");
        let response = self.answered(request.call())?;
        self.events(response, |name, data| {
            event(name, json(data)?);
            Ok(())
        })?;
        Ok(())
    }

    /// What is no stream of events is an answer, or a problem.
    fn events(
        &self,
        response: Response<Body>,
        mut event: impl FnMut(&str, &str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<Value>> {
        if response.body().mime_type() != Some("text/event-stream") {
            return self.read(response).map(|answer| Some(answer.body));
        }
        let mut name = String::new();
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line.context("the answer did not arrive whole")?;
            match line.split_once(": ") {
                Some(("event", text)) => text.clone_into(&mut name),
                Some(("data", data)) => event(&name, data)?,
                Some(_) | None => {}
            }
        }
        Ok(None)
    }

    /// The address of a path.
    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn with_token<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn answer(&self, response: Result<Response<Body>, ureq::Error>) -> anyhow::Result<Answer> {
        self.read(self.answered(response)?)
    }

    fn answered(&self, response: Result<Response<Body>, ureq::Error>) -> anyhow::Result<Response<Body>> {
        response.with_context(|| format!("no answer from {}; is the service running there (--url)?", self.url))
    }

    fn read(&self, mut response: Response<Body>) -> anyhow::Result<Answer> {
        let status = response.status().as_u16();
        let is_problem = response.body().mime_type().is_some_and(|kind| kind == "application/problem+json");
        let text = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
        let text = text.context("the answer did not arrive whole")?;
        let body: Value = serde_json::from_str(&text)
            .map_err(|_| anyhow!("{} answered {status} with something that is not this platform's", self.url))?;
        if is_problem { Err(problem(&body)) } else { Ok(Answer { status, body }) }
    }
}

fn json(text: &str) -> anyhow::Result<Value> {
    serde_json::from_str(text).context("an event holds no JSON")
}

/// What the platform said no with. What the build has printed goes to stderr first.
fn problem(body: &Value) -> anyhow::Error {
    if let Some(log) = body["buildLog"].as_str() {
        eprintln!("{}", log.trim_end());
    }
    let (detail, code) = (body["detail"].as_str().unwrap_or("it said no"), body["code"].as_str().unwrap_or("no code"));
    anyhow!("{detail} ({} {code})", body["status"])
}

/// A part of a path.
pub(super) fn part(text: &str) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes()
        .map(|byte| if is_plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
