//! The faults of the rounds, and which requests a fault excuses.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Reply, Target};
use crate::random::Random;

/// How long after all is well again a request that fails still has the fault for a reason.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Node(usize),
    Postgres,
    Registry,
    Haproxy,
}

/// A member that is killed, frozen, cut off or told to stop.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    action: &'static str,
    part: Option<&'static str>,
}

impl Fault {
    /// The fault of a round. The first four rounds have each kind once.
    pub(crate) fn of_round(round: usize, random: &mut Random) -> Self {
        let node = Kind::Node(1 + random.below(3));
        let kind = [node, Kind::Postgres, Kind::Registry, Kind::Haproxy, node, node, node][round % 7];
        let parts = [("kill", Some("service")), ("freeze", Some("service")), ("kill", Some("engine"))];
        let parts = [&parts[..], &[("freeze", Some("engine")), ("terminate", None)]].concat();
        let wholes = [("kill", None), ("freeze", None), ("cut", None)];
        let (action, part) = match kind {
            Kind::Node(_) if round >= 7 && random.is_one_in(2) => *random.pick(&parts),
            Kind::Haproxy if random.is_one_in(4) => ("reload", None),
            Kind::Node(_) | Kind::Postgres | Kind::Registry | Kind::Haproxy => *random.pick(&wholes),
        };
        Self { kind, action, part }
    }

    fn member(&self) -> String {
        match self.kind {
            Kind::Node(number) => number.to_string(),
            Kind::Postgres => "postgres".to_owned(),
            Kind::Registry => "registry".to_owned(),
            Kind::Haproxy => "haproxy".to_owned(),
        }
    }

    pub(crate) async fn begin(&self, cluster: &Cluster) {
        let member = self.member();
        cluster.act(&[&[self.action, member.as_str()], self.part.as_slice()].concat()).await;
    }

    pub(crate) async fn end(&self, cluster: &Cluster) {
        let member = self.member();
        match self.action {
            "freeze" => cluster.act(&[&["thaw", member.as_str()], self.part.as_slice()].concat()).await,
            "cut" => cluster.act(&["join", &member]).await,
            "reload" => {}
            _ => cluster.act(&["restart", &member]).await,
        }
    }

    /// Whether a request may fail while the fault is there. HAProxy's log is held against the faults of nodes, too.
    fn excuses(&self, target: Target, needs_registry: bool) -> bool {
        match self.kind {
            Kind::Node(number) => target == Target::Haproxy || target == Target::Node(number),
            Kind::Postgres => true,
            Kind::Registry => needs_registry,
            Kind::Haproxy => target == Target::Haproxy && self.action != "reload",
        }
    }

    /// What went wrong through HAProxy, in lines of its log: a request that failed on a node without a fault.
    pub(crate) fn unexcused<'a>(&self, log: &'a str) -> Vec<&'a str> {
        let Kind::Node(number) = self.kind else { return Vec::new() };
        let is_wrong = |line: &&str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(server), Some(status)) = (fields.get(3), fields.get(5)) else { return false };
            let has_failed = status.parse::<i32>().is_ok_and(|status| !(0..500).contains(&status));
            server.starts_with("nodes/") && has_failed && *server != format!("nodes/node{number}")
        };
        log.lines().filter(is_wrong).collect()
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.action, self.member(), self.part.unwrap_or("whole"))
    }
}

/// The fault of the round, from its beginning to its end, and what must not be.
#[derive(Default)]
pub(crate) struct Watch {
    current: Mutex<Option<Window>>,
    wrongs: Mutex<Vec<String>>,
}

struct Window {
    fault: Fault,
    began: Instant,
    ended: Option<Instant>,
}

impl Watch {
    pub(crate) fn begin(&self, fault: &Fault) {
        *self.current.lock().unwrap() = Some(Window { fault: fault.clone(), began: Instant::now(), ended: None });
    }

    pub(crate) fn end(&self) {
        if let Some(window) = &mut *self.current.lock().unwrap() {
            window.ended = Some(Instant::now() + GRACE);
        }
    }

    /// Whether a fault was there at some time of the request, for which the request may have failed.
    pub(crate) fn excuses(&self, reply: &Reply, needs_registry: bool) -> bool {
        let current = self.current.lock().unwrap();
        current.as_ref().is_some_and(|window| {
            let is_within = reply.ended >= window.began && window.ended.is_none_or(|ended| reply.began <= ended);
            is_within && window.fault.excuses(reply.target, needs_registry)
        })
    }

    /// Takes note of what must not be. The round goes on, and fails at its end.
    pub(crate) fn wrong(&self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("  WRONG at {}: {what}", jiff::Timestamp::now());
        self.wrongs.lock().unwrap().push(what);
    }

    pub(crate) fn wrongs(&self) -> Vec<String> {
        self.wrongs.lock().unwrap().clone()
    }
}
