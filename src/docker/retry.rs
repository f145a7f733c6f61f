//! Retries of failed work. The pauses between tries grow, and no try begins while Docker is known not to answer. The
//! log gets one line when trouble begins and one line when trouble ends, however many tasks meet the trouble.

use std::error::Error;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use parking_lot::Mutex;
use tokio::time;

use crate::docker::health::Health;

const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(15);

/// The pauses between tries, without end. A random part makes each pause up to twice as long, so that tasks do not try
/// at the same time.
pub fn pauses() -> ExponentialBackoff {
    let builder = ExponentialBuilder::default().with_min_delay(SHORTEST).with_max_delay(LONGEST).with_factor(2.0);
    builder.with_jitter().without_max_times().build()
}

/// One kind of work that is tried again, over all tasks of this kind.
#[derive(Debug)]
pub struct Retries {
    /// The trouble in words, for the log: "a container could not be removed".
    trouble: &'static str,
    health: Health,
    /// How many tasks are in trouble.
    failing: Mutex<usize>,
}

/// The tries of one task.
#[derive(Debug)]
pub struct Retry<'a> {
    retries: &'a Retries,
    pauses: ExponentialBackoff,
    has_failed: bool,
}

impl Retries {
    /// A kind of work that waits while `health` knows of trouble.
    pub fn new(trouble: &'static str, health: Health) -> Self {
        Self { trouble, health, failing: Mutex::default() }
    }

    /// Begins the tries of a task.
    pub fn begin(&self) -> Retry<'_> {
        Retry { retries: self, pauses: pauses(), has_failed: false }
    }

    /// Notes that one more task is in trouble. The first such task is logged.
    pub fn fail(&self, error: &(dyn Error + Send + Sync + 'static)) {
        let mut failing = self.failing.lock();
        *failing += 1;
        if *failing == 1 {
            let mut causes = vec![error.to_string()];
            causes.extend(std::iter::successors(error.source(), |&error| error.source()).map(ToString::to_string));
            let error = causes.join(": ");
            tracing::warn!(error, "{}, trying again until the work succeeds", self.trouble);
        }
    }

    /// Notes that one task fewer is in trouble. The log gets a line when no task is left in trouble and `is_done` says
    /// that the last task's work is done.
    pub fn recover(&self, is_done: bool) {
        let mut failing = self.failing.lock();
        *failing = failing.saturating_sub(1);
        if *failing == 0 && is_done {
            tracing::info!("over: {}", self.trouble);
        }
    }
}

impl Retry<'_> {
    /// Waits while Docker is known not to answer.
    pub async fn ready(&self) {
        self.retries.health.wait().await;
    }

    /// Pauses after a try that failed.
    pub async fn failed(&mut self, error: &(dyn Error + Send + Sync + 'static)) {
        // The monitor has already logged a Docker that does not answer.
        if !self.has_failed && self.retries.health.trouble().is_none() {
            self.has_failed = true;
            self.retries.fail(error);
        }
        tracing::debug!(%error, "{}", self.retries.trouble);
        self.pause().await;
    }

    /// Pauses when no try has failed and the work only takes time.
    pub async fn pause(&mut self) {
        self.ready().await;
        time::sleep(self.pauses.next().unwrap_or(LONGEST)).await;
        self.ready().await;
    }

    /// Ends the tries of a task whose work is done.
    pub fn done(mut self) {
        if std::mem::take(&mut self.has_failed) {
            self.retries.recover(true);
        }
    }
}

impl Drop for Retry<'_> {
    fn drop(&mut self) {
        if self.has_failed {
            self.retries.recover(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::docker::health;

    const AWAY: Duration = Duration::from_millis(300);

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let some: Vec<Duration> = pauses().take(50).collect();
        assert!(SHORTEST <= some[0] && some[0] <= 2 * SHORTEST);
        assert!(some[10..].iter().all(|pause| (LONGEST..=2 * LONGEST).contains(pause)), "{some:?}");
        assert_ne!(some[10..], pauses().take(50).collect::<Vec<_>>()[10..]);
    }

    #[tokio::test]
    async fn nothing_is_tried_while_docker_is_away() {
        let (monitor, health) = health::channel();
        let retries = Retries::new("nothing goes", health);
        let tried = async {
            let mut retry = retries.begin();
            retry.failed(&std::fmt::Error).await;
            retry.done();
            Instant::now()
        };
        let begin = Instant::now();
        let back = async {
            time::sleep(AWAY).await;
            monitor.note(Instant::now(), None);
        };
        let (tried_at, ()) = tokio::join!(tried, back);
        assert!(AWAY + SHORTEST <= tried_at - begin, "the tasks do not all try at the moment of Docker's return");
        assert_eq!(*retries.failing.lock(), 0);
    }

    #[tokio::test]
    async fn trouble_is_counted_over_all_tasks() {
        let retries = Retries::new("nothing goes", Health::default());
        let (mut one, mut other) = (retries.begin(), retries.begin());
        one.failed(&std::fmt::Error).await;
        one.failed(&std::fmt::Error).await;
        other.failed(&std::fmt::Error).await;
        assert_eq!(*retries.failing.lock(), 2);
        one.done();
        drop(other);
        assert_eq!(*retries.failing.lock(), 0);
    }
}
