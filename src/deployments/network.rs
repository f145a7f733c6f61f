//! Whether functions may have a network, and which.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time;

use crate::config::Rule;
use crate::domain::settings::Settings;
use crate::sandbox::transport::Transport;

/// The longest wait for the first container, which shows whether instances can have doors.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// Knows which networks functions may have.
#[derive(Debug)]
pub(crate) struct Networks {
    /// EGRESS_ALLOW.
    pub(crate) allow: Vec<Rule>,
    /// The way to instances. Listening sockets of instances come over the way's sockets only.
    pub(crate) transport: Arc<Transport>,
}

/// The reason to refuse a network.
#[derive(Debug, Error)]
pub enum NetworkRefusal {
    /// The network has a rule that no rule of EGRESS_ALLOW covers.
    #[error(
        "`network` asks for {0}, which no rule of EGRESS_ALLOW covers; take the rule out, or have the operator add a \
         rule to EGRESS_ALLOW"
    )]
    NotAllowed(Rule),
    /// EGRESS_ALLOW has no rules.
    #[error("`network` asks for {0}, and no function may have a network, as EGRESS_ALLOW has no value here")]
    NoneAllowed(Rule),
    /// No rule of EGRESS_ALLOW covers the receiver of notifications.
    #[error(
        "the receiver of `notify` is {0}, which no rule of EGRESS_ALLOW covers; name another, or have the operator add \
         a rule to EGRESS_ALLOW"
    )]
    NotifyNotAllowed(Rule),
    /// Instances can't have doors, for this reason.
    #[error(
        "a function can't have a `network` here, as the service reaches the containers by pipes, not by sockets: {0}"
    )]
    NotAvailable(String),
    /// It is not known yet whether instances can have doors.
    #[error(
        "no container has shown yet whether functions can have a `network` here; try again when the service has its \
         runtime image of Python"
    )]
    Unknown,
}

impl Networks {
    /// Fails when a change gives a network that EGRESS_ALLOW does not cover, or where instances can't have doors. Waits
    /// for up to `LOOK_LIMIT` until the latter is known. A network that a function has is no matter here, unless the
    /// client asks for the network: rules that EGRESS_ALLOW does not cover any more do not count when the function
    /// runs.
    ///
    /// A receiver of notifications must be covered, too, and needs no doors.
    pub(super) async fn check(
        &self,
        before: &Settings,
        after: &Settings,
        (asks_network, asks_notify): (bool, bool),
    ) -> Result<(), NetworkRefusal> {
        let notify = after.notify.as_ref().filter(|_| asks_notify || before.notify != after.notify);
        if let Some(notify) = notify {
            let to = notify.target.rule();
            if !self.allow.iter().any(|rule| rule.covers(to)) {
                return Err(NetworkRefusal::NotifyNotAllowed(to.clone()));
            }
        }
        let is_new = asks_network || before.network != after.network;
        let Some(network) = after.network.as_ref().filter(|_| is_new) else { return Ok(()) };
        match network.uncovered(&self.allow) {
            Some(rule) if self.allow.is_empty() => return Err(NetworkRefusal::NoneAllowed(rule.clone())),
            Some(rule) => return Err(NetworkRefusal::NotAllowed(rule.clone())),
            None => {}
        }
        let known = time::timeout(LOOK_LIMIT, self.transport.sockets()).await;
        known.map_err(|_| NetworkRefusal::Unknown)?.map_err(NetworkRefusal::NotAvailable)
    }
}
