//! What must hold after a round, when all members are well: the clients' ledgers against each node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use crate::client::{Client, Function, World, printed};
use crate::cluster::Target;

/// The longest time until all that was accepted has ended.
const DRAIN: Duration = Duration::from_secs(90);

/// The functions that all nodes list, as pairs of id and name.
pub(crate) async fn listed(world: &World) -> BTreeMap<String, String> {
    let mut first: Option<BTreeSet<String>> = None;
    let mut names = BTreeMap::new();
    for target in world.cluster.node_targets() {
        let reply = world.cluster.get(target, "/api/functions").await;
        assert!(reply.is(200), "{target:?}: {:?} {}", reply.status, reply.body);
        let functions = reply.body.as_array().unwrap();
        // The time of the last execution reaches the other nodes some time later.
        let told = functions.iter().map(|one| {
            let fields = one.as_object().unwrap().iter().filter(|(field, _)| *field != "lastExecuted");
            fields.map(|(field, value)| format!("{field}={value} ")).collect::<String>()
        });
        let told: BTreeSet<String> = told.collect();
        let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
        names = functions.iter().map(|one| (text(one, "functionId"), text(one, "name"))).collect();
        match &first {
            None => first = Some(told),
            Some(first) if *first != told => {
                let other: Vec<_> = first.symmetric_difference(&told).collect();
                world.watch.wrong(format!("{target:?} lists other functions than node 1: {other:#?}"));
            }
            Some(_) => {}
        }
    }
    names
}

impl Client {
    /// Settles what was doubtful, by what the nodes say. Each function then has one text on all of the targets.
    pub(crate) async fn settle(mut self, listed: BTreeMap<String, String>, targets: Vec<Target>) -> Self {
        self.settle_functions(&listed);
        for index in 0..self.functions.len() {
            for &target in &targets {
                self.settle_text(index, target).await;
            }
            self.settle_accepted(index).await;
        }
        self
    }

    fn settle_functions(&mut self, listed: &BTreeMap<String, String>) {
        for id in self.deleted.iter().filter(|&id| listed.contains_key(id)) {
            self.world.watch.wrong(format!("deleted and back: {id}"));
        }
        let functions = std::mem::take(&mut self.functions);
        for mut function in functions {
            match (listed.contains_key(&function.id), function.is_doubtful) {
                (true, _) => {
                    function.is_doubtful = false;
                    self.functions.push(function);
                }
                (false, true) => self.deleted.push(function.id),
                (false, false) => self.world.watch.wrong(format!("acknowledged and lost: {}", function.id)),
            }
        }
        for (name, text) in std::mem::take(&mut self.unknown) {
            let made: Vec<&String> = listed.iter().filter(|(_, other)| **other == name).map(|(id, _)| id).collect();
            if made.len() > 1 {
                self.world.watch.wrong(format!("one submit has made {made:?}"));
            }
            self.functions.extend(made.iter().map(|id| Function::new(id, name.clone(), text.clone())));
        }
    }

    async fn settle_text(&mut self, index: usize, target: Target) {
        let function = &mut self.functions[index];
        let path = format!("/api/execute?functionId={}", function.id);
        let reply = self.world.cluster.get(target, &path).await;
        let text = printed(reply.text("output"), reply.text("invocationId")).unwrap_or("").to_owned();
        if !reply.is(200) || !function.texts.contains(&text) {
            let (status, texts) = (reply.status, &function.texts);
            let what = format!("{} on {target:?} must print {texts:?}: {status:?} {}", function.id, reply.body);
            self.world.watch.wrong(what);
            return;
        }
        function.texts = vec![text];
    }

    /// Waits until all accepted executions have ended, and looks for them in the history: each is there once.
    async fn settle_accepted(&mut self, index: usize) {
        let deadline = Instant::now() + DRAIN;
        while !self.have_ended(index, Target::Node(1), "settle").await {
            let open: Vec<&str> = self.functions[index]
                .accepted
                .iter()
                .filter(|one| one.outcome.is_none())
                .map(|one| one.id.as_str())
                .collect();
            if Instant::now() > deadline {
                self.world.watch.wrong(format!("accepted and not ended: {open:?}"));
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let function = &self.functions[index];
        let mut records: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut page = String::new();
        loop {
            let path = format!("/api/functions/{}/invocations?limit=500{page}", function.id);
            let reply = self.world.cluster.get(Target::Node(2), &path).await;
            assert!(reply.is(200), "{:?} {}", reply.status, reply.body);
            for record in reply.body["invocations"].as_array().unwrap() {
                let text = |key: &str| record[key].as_str().unwrap_or("").to_owned();
                records.entry(text("invocationId")).or_default().push(text("outcome"));
            }
            let Some(cursor) = reply.body["nextCursor"].as_str() else { break };
            page = format!("&cursor={cursor}");
        }
        for accepted in &function.accepted {
            let found = records.remove(&accepted.id).unwrap_or_default();
            if Some(&found[..]) != accepted.outcome.as_ref().map(std::slice::from_ref) {
                let Self { world, .. } = self;
                world.watch.wrong(format!("{} ended {:?} and is there as {found:?}", accepted.id, accepted.outcome));
            }
        }
        // Only a request of which no answer came is not among the accepted ones, and must end like those.
        for (id, outcomes) in records {
            if !matches!(&outcomes[..], [one] if ["ok", "lost", "cancelled"].contains(&one.as_str())) {
                self.world.watch.wrong(format!("{id} ended as {outcomes:?}"));
            }
        }
    }

    /// How many of the accepted executions are lost.
    pub(crate) fn lost(&self) -> usize {
        let accepted = self.functions.iter().flat_map(|function| &function.accepted);
        accepted.filter(|one| one.outcome.as_deref() == Some("lost")).count()
    }

    /// Deletes all functions of the client.
    pub(crate) async fn delete_all(mut self) {
        for function in std::mem::take(&mut self.functions) {
            let target = self.target();
            let path = format!("/api/functions/{}", function.id);
            let request = self.world.cluster.request(target, Method::DELETE, &path);
            let reply = self.world.cluster.send(target, request).await;
            assert!(reply.is(200), "{}: {:?} {}", function.name, reply.status, reply.body);
        }
    }
}
