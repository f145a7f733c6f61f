//! Ends of invocations that are told. What is to be told is written down in the transaction of the end, so that neither
//! is there without the other, whatever becomes of the process.

use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe};

use super::{Database, Store};
use crate::domain::settings::notify::Event;
use crate::domain::{InvocationRecord, Outcome};

/// The error of an invocation whose process is gone.
const LOST: &str = "the service went away while it ran";
/// The longest error of a notification, in characters.
const MAX_ERROR: usize = 1000;

impl Store {
    /// Whether the function of an invocation asks to be told of such an end. A client that waits for an invocation is
    /// told by the answer, and [`Store::write_notification`] looks for that.
    pub(super) async fn is_told(&self, record: &InvocationRecord) -> Result<bool, sqlx::Error> {
        let Some(event) = Event::of(record.outcome) else { return Ok(false) };
        let select = sqlx::query_scalar("SELECT count(*) FROM functions WHERE id = $1 AND notify_on LIKE $2");
        let told: i64 = select.bind(record.function_id.to_string()).bind(like(event)).fetch_one(&self.pool()).await?;
        Ok(told > 0)
    }

    /// Writes down the end of an invocation by the statement `update`, and what is to be told of the end. False when
    /// the invocation has another state, or another claim.
    pub(super) async fn end_told(
        &self,
        update: Query<'_, Any, AnyArguments>,
        record: &InvocationRecord,
    ) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool().begin().await?;
        if self.is_shared() {
            // A deletion locks the function first, and then the invocations.
            let hold = sqlx::query("SELECT id FROM functions WHERE id = $1 FOR KEY SHARE");
            hold.bind(record.function_id.to_string()).execute(&mut *transaction).await?;
        }
        if update.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Ok(false);
        }
        let written = self.write_notification(&mut transaction, &record.id.to_string(), record.outcome).await?;
        transaction.commit().await?;
        self.wake_notifier(written);
        Ok(true)
    }

    /// Notes that the invocations that ran on a process that is gone are lost. `of_a_run` is the condition of that
    /// process's open invocations, without the run.
    pub(super) async fn lose_invocations(&self, of_a_run: &str, run: &str) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool().begin().await?;
        if let Database::Postgres(_) = self.database {
            let hold = format!(
                "SELECT id FROM functions WHERE notify_on IS NOT NULL AND id IN (SELECT function_id FROM invocations \
                 WHERE {of_a_run} = $1 AND outcome = $2) ORDER BY id FOR KEY SHARE"
            );
            let hold = sqlx::query(AssertSqlSafe(hold)).bind(run).bind(Outcome::Running.name());
            hold.execute(&mut *transaction).await?;
        }
        let lost = format!(
            "UPDATE invocations SET outcome = $1, error = $2 WHERE {of_a_run} = $3 AND outcome = $4 RETURNING id"
        );
        let lost = sqlx::query_scalar::<_, String>(AssertSqlSafe(lost)).bind(Outcome::Lost.name()).bind(LOST);
        let lost = lost.bind(run).bind(Outcome::Running.name()).fetch_all(&mut *transaction).await?;
        let mut written = 0;
        for id in &lost {
            written += self.write_notification(&mut transaction, id, Outcome::Lost).await?;
        }
        transaction.commit().await?;
        self.wake_notifier(written);
        Ok(())
    }

    /// Writes down what is to be told of an end that is written down, where the function asks for that and no client
    /// waits for the invocation alone. Returns the number of written rows. An invocation ends once, so there is one row
    /// at most.
    async fn write_notification(
        &self,
        connection: &mut AnyConnection,
        invocation: &str,
        outcome: Outcome,
    ) -> Result<u64, sqlx::Error> {
        let Some(event) = Event::of(outcome) else { return Ok(0) };
        let insert = format!(
            "INSERT INTO notifications (invocation_id, function_id, function_name, outcome, exit_code, error, \
             begun_by, version, executed_at, duration_us, ended_at, state, next_try_at) \
             SELECT invocations.id, functions.id, functions.name, outcome, exit_code, substr(error, 1, {MAX_ERROR}), \
             begun_by, invocations.version, executed_at, duration_us, {now}, 'pending', {now} \
             FROM invocations JOIN functions ON functions.id = function_id \
             WHERE invocations.id = $1 AND promised = 1 AND notify_on LIKE $2 ON CONFLICT (invocation_id) DO NOTHING",
            now = self.now()
        );
        let insert = sqlx::query(AssertSqlSafe(insert)).bind(invocation).bind(like(event));
        Ok(insert.execute(connection).await?.rows_affected())
    }

    fn wake_notifier(&self, written: u64) {
        if written > 0 {
            self.told.notify_one();
        }
    }

    /// Returns when this process has written down a notification since the last call.
    pub async fn notification_written(&self) {
        self.told.notified().await;
    }
}

/// The pattern of events that have this event.
fn like(event: Event) -> String {
    format!("%{}%", event.name())
}
