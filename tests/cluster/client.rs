//! A client with functions of its own. The client knows what each function may print, as nobody else changes them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::cluster::{Cluster, Reply, Target};
use crate::faults::Watch;
use crate::random::Random;
use crate::zips::python;

/// The largest number of functions of a client, so that the rounds stay alike.
const MOST: usize = 2;

/// What all clients have in common.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) watch: Watch,
    /// The requests of the round by their kind: those that went well, and those that failed by the fault.
    pub(crate) counts: Mutex<BTreeMap<&'static str, (usize, usize)>>,
    pub(crate) is_over: AtomicBool,
}

/// A function that the service has acknowledged, or which is there although its submit's answer was lost.
pub(crate) struct Function {
    pub(crate) id: String,
    pub(crate) name: String,
    /// The text of the last acknowledged version, and the texts of updates that may have happened or not.
    pub(crate) texts: Vec<String>,
    /// All texts of which a version may ever have been.
    pub(crate) all_texts: Vec<String>,
    pub(crate) accepted: Vec<Accepted>,
    /// A deletion was asked for and not acknowledged.
    pub(crate) is_doubtful: bool,
}

/// An asynchronous execution that the service has accepted.
pub(crate) struct Accepted {
    pub(crate) id: String,
    /// How it ended, once the client has seen the end.
    pub(crate) outcome: Option<String>,
}

pub(crate) struct Client {
    pub(crate) world: Arc<World>,
    pub(crate) random: Random,
    number: usize,
    made: usize,
    pub(crate) functions: Vec<Function>,
    pub(crate) deleted: Vec<String>,
    /// Submits whose answer was lost: names and texts.
    pub(crate) unknown: Vec<(String, String)>,
    pub(crate) total_accepted: usize,
}

impl Function {
    pub(crate) fn new(id: &str, name: String, text: String) -> Self {
        let (texts, all_texts) = (vec![text.clone()], vec![text]);
        Self { id: id.to_owned(), name, texts, all_texts, accepted: Vec::new(), is_doubtful: false }
    }
}

fn program(text: &str) -> Vec<u8> {
    python(&format!(
        "import os, time\ntime.sleep(float(os.environ.get('NAP', '0')))\nprint('{text}', os.environ['INVOCATION_ID'])\n"
    ))
}

/// The text that a version of a function printed, if the rest is as it must be.
pub(crate) fn printed<'a>(output: &'a str, invocation: &str) -> Option<&'a str> {
    output.strip_suffix(&format!(" {invocation}\n"))
}

impl Client {
    pub(crate) fn new(world: &Arc<World>, number: usize, seed: u64) -> Self {
        let random = Random::new(seed ^ ((number as u64 + 1) << 32));
        let (functions, deleted, unknown) = (Vec::new(), Vec::new(), Vec::new());
        Self { world: Arc::clone(world), random, number, made: 0, functions, deleted, unknown, total_accepted: 0 }
    }

    /// Sends requests until the round is over.
    pub(crate) async fn run(mut self) -> Self {
        while !self.world.is_over.load(Ordering::Relaxed) {
            if self.functions.is_empty() || (self.functions.len() < MOST && self.random.is_one_in(4)) {
                self.submit().await;
                continue;
            }
            let index = self.random.below(self.functions.len());
            match self.random.below(20) {
                _ if self.functions[index].is_doubtful => self.delete(index).await,
                0 | 1 => self.delete(index).await,
                2..=4 => self.update(index).await,
                5..=9 => self.defer(index).await,
                _ => self.execute(index).await,
            }
            tokio::time::sleep(self.random.millis(0, 100)).await;
        }
        self
    }

    pub(crate) fn target(&mut self) -> Target {
        if self.random.is_one_in(2) { Target::Haproxy } else { Target::Node(1 + self.random.below(3)) }
    }

    fn text(&mut self) -> String {
        self.made += 1;
        format!("c{}-{}", self.number, self.made)
    }

    /// Whether a request went well. A request that failed without a fault, or as no fault may have it, is wrong.
    fn counted(&self, what: &'static str, reply: &Reply, good: &[u16]) -> bool {
        let is_good = reply.status.is_some_and(|status| good.contains(&status));
        let mut counts = self.world.counts.lock().unwrap();
        let count = counts.entry(what).or_default();
        if is_good {
            count.0 += 1;
            return true;
        }
        count.1 += 1;
        drop(counts);
        let may_fail = reply.status.is_none_or(|status| status == 429 || status >= 500);
        let needs_registry = what != "read";
        if !may_fail || !self.world.watch.excuses(reply, needs_registry) {
            let took = reply.ended.duration_since(reply.began);
            let Reply { status, body, target, .. } = reply;
            self.world.watch.wrong(format!("{what} by {target:?}: {status:?} after {took:?}: {body}"));
        }
        false
    }

    async fn submit(&mut self) {
        let text = self.text();
        let name = format!("crash-{text}");
        let is_keyed = self.random.is_one_in(2);
        let tries = if is_keyed { 2 } else { 1 };
        for number in 0..tries {
            let target = self.target();
            let form = Form::new().part("code", Part::bytes(program(&text)).file_name("function.zip"));
            let request = self.world.cluster.request(target, Method::POST, "/api/submit");
            let request = request.multipart(form.text("name", name.clone()));
            let request = if is_keyed { request.header("idempotency-key", name.clone()) } else { request };
            let reply = self.world.cluster.send(target, request).await;
            // The first try may still be under way on a node that does not answer, until the node's lease has run out.
            // HAProxy tries again, too.
            let is_under_way = reply.text("code") == "in_progress";
            if is_under_way && (number > 0 || self.world.watch.excuses(&reply, true)) {
                continue;
            }
            if self.counted("submit", &reply, &[200]) {
                self.functions.push(Function::new(reply.text("functionId"), name, text));
                self.execute(self.functions.len() - 1).await;
                return;
            }
        }
        self.unknown.push((name, text));
    }

    fn execution(&self, id: &str, target: Target) -> RequestBuilder {
        self.world.cluster.request(target, Method::GET, &format!("/api/execute?functionId={id}"))
    }

    fn check_execution(&self, function: &Function, reply: &Reply, texts: &[String]) {
        if !self.counted("execute", reply, &[200]) {
            return;
        }
        let text = printed(reply.text("output"), reply.text("invocationId"));
        if !text.is_some_and(|text| texts.iter().any(|one| one == text)) {
            let Reply { body, target, .. } = reply;
            self.world.watch.wrong(format!("{} by {target:?} may print {texts:?}: {body}", function.id));
        }
    }

    async fn execute(&mut self, index: usize) {
        let target = self.target();
        let function = &self.functions[index];
        let reply = self.world.cluster.send(target, self.execution(&function.id, target)).await;
        self.check_execution(function, &reply, &function.texts);
    }

    /// Updates a function, which executes meanwhile.
    async fn update(&mut self, index: usize) {
        let (text, target, during) = (self.text(), self.target(), self.target());
        let pause = self.random.millis(0, 1500);
        let id = self.functions[index].id.clone();
        let form = Form::new().part("code", Part::bytes(program(&text)).file_name("function.zip"));
        let request = self.world.cluster.request(target, Method::PUT, &format!("/api/functions/{id}")).multipart(form);
        let meanwhile = async {
            tokio::time::sleep(pause).await;
            self.world.cluster.send(during, self.execution(&id, during)).await
        };
        let (reply, executed) = tokio::join!(self.world.cluster.send(target, request), meanwhile);
        let before = self.functions[index].texts.clone();
        let function = &mut self.functions[index];
        function.all_texts.push(text.clone());
        function.texts.push(text.clone());
        // An execution that began after the update's answer has the new code.
        let late = vec![text.clone()];
        let is_late = reply.is(200) && executed.began > reply.ended && before.len() == 1;
        let function = &self.functions[index];
        self.check_execution(function, &executed, if is_late { &late } else { &function.texts });
        if self.counted("update", &reply, &[200]) {
            // Updates whose answer was lost may still be to come.
            self.functions[index].texts.retain(|one| *one != before[0]);
            self.functions[index].texts.rotate_right(1);
        }
        self.execute(index).await;
    }

    async fn defer(&mut self, index: usize) {
        let nap = f64::from(u32::try_from(self.random.below(8)).unwrap()) / 10.0;
        let key = self.random.is_one_in(2).then(|| format!("run-{}", self.text()));
        let mut first: Option<String> = None;
        for _ in 0..key.as_ref().map_or(1, |_| 2) {
            let target = self.target();
            let body = json!({"functionId": self.functions[index].id, "input": {"nap": nap}});
            let request = self.world.cluster.request(target, Method::POST, "/api/execute").json(&body);
            let request = key.iter().fold(request, |request, key| request.header("idempotency-key", key));
            let reply = self.world.cluster.send(target, request.header("prefer", "respond-async")).await;
            if !self.counted("async", &reply, &[202]) {
                continue;
            }
            let id = reply.text("invocationId").to_owned();
            if let Some(first) = &first {
                if *first != id {
                    self.world.watch.wrong(format!("a key has run twice, as {first} and as {id}"));
                }
            } else {
                self.functions[index].accepted.push(Accepted { id: id.clone(), outcome: None });
                self.total_accepted += 1;
                first = Some(id);
            }
        }
    }

    /// Deletes a function whose asynchronous executions have all ended.
    async fn delete(&mut self, index: usize) {
        for _ in 0..20 {
            let target = self.target();
            if self.functions[index].is_doubtful || self.have_ended(index, target, "read").await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let function = &self.functions[index];
        if !function.is_doubtful && function.accepted.iter().any(|one| one.outcome.is_none()) {
            return;
        }
        let target = self.target();
        let path = format!("/api/functions/{}", self.functions[index].id);
        let request = self.world.cluster.request(target, Method::DELETE, &path);
        let reply = self.world.cluster.send(target, request).await;
        let is_second = self.functions[index].is_doubtful;
        if self.counted("delete", &reply, if is_second { &[200, 404] } else { &[200] }) {
            let function = self.functions.remove(index);
            self.check_gone(&function.id).await;
            self.deleted.push(function.id);
        } else {
            // HAProxy may have sent the deletion twice? No: only reads and requests with a key are sent twice.
            self.functions[index].is_doubtful = true;
        }
    }

    async fn check_gone(&mut self, id: &str) {
        let target = self.target();
        let reply = self.world.cluster.send(target, self.execution(id, target)).await;
        self.counted("execute", &reply, &[404]);
        for target in self.world.cluster.node_targets() {
            let reply = self.world.cluster.get(target, &format!("/api/functions/{id}")).await;
            // A node that has just lost its lease may not know yet.
            if !(reply.is(200) && self.world.watch.excuses(&reply, false)) {
                self.counted("read", &reply, &[404]);
            }
        }
    }

    /// Looks whether the asynchronous executions of a function have ended, each as it must.
    pub(crate) async fn have_ended(&mut self, index: usize, target: Target, what: &'static str) -> bool {
        for number in 0..self.functions[index].accepted.len() {
            let Accepted { id, outcome: seen } = &self.functions[index].accepted[number];
            if seen.is_some() {
                continue;
            }
            let reply = self.world.cluster.get(target, &format!("/api/invocations/{id}")).await;
            let function = &self.functions[index];
            if !self.counted(what, &reply, &[200]) {
                return false;
            }
            let outcome = reply.text("outcome").to_owned();
            if ["queued", "running"].contains(&outcome.as_str()) {
                return false;
            }
            let text = printed(reply.text("output"), id);
            let is_own = text.is_some_and(|text| function.all_texts.iter().any(|one| one == text));
            if !(outcome == "lost" || (outcome == "ok" && is_own)) {
                self.world.watch.wrong(format!("accepted, and neither well nor lost: {}", reply.body));
            }
            self.functions[index].accepted[number].outcome = Some(outcome);
        }
        true
    }
}
