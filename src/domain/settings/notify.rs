//! Whom a function's notifications go to, and of which ends of invocations there are notifications. Pure, but for new
//! keys.

use data_encoding::BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use url::Url;

use crate::config::{Hosts, Rule, RuleError, Secret};
use crate::domain::Outcome;

/// The largest URL, in bytes.
pub const MAX_URL: usize = 2048;
/// How the text of a key begins, as Standard Webhooks has it.
pub const KEY_PREFIX: &str = "whsec_";
/// The number of random bytes of a key.
const KEY_BYTES: usize = 32;

/// A function's wish for notifications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// The receiver, and which ends the receiver is told of.
    pub target: Target,
    /// The key that signs the notifications: [`KEY_PREFIX`] and base64.
    pub key: Secret,
}

/// The receiver of notifications, and which ends of invocations the receiver is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    url: Url,
    /// The host and port of the URL.
    rule: Rule,
    /// One event at least, and each event once.
    on: Vec<Event>,
}

/// An end of an invocation that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The invocation has failed, or nobody knows what has become of the invocation.
    Failure,
    /// The invocation has ended with `ok`.
    Success,
}

/// The reason to refuse a target.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NotifyError {
    /// The text is no URL of the web.
    #[error("the `url` of `notify` is no URL such as https://hooks.example.com/failed, with https or http")]
    Url,
    /// The URL is over the limit.
    #[error("the `url` of `notify` has {0} bytes; the limit is {MAX_URL}")]
    TooLong(usize),
    /// The URL has a user's name or a password.
    #[error(
        "the `url` of `notify` has a user's name or a password, which would stand in the clear; a receiver knows the \
         service by the signature"
    )]
    Credentials,
    /// The URL has a fragment, which is never sent.
    #[error("the `url` of `notify` has a part behind `#`, which is never sent; take the part out")]
    Fragment,
    /// The host is none that a network could have.
    #[error("the host in the `url` of `notify` can't be reached: {0}")]
    Host(RuleError),
    /// The URL names many hosts.
    #[error("the `url` of `notify` names no single host")]
    Hosts,
    /// An event is not known.
    #[error("`on` of `notify` has {0:?}; there are `failure` and `success`")]
    Event(String),
    /// There is no event.
    #[error("`on` of `notify` names no event; name `failure` or `success`, or set `notify` to null")]
    Empty,
}

impl Event {
    /// All events.
    pub const ALL: [Self; 2] = [Self::Failure, Self::Success];

    /// The event of an invocation that ends with an outcome. None where the invocation has not ended, or was cancelled:
    /// a client knows of its own cancellation.
    pub fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Queued | Outcome::Running | Outcome::Cancelled => None,
            Outcome::Ok => Some(Self::Success),
            Outcome::Lost | Outcome::Exit | Outcome::Signal | Outcome::OutOfMemory | Outcome::Timeout => {
                Some(Self::Failure)
            }
        }
    }

    /// The event's name in a function's settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Success => "success",
        }
    }

    /// The type of the event's messages.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Failure => "invocation.failed",
            Self::Success => "invocation.succeeded",
        }
    }
}

impl Notify {
    /// A wish with a new key.
    pub fn new(target: Target) -> Self {
        let mut bytes = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut bytes).expect("the kernel has random numbers");
        Self { target, key: Secret(format!("{KEY_PREFIX}{}", BASE64.encode(&bytes))) }
    }
}

impl Target {
    /// A target from a URL and the names of events.
    pub fn new(url: &str, on: &[impl AsRef<str>]) -> Result<Self, NotifyError> {
        if url.len() > MAX_URL {
            return Err(NotifyError::TooLong(url.len()));
        }
        let url = Url::parse(url).map_err(|_| NotifyError::Url)?;
        let port = url.port_or_known_default().filter(|_| matches!(url.scheme(), "http" | "https"));
        let (Some(host), Some(port)) = (url.host_str(), port) else { return Err(NotifyError::Url) };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(NotifyError::Credentials);
        }
        if url.fragment().is_some() {
            return Err(NotifyError::Fragment);
        }
        let rule: Rule = format!("{host}:{port}").parse().map_err(NotifyError::Host)?;
        if !matches!(rule.hosts, Hosts::Name(_) | Hosts::Range(_)) {
            return Err(NotifyError::Hosts);
        }
        let mut events = Vec::new();
        for name in on {
            let name = name.as_ref();
            let event = Event::ALL.into_iter().find(|event| event.name() == name);
            let event = event.ok_or_else(|| NotifyError::Event(name.chars().take(64).collect()))?;
            if !events.contains(&event) {
                events.push(event);
            }
        }
        if events.is_empty() {
            return Err(NotifyError::Empty);
        }
        Ok(Self { url, rule, on: events })
    }

    /// The URL, with http or https, a host, and neither credentials nor a fragment.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The rule of the one host and port that messages go to.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The names of the events, in their order.
    pub fn events(&self) -> Vec<&'static str> {
        self.on.iter().map(|event| event.name()).collect()
    }
}

/// A wish after a change. A key stays as long as there are notifications, so that the receiver goes on with the key.
pub(super) fn changed(before: Option<&Notify>, change: Option<Option<Notify>>) -> Option<Notify> {
    match (change, before) {
        (None, before) => before.cloned(),
        (Some(Some(next)), Some(before)) => Some(Notify { key: before.key.clone(), ..next }),
        (Some(next), _) => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target, NotifyError> {
        Target::new(url, &["failure"])
    }

    #[test]
    fn a_target_has_one_host_and_port() {
        for (url, shown, to) in [
            ("https://Hooks.Example.com", "https://hooks.example.com/", "hooks.example.com:443"),
            ("http://a.example/b?c=d", "http://a.example/b?c=d", "a.example:80"),
            ("https://a.example:8443/", "https://a.example:8443/", "a.example:8443"),
            ("https://0x7f.1/", "https://127.0.0.1/", "127.0.0.1:443"),
            ("https://[2001:DB8::1]:1/", "https://[2001:db8::1]:1/", "[2001:db8::1]:1"),
            ("https://a.example./", "https://a.example./", "a.example:443"),
        ] {
            let target = target(url).unwrap();
            assert_eq!((target.url().as_str(), target.rule().to_string().as_str()), (shown, to));
        }
    }

    #[test]
    fn what_is_no_target_is_refused_without_a_word_of_the_url() {
        for url in [
            "",
            "hidden",
            "/hidden",
            "ftp://a.example/hidden",
            "file:///hidden",
            "data:,hidden",
            "https://",
            "https://hidden@a.example/",
            "https://user:hidden@a.example/",
            "https://a.example/#hidden",
            "https://a.example:0/hidden",
            "https://localhost/hidden",
            "https://x.localhost/hidden",
            "https://*/hidden",
            "https://*.example/hidden",
            "https://a..example/hidden",
        ] {
            let error = target(url).unwrap_err().to_string();
            assert!(error.contains("`notify`") && !error.contains("hidden"), "{url}: {error}");
        }
        assert_eq!(target(&format!("https://a.example/{}", "x".repeat(2100))), Err(NotifyError::TooLong(2118)));
        assert_eq!(target("https://*.example/"), Err(NotifyError::Hosts));
    }

    #[test]
    fn events_are_named_each_once() {
        let with = |on: &[&str]| Target::new("https://a.example", on);
        assert_eq!(with(&["success", "failure", "success"]).unwrap().events(), ["success", "failure"]);
        assert_eq!(with(&[]), Err(NotifyError::Empty));
        assert_eq!(with(&["Failure"]), Err(NotifyError::Event("Failure".to_owned())));
    }

    #[test]
    fn each_outcome_of_an_end_is_an_event_but_a_cancellation() {
        for outcome in Outcome::ALL {
            let is_told = !outcome.is_open() && outcome != Outcome::Cancelled;
            assert_eq!(Event::of(outcome).is_some(), is_told, "{outcome:?}");
        }
        assert_eq!(Event::of(Outcome::Lost), Some(Event::Failure));
    }

    #[test]
    fn a_key_lasts_as_long_as_there_are_notifications() {
        let new = |url: &str| Notify::new(target(url).unwrap());
        let first = new("https://a.example");
        assert!(first.key.0.len() == KEY_PREFIX.len() + 44 && first.key != new("https://a.example").key);
        assert!(!format!("{first:?}").contains(&first.key.0), "a key shows in Debug");
        assert_eq!(changed(None, Some(Some(first.clone()))), Some(first.clone()));
        assert_eq!(changed(Some(&first), None), Some(first.clone()));
        let second = changed(Some(&first), Some(Some(new("https://b.example")))).unwrap();
        assert_eq!((second.target.url().as_str(), &second.key), ("https://b.example/", &first.key));
        assert_eq!(changed(Some(&first), Some(None)), None);
        assert_eq!(changed(None, Some(None)), None);
    }
}
