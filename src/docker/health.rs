//! Whether Docker answers. One task asks Docker repeatedly and notes the answers; other tasks read the last answer
//! before they try in vain.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

/// Docker's last answer. By default, Docker always answers.
#[derive(Clone, Debug)]
pub struct Health(watch::Receiver<Answer>);

/// The writing side of [`Health`].
#[derive(Debug)]
pub struct Monitor(watch::Sender<Answer>);

#[derive(Clone, Debug, Default)]
struct Answer {
    trouble: Option<Arc<str>>,
    /// When Docker last did not answer.
    last_trouble: Option<Instant>,
    /// When the last question was asked.
    asked_at: Option<Instant>,
}

/// A connected pair of monitor and health. Until the first answer, Docker counts as in trouble.
pub fn channel() -> (Monitor, Health) {
    let trouble = Some("Docker was not asked yet".into());
    let (sender, receiver) = watch::channel(Answer { trouble, ..Answer::default() });
    (Monitor(sender), Health(receiver))
}

impl Default for Health {
    fn default() -> Self {
        Self(watch::channel(Answer::default()).1)
    }
}

impl Health {
    /// The reason why functions can't be executed now. None when Docker answers.
    pub fn trouble(&self) -> Option<String> {
        self.0.borrow().trouble.as_deref().map(str::to_owned)
    }

    /// Returns once Docker was asked and did not answer.
    pub async fn in_trouble(mut self) {
        // The first change is the first answer.
        let _ = self.0.changed().await;
        let _ = self.0.wait_for(|answer| answer.trouble.is_some()).await;
    }

    /// Returns once Docker answers.
    pub async fn wait(&self) {
        // An error means that the monitor has stopped, and then so does everything.
        let _ = self.0.clone().wait_for(|answer| answer.trouble.is_none()).await;
    }

    /// Returns once Docker answers again after Docker failed to answer at some time since `begin`.
    pub async fn recovered_since(&self, begin: Instant) {
        let is_over = |answer: &Answer| {
            answer.trouble.is_none() && answer.last_trouble.is_some_and(|last_trouble| begin <= last_trouble)
        };
        if self.0.clone().wait_for(is_over).await.is_err() {
            // The monitor has stopped, and then so does everything.
            std::future::pending().await
        }
    }

    /// Whether Docker failed to answer at some time since `begin`. Waits for the answer to a question that is asked
    /// after this call.
    pub async fn had_trouble_since(&self, begin: Instant) -> bool {
        let now = Instant::now();
        let mut answers = self.0.clone();
        let _ = answers.wait_for(|answer| answer.asked_at.is_some_and(|asked_at| now <= asked_at)).await;
        let last_trouble = answers.borrow().last_trouble;
        last_trouble.is_some_and(|last_trouble| begin <= last_trouble)
    }
}

impl Monitor {
    /// Notes the answer to a question that was asked at `asked_at`. The log gets one line when trouble begins and one
    /// line when trouble ends.
    pub fn note(&self, asked_at: Instant, trouble: Option<String>) {
        if self.0.borrow().trouble.is_some() != trouble.is_some() {
            match &trouble {
                None => tracing::info!("docker answers"),
                Some(reason) => tracing::error!(%reason, "docker does not answer"),
            }
        }
        self.0.send_modify(|answer| {
            answer.last_trouble = if trouble.is_some() { Some(Instant::now()) } else { answer.last_trouble };
            answer.trouble = trouble.map(Into::into);
            answer.asked_at = Some(asked_at);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SHORTLY: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn trouble_is_known_by_an_answer_that_comes_after_it() {
        let (monitor, health) = channel();
        assert!(health.trouble().is_some());
        monitor.note(Instant::now(), None);
        assert_eq!(health.trouble(), None);
        health.wait().await;
        tokio::time::sleep(SHORTLY).await;
        let begin = Instant::now();
        let asked = async {
            // This question was asked before `begin`, so its answer tells nothing about later trouble.
            monitor.note(begin - SHORTLY, None);
            tokio::time::sleep(2 * SHORTLY).await;
            monitor.note(Instant::now(), Some("hung".to_owned()));
        };
        let (had_trouble, ()) = tokio::join!(health.had_trouble_since(begin), asked);
        assert!(had_trouble);
        assert_eq!(health.trouble().as_deref(), Some("hung"));
        tokio::time::sleep(SHORTLY).await;
        let later = Instant::now();
        let note = async { monitor.note(Instant::now(), None) };
        let (had_trouble, ()) = tokio::join!(health.had_trouble_since(later), note);
        assert!(!had_trouble, "the trouble was over before");
    }
}
