//! Notifications as rows, from the end of an invocation to the last try.
//!
//! A try belongs to one process: the claim raises the number of tries, and what a try came to is written by that number
//! only. A claim whose process is gone is free after a while.

use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::{Store, StoreError};
use crate::domain::{
    Claimed, Delivery, DeliveryState, Due, FunctionId, InvocationId, Notification, Outcome, Tried, Trigger,
};

/// The time after which a try counts as lost with its process. A try and the writing down take less.
const CLAIM: Duration = Duration::from_secs(60);
/// The number of a function's notifications that are listed, and that are kept after the last try.
const KEPT: u32 = 50;
/// The most notifications of a function that wait.
const MAX_PENDING: u32 = 10_000;
/// The largest number of functions of which [`Store::due_notifications`] tells.
const MAX_DUE: u32 = 1000;

const BAD_ROW: &str = "a notification's row has values that can't be";

impl Store {
    /// The next notification of each function that has notifications to be delivered, the longest due first. The query
    /// goes from function to function in the index, so that many notifications of a function cost no more than few.
    pub async fn due_notifications(&self) -> Result<Vec<Due>, StoreError> {
        let next = |of: &str| format!("(SELECT min(function_id) FROM notifications WHERE state = 'pending'{of})");
        let select = format!(
            "WITH RECURSIVE told (function_id) AS (SELECT {} UNION ALL SELECT {} FROM told \
             WHERE told.function_id IS NOT NULL) \
             SELECT next.invocation_id, next.tries, next.next_try_at - {now} AS wait, notify_url \
             FROM told JOIN functions ON functions.id = told.function_id \
             JOIN notifications AS next ON next.invocation_id = (SELECT invocation_id FROM notifications \
             WHERE notifications.function_id = told.function_id AND state = 'pending' ORDER BY next_try_at LIMIT 1) \
             ORDER BY next.next_try_at LIMIT {MAX_DUE}",
            next(""),
            next(" AND notifications.function_id > told.function_id"),
            now = self.now()
        );
        let rows = self.ask(sqlx::query(AssertSqlSafe(select)).fetch_all(&self.pool())).await?;
        let due = |row: &AnyRow| {
            let wait = row.try_get::<i64, _>("wait").ok()?;
            Some(Due {
                invocation_id: row.try_get::<String, _>("invocation_id").ok()?.parse().ok()?,
                tries: number(row, "tries")?,
                wait: Duration::from_millis(wait.max(0).cast_unsigned()),
                url: row.try_get("notify_url").ok()?,
            })
        };
        rows.iter().map(|row| due(row).ok_or_else(|| self.damaged(BAD_ROW))).collect()
    }

    /// Claims the next try of a notification. None when another process was faster, or when the notification has gone
    /// with its function.
    pub async fn claim_notification(&self, due: &Due) -> Result<Option<Claimed>, StoreError> {
        let claim = format!(
            "UPDATE notifications SET tries = tries + 1, last_try_at = {now}, next_try_at = {now} + {claim}, \
             claimed_by = $1 WHERE invocation_id = $2 AND state = 'pending' AND tries = $3 AND next_try_at <= {now} \
             RETURNING invocation_id, function_id, function_name, outcome, exit_code, error, begun_by, version, \
             executed_at, duration_us, ended_at, tries, {now} - ended_at AS age",
            now = self.now(),
            claim = CLAIM.as_millis()
        );
        let claim = sqlx::query(AssertSqlSafe(claim)).bind(self.run()).bind(due.invocation_id.to_string());
        let claim = claim.bind(i64::from(due.tries));
        let Some(row) = self.ask(claim.fetch_optional(&self.pool())).await? else { return Ok(None) };
        let (notification, attempt, age) = claimed(&row).ok_or_else(|| self.damaged(BAD_ROW))?;
        let notify = self.notify_of(notification.function_id).await?;
        Ok(Some(Claimed { notification, attempt, age, notify }))
    }

    /// Writes down what a try came to. False when the try counts as lost, and another has begun.
    pub async fn end_try(&self, claimed: &Claimed, tried: &Tried) -> Result<bool, StoreError> {
        let ended = async {
            let mut transaction = self.pool().begin().await?;
            let update = format!(
                "UPDATE notifications SET state = $1, last_status = $2, last_error = $3, next_try_at = {} + $4, \
                 claimed_by = NULL WHERE invocation_id = $5 AND state = 'pending' AND tries = $6",
                self.now()
            );
            let update = sqlx::query(AssertSqlSafe(update)).bind(tried.state.name());
            let update = update.bind(tried.status.map(i64::from)).bind(tried.error.as_deref());
            let update = update.bind(i64::try_from(tried.pause.as_millis()).unwrap_or(i64::MAX / 2));
            let update = update.bind(claimed.notification.invocation_id.to_string()).bind(i64::from(claimed.attempt));
            let updated = update.execute(&mut *transaction).await?.rows_affected() > 0;
            if updated && tried.state != DeliveryState::Pending {
                keep_last(&mut transaction, &claimed.notification.function_id.to_string()).await?;
            }
            transaction.commit().await?;
            Ok(updated)
        };
        self.ask(ended).await
    }

    /// Has the tries of processes that are gone begin again at once.
    pub async fn free_notifications(&self) -> Result<(), StoreError> {
        let free = format!(
            "UPDATE notifications SET next_try_at = {}, claimed_by = NULL \
             WHERE state = 'pending' AND claimed_by IS NOT NULL AND NOT {}",
            self.now(),
            self.is_live("claimed_by")
        );
        self.ask(sqlx::query(AssertSqlSafe(free)).execute(&self.pool())).await.map(drop)
    }

    /// The last notifications of a function, the last first.
    pub async fn notifications(&self, function: FunctionId) -> Result<Vec<Delivery>, StoreError> {
        let select = format!(
            "SELECT invocation_id, outcome, ended_at, state, tries, last_try_at, next_try_at, last_status, last_error \
             FROM notifications WHERE function_id = $1 ORDER BY ended_at DESC, invocation_id LIMIT {KEPT}"
        );
        let select = sqlx::query(AssertSqlSafe(select)).bind(function.to_string());
        let rows = self.ask(select.fetch_all(&self.pool())).await?;
        rows.iter().map(|row| delivery(row).ok_or_else(|| self.damaged(BAD_ROW))).collect()
    }

    /// Removes what is known of deliveries that are through and older than `before`, in Unix milliseconds, and gives up
    /// the oldest deliveries of a function that has too many.
    pub async fn prune_notifications(&self, before: u64) -> Result<(), StoreError> {
        let prune = async {
            let old = sqlx::query("DELETE FROM notifications WHERE ended_at < $1 AND state <> 'pending'");
            old.bind(before.cast_signed()).execute(&self.pool()).await?;
            let many = format!(
                "SELECT function_id FROM notifications WHERE state = 'pending' GROUP BY function_id \
                 HAVING count(*) > {MAX_PENDING}"
            );
            for function in sqlx::query_scalar::<_, String>(AssertSqlSafe(many)).fetch_all(&self.pool()).await? {
                let last = format!(
                    "SELECT invocation_id FROM notifications WHERE function_id = $1 AND state = 'pending' \
                     ORDER BY ended_at DESC, invocation_id LIMIT {MAX_PENDING}"
                );
                let give_up = format!(
                    "UPDATE notifications SET state = 'failed', last_error = $2 \
                     WHERE function_id = $1 AND state = 'pending' AND invocation_id NOT IN ({last})"
                );
                let reason = format!("more than {MAX_PENDING} notifications of the function waited");
                let mut transaction = self.pool().begin().await?;
                let give_up = sqlx::query(AssertSqlSafe(give_up)).bind(&function).bind(reason);
                let notifications = give_up.execute(&mut *transaction).await?.rows_affected();
                keep_last(&mut transaction, &function).await?;
                transaction.commit().await?;
                tracing::warn!(
                    function.id = function,
                    notifications,
                    "gave up notifications, as a function may have {MAX_PENDING} that wait"
                );
            }
            Ok(())
        };
        self.ask(prune).await
    }
}

/// Gives up what a function without a receiver has to tell.
pub(super) async fn give_up_all(connection: &mut AnyConnection, function: &str) -> Result<(), sqlx::Error> {
    let give_up = "UPDATE notifications SET state = 'failed', last_error = 'the function has no `notify` any more' \
                   WHERE function_id = $1 AND state = 'pending'";
    if sqlx::query(give_up).bind(function).execute(&mut *connection).await?.rows_affected() > 0 {
        keep_last(connection, function).await?;
    }
    Ok(())
}

/// Removes all but the last deliveries of a function that are through.
async fn keep_last(connection: &mut AnyConnection, function: &str) -> Result<(), sqlx::Error> {
    let last = format!(
        "SELECT ended_at FROM notifications WHERE function_id = $1 AND state <> 'pending' \
         ORDER BY ended_at DESC LIMIT 1 OFFSET {}",
        KEPT - 1
    );
    let old =
        format!("DELETE FROM notifications WHERE function_id = $1 AND state <> 'pending' AND ended_at < ({last})");
    sqlx::query(AssertSqlSafe(old)).bind(function).execute(connection).await.map(drop)
}

/// None when a value has a form that this program does not write.
fn claimed(row: &AnyRow) -> Option<(Notification, u32, Duration)> {
    let time = |column: &str| row.try_get::<Option<i64>, _>(column).ok().map(|time| time.map(i64::cast_unsigned));
    let notification = Notification {
        invocation_id: invocation(row)?,
        function_id: row.try_get::<String, _>("function_id").ok()?.parse().ok()?,
        function_name: row.try_get("function_name").ok()?,
        outcome: outcome(row)?,
        exit_code: match row.try_get::<Option<i64>, _>("exit_code").ok()? {
            Some(code) => Some(i32::try_from(code).ok()?),
            None => None,
        },
        error: row.try_get("error").ok()?,
        trigger: match row.try_get::<Option<String>, _>("begun_by").ok()? {
            Some(name) => Trigger::from_name(&name)?,
            None => Trigger::Api,
        },
        version: match row.try_get::<Option<i64>, _>("version").ok()? {
            Some(number) => Some(u32::try_from(number).ok()?),
            None => None,
        },
        executed_at: time("executed_at")?,
        duration: time("duration_us")?.map(Duration::from_micros),
        ended_at: time("ended_at")??,
    };
    let age = Duration::from_millis(row.try_get::<i64, _>("age").ok()?.max(0).cast_unsigned());
    Some((notification, number(row, "tries")?, age))
}

/// None when a value has a form that this program does not write.
fn delivery(row: &AnyRow) -> Option<Delivery> {
    let time = |column: &str| row.try_get::<Option<i64>, _>(column).ok().map(|time| time.map(i64::cast_unsigned));
    let name: String = row.try_get("state").ok()?;
    let state = DeliveryState::ALL.into_iter().find(|state| state.name() == name)?;
    Some(Delivery {
        invocation_id: invocation(row)?,
        outcome: outcome(row)?,
        ended_at: time("ended_at")??,
        state,
        tries: number(row, "tries")?,
        last_try_at: time("last_try_at")?,
        next_try_at: time("next_try_at")?.filter(|_| state == DeliveryState::Pending),
        last_status: match row.try_get::<Option<i64>, _>("last_status").ok()? {
            Some(status) => Some(u16::try_from(status).ok()?),
            None => None,
        },
        last_error: row.try_get("last_error").ok()?,
    })
}

fn invocation(row: &AnyRow) -> Option<InvocationId> {
    row.try_get::<String, _>("invocation_id").ok()?.parse().ok()
}

fn outcome(row: &AnyRow) -> Option<Outcome> {
    Outcome::from_name(&row.try_get::<String, _>("outcome").ok()?)
}

fn number(row: &AnyRow, column: &str) -> Option<u32> {
    u32::try_from(row.try_get::<i64, _>(column).ok()?).ok()
}
