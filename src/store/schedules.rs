//! Schedules as rows. A schedule's row has its next slot: the node that moves the row on from a slot has the slot, and
//! accepts the slot's run in the same transaction. So each slot has one run or none, whatever crashes.
//!
//! A transaction locks the function before the schedule, as a deletion of the function does.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::{Database, Store, StoreError};
use crate::domain::{
    DeclaredSchedule, Definition, DueSlot, FunctionId, InvocationRecord, MAX_SCHEDULES, Missed, Outcome, Overlap,
    Schedule, ScheduleName, SkipReason, Skipped, Step, Taken, Trigger,
};

/// What became of a schedule that a client has put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The schedule is there.
    Done,
    /// The function has as many schedules as may be.
    TooMany,
    /// There is no such function.
    NoFunction,
}

const BAD_ROW: &str = "a schedule's row has values that can't be";

const SHOWN: &str = "SELECT schedules.function_id, name, cron, timezone, schedules.input, enabled, overlap, missed, \
                     declared, next_at, last_invocation, outcome, skipped_at, skip_reason FROM schedules \
                     LEFT JOIN invocations ON invocations.id = last_invocation";

const DUE: &str = "SELECT function_id, name, revision, cron, timezone, overlap, missed, next_at FROM schedules";

impl Store {
    /// The time in Unix milliseconds, by the clock that all nodes go by.
    pub async fn time(&self) -> Result<u64, StoreError> {
        let select = sqlx::query_scalar::<_, i64>(AssertSqlSafe(format!("SELECT {}", self.now())));
        self.ask(select.fetch_one(&self.pool())).await.map(i64::cast_unsigned)
    }

    /// Makes or replaces a schedule. `next_at` is the next slot after `now`, both in Unix seconds. The slot of a
    /// schedule that has the same times before and after stays as it is, as the slot may be under way. A declared
    /// schedule of the name is the client's from then on.
    pub async fn put_schedule(
        &self,
        id: FunctionId,
        name: &ScheduleName,
        definition: &Definition,
        (now, next_at): (u64, Option<u64>),
    ) -> Result<Put, StoreError> {
        let put = async {
            let mut transaction = self.pool().begin().await?;
            // Another request of the kind waits: two together must not be over the limit.
            if !self.lock_function(&mut transaction, id, "FOR NO KEY UPDATE").await? {
                return Ok(Put::NoFunction);
            }
            let others = sqlx::query_scalar("SELECT count(*) FROM schedules WHERE function_id = $1 AND name <> $2");
            let others = others.bind(id.to_string()).bind(name.as_str());
            let others: i64 = others.fetch_one(&mut *transaction).await?;
            if others >= i64::from(MAX_SCHEDULES) {
                return Ok(Put::TooMany);
            }
            let schedule = DeclaredSchedule { name: name.clone(), definition: definition.clone(), now, next_at };
            write(&mut transaction, id, &schedule, false).await?;
            transaction.commit().await?;
            Ok(Put::Done)
        };
        self.ask(put).await
    }

    /// A function's schedules, by their names.
    pub async fn schedules(&self, id: FunctionId) -> Result<Vec<Schedule>, StoreError> {
        let select = format!("{SHOWN} WHERE schedules.function_id = $1 ORDER BY name");
        let select = sqlx::query(AssertSqlSafe(select)).bind(id.to_string());
        let rows = self.ask(select.fetch_all(&self.pool())).await?;
        rows.iter().map(|row| shown(row).ok_or_else(|| self.damaged(BAD_ROW))).collect()
    }

    /// A schedule of a function. None where there is no such schedule.
    pub async fn schedule(&self, id: FunctionId, name: &ScheduleName) -> Result<Option<Schedule>, StoreError> {
        let select = format!("{SHOWN} WHERE schedules.function_id = $1 AND name = $2");
        let select = sqlx::query(AssertSqlSafe(select)).bind(id.to_string()).bind(name.as_str());
        let row = self.ask(select.fetch_optional(&self.pool())).await?;
        row.map(|row| shown(&row).ok_or_else(|| self.damaged(BAD_ROW))).transpose()
    }

    /// Removes a schedule. Its accepted runs go on. False where there is no such schedule.
    pub async fn delete_schedule(&self, id: FunctionId, name: &ScheduleName) -> Result<bool, StoreError> {
        let delete = sqlx::query("DELETE FROM schedules WHERE function_id = $1 AND name = $2");
        let delete = delete.bind(id.to_string()).bind(name.as_str());
        Ok(self.ask(delete.execute(&self.pool())).await?.rows_affected() > 0)
    }

    /// The schedules whose next slot is at or before `until`, in Unix seconds: the oldest slot first, from behind the
    /// schedule `after`, at most this many.
    pub async fn due_schedules(
        &self,
        until: u64,
        after: Option<&DueSlot>,
        most: u32,
    ) -> Result<Vec<DueSlot>, StoreError> {
        let select = format!(
            "{DUE} WHERE next_at <= $1 AND (next_at, function_id, name) > ($2, $3, $4) \
             ORDER BY next_at, function_id, name LIMIT $5"
        );
        let select = sqlx::query(AssertSqlSafe(select))
            .bind(until.cast_signed())
            .bind(after.map_or(-1, |due| due.slot.cast_signed()))
            .bind(after.map_or_else(String::new, |due| due.function_id.to_string()))
            .bind(after.map_or_else(String::new, |due| due.name.to_string()))
            .bind(i64::from(most));
        self.due(self.ask(select.fetch_all(&self.pool())).await?)
    }

    /// The schedules whose slots have been decided on for the time after `time`, in Unix seconds, at most this many.
    pub async fn schedules_ahead(&self, time: u64, most: u32) -> Result<Vec<DueSlot>, StoreError> {
        let select = format!("{DUE} WHERE settled_at > $1 AND next_at IS NOT NULL LIMIT $2");
        let select = sqlx::query(AssertSqlSafe(select)).bind(time.cast_signed()).bind(i64::from(most));
        self.due(self.ask(select.fetch_all(&self.pool())).await?)
    }

    /// The schedules with the next slots, the first slot first, at most this many.
    pub async fn next_schedules(&self, most: u32) -> Result<Vec<DueSlot>, StoreError> {
        let select = format!("{DUE} WHERE next_at IS NOT NULL ORDER BY next_at, function_id, name LIMIT $1");
        let select = sqlx::query(AssertSqlSafe(select)).bind(i64::from(most));
        self.due(self.ask(select.fetch_all(&self.pool())).await?)
    }

    /// The first slot after `time` of all schedules, both in Unix seconds.
    pub async fn next_slot(&self, time: u64) -> Result<Option<u64>, StoreError> {
        let select =
            sqlx::query_scalar("SELECT min(next_at) FROM schedules WHERE next_at > $1").bind(time.cast_signed());
        let next: Option<i64> = self.ask(select.fetch_one(&self.pool())).await?;
        Ok(next.map(i64::cast_unsigned))
    }

    /// Makes a step of a schedule that has no run.
    pub async fn make_step(&self, step: &Step) -> Result<Taken, StoreError> {
        let made = async {
            let mut transaction = self.pool().begin().await?;
            let input = advance(&mut transaction, step).await?;
            transaction.commit().await?;
            Ok(if input.is_some() { Taken::Made } else { Taken::Elsewhere })
        };
        self.ask(made).await
    }

    /// Makes a step of a schedule, and writes down the step's run, with the schedule's input, as an invocation that
    /// this node has accepted: both, or none of the two. Where an earlier run has not ended and the policy says so, the
    /// step is made without the run.
    pub async fn take_slot(&self, step: &Step, record: &InvocationRecord) -> Result<Taken, StoreError> {
        let taken = async {
            let mut transaction = self.pool().begin().await?;
            if !self.lock_function(&mut transaction, step.function_id, "FOR KEY SHARE").await? {
                return Ok(Taken::Elsewhere);
            }
            let Some(input) = advance(&mut transaction, step).await? else { return Ok(Taken::Elsewhere) };
            if step.overlap == Overlap::Skip && has_open_run(&mut transaction, step).await? {
                let skip = sqlx::query(
                    "UPDATE schedules SET skipped_at = $1, skip_reason = $2 WHERE function_id = $3 AND name = $4",
                );
                let skip = skip.bind(step.run.unwrap_or(step.from).cast_signed()).bind(SkipReason::Overlap.name());
                let skip = skip.bind(step.function_id.to_string()).bind(step.name.as_str());
                skip.execute(&mut *transaction).await?;
                transaction.commit().await?;
                return Ok(Taken::Overlapped);
            }
            self.insert_run(&mut transaction, &step.name, record, input).await?;
            transaction.commit().await?;
            Ok(Taken::Made)
        };
        self.ask(taken).await
    }

    /// Writes down a run of a schedule apart from its slots, as an invocation that this node has accepted.
    pub async fn run_schedule(&self, name: &ScheduleName, record: &InvocationRecord) -> Result<Taken, StoreError> {
        let run = async {
            let mut transaction = self.pool().begin().await?;
            if !self.lock_function(&mut transaction, record.function_id, "FOR KEY SHARE").await? {
                return Ok(Taken::Elsewhere);
            }
            let input = sqlx::query_scalar("SELECT input FROM schedules WHERE function_id = $1 AND name = $2");
            let input = input.bind(record.function_id.to_string()).bind(name.as_str());
            let Some(input) = input.fetch_optional(&mut *transaction).await? else { return Ok(Taken::Elsewhere) };
            self.insert_run(&mut transaction, name, record, input).await?;
            transaction.commit().await?;
            Ok(Taken::Made)
        };
        self.ask(run).await
    }

    async fn insert_run(
        &self,
        connection: &mut AnyConnection,
        name: &ScheduleName,
        record: &InvocationRecord,
        input: Vec<u8>,
    ) -> Result<(), sqlx::Error> {
        let record = InvocationRecord { input: input.into(), ..record.clone() };
        self.insert_queued(connection, &record, true).await?;
        let last = sqlx::query("UPDATE schedules SET last_invocation = $1 WHERE function_id = $2 AND name = $3");
        let last = last.bind(record.id.to_string()).bind(record.function_id.to_string()).bind(name.as_str());
        last.execute(connection).await.map(drop)
    }

    /// Has a function stay until the end of the transaction. False where there is no such function.
    async fn lock_function(
        &self,
        connection: &mut AnyConnection,
        id: FunctionId,
        lock: &str,
    ) -> Result<bool, sqlx::Error> {
        let lock = match self.database {
            Database::Sqlite(_) => "",
            Database::Postgres(_) => lock,
        };
        let select = format!("SELECT id FROM functions WHERE id = $1 {lock}");
        let select = sqlx::query(AssertSqlSafe(select)).bind(id.to_string());
        Ok(select.fetch_optional(connection).await?.is_some())
    }

    fn due(&self, rows: Vec<AnyRow>) -> Result<Vec<DueSlot>, StoreError> {
        rows.iter().map(|row| due(row).ok_or_else(|| self.damaged(BAD_ROW))).collect()
    }
}

/// Makes the schedules that a function's version declares, and removes those that the version declares no more.
/// Schedules that clients have made stay, also under a declared name. False where the function then has too many.
pub(super) async fn declare(
    connection: &mut AnyConnection,
    id: FunctionId,
    declared: &[DeclaredSchedule],
) -> Result<bool, sqlx::Error> {
    let former = sqlx::query_scalar("SELECT name FROM schedules WHERE function_id = $1 AND declared = 1");
    let former: Vec<String> = former.bind(id.to_string()).fetch_all(&mut *connection).await?;
    for name in former.iter().filter(|name| declared.iter().all(|schedule| schedule.name.as_str() != *name)) {
        let delete = sqlx::query("DELETE FROM schedules WHERE function_id = $1 AND name = $2");
        delete.bind(id.to_string()).bind(name).execute(&mut *connection).await?;
    }
    for schedule in declared {
        write(connection, id, schedule, true).await?;
    }
    let all = sqlx::query_scalar("SELECT count(*) FROM schedules WHERE function_id = $1").bind(id.to_string());
    let all: i64 = all.fetch_one(connection).await?;
    Ok(all <= i64::from(MAX_SCHEDULES))
}

/// Makes or replaces a schedule. A declared schedule does not replace one that a client has made.
async fn write(
    connection: &mut AnyConnection,
    id: FunctionId,
    DeclaredSchedule { name, definition, now, next_at }: &DeclaredSchedule,
    is_declared: bool,
) -> Result<(), sqlx::Error> {
    let goes_on = "schedules.next_at IS NOT NULL AND excluded.next_at IS NOT NULL \
                   AND schedules.cron = excluded.cron AND schedules.timezone = excluded.timezone";
    let write = format!(
        "INSERT INTO schedules (function_id, name, cron, timezone, input, enabled, overlap, missed, next_at, \
         settled_at, declared) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (function_id, name) DO UPDATE SET \
         next_at = CASE WHEN {goes_on} THEN schedules.next_at ELSE excluded.next_at END, \
         settled_at = CASE WHEN {goes_on} THEN schedules.settled_at ELSE excluded.settled_at END, \
         cron = excluded.cron, timezone = excluded.timezone, input = excluded.input, \
         enabled = excluded.enabled, overlap = excluded.overlap, missed = excluded.missed, \
         declared = excluded.declared, revision = schedules.revision + 1 \
         WHERE excluded.declared = 0 OR schedules.declared = 1"
    );
    let write = sqlx::query(AssertSqlSafe(write))
        .bind(id.to_string())
        .bind(name.as_str())
        .bind(&definition.cron)
        .bind(&definition.timezone)
        .bind(&*definition.input)
        .bind(i64::from(definition.is_enabled))
        .bind(definition.overlap.name())
        .bind(definition.missed.name())
        .bind(next_at.map(u64::cast_signed))
        .bind(now.cast_signed())
        .bind(i64::from(is_declared));
    write.execute(connection).await.map(drop)
}

/// Moves a schedule on from the slot and the definition that the step is based on. Returns the schedule's input; None
/// when the schedule is not as the step says.
async fn advance(connection: &mut AnyConnection, step: &Step) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let advance = sqlx::query_scalar(
        "UPDATE schedules SET next_at = $1, settled_at = $2, skipped_at = coalesce(CAST($3 AS BIGINT), skipped_at), \
         skip_reason = coalesce(CAST($4 AS TEXT), skip_reason) \
         WHERE function_id = $5 AND name = $6 AND revision = $7 AND next_at = $8 RETURNING input",
    );
    let advance = advance
        .bind(step.next_at.map(u64::cast_signed))
        .bind(step.settled_at.cast_signed())
        .bind(step.skipped.map(|skipped| skipped.slot.cast_signed()))
        .bind(step.skipped.map(|skipped| skipped.reason.name()))
        .bind(step.function_id.to_string())
        .bind(step.name.as_str())
        .bind(step.revision.cast_signed())
        .bind(step.from.cast_signed());
    advance.fetch_optional(connection).await
}

async fn has_open_run(connection: &mut AnyConnection, step: &Step) -> Result<bool, sqlx::Error> {
    let open = sqlx::query_scalar(
        "SELECT count(*) FROM invocations WHERE function_id = $1 AND begun_by = $2 \
         AND outcome IN ('queued', 'running') AND begun_by IS NOT NULL",
    );
    let trigger = Trigger::Schedule(step.name.to_string()).to_string();
    let open: i64 = open.bind(step.function_id.to_string()).bind(trigger).fetch_one(connection).await?;
    Ok(open > 0)
}

/// None when a value has a form that this program does not write.
fn due(row: &AnyRow) -> Option<DueSlot> {
    Some(DueSlot {
        function_id: row.try_get::<String, _>("function_id").ok()?.parse().ok()?,
        name: row.try_get::<String, _>("name").ok()?.parse().ok()?,
        revision: row.try_get::<i64, _>("revision").ok()?.cast_unsigned(),
        cron: row.try_get("cron").ok()?,
        timezone: row.try_get("timezone").ok()?,
        overlap: Overlap::from_name(&row.try_get::<String, _>("overlap").ok()?)?,
        missed: Missed::from_name(&row.try_get::<String, _>("missed").ok()?)?,
        slot: row.try_get::<i64, _>("next_at").ok()?.cast_unsigned(),
    })
}

/// None when a value has a form that this program does not write.
fn shown(row: &AnyRow) -> Option<Schedule> {
    let number = |column: &str| row.try_get::<Option<i64>, _>(column).ok().map(|number| number.map(i64::cast_unsigned));
    let text = |column: &str| row.try_get::<Option<String>, _>(column).ok();
    let last_skipped = match (number("skipped_at")?, text("skip_reason")?) {
        (Some(slot), Some(reason)) => Some(Skipped { slot, reason: SkipReason::from_name(&reason)? }),
        _ => None,
    };
    let last_invocation = match text("last_invocation")? {
        Some(id) => Some(id.parse().ok()?),
        None => None,
    };
    let last_outcome = match text("outcome")? {
        Some(name) => Some(Outcome::from_name(&name)?),
        None => None,
    };
    Some(Schedule {
        function_id: text("function_id")??.parse().ok()?,
        name: text("name")??.parse().ok()?,
        definition: Definition {
            cron: text("cron")??,
            timezone: text("timezone")??,
            input: row.try_get::<Vec<u8>, _>("input").ok()?.into(),
            is_enabled: number("enabled")?? != 0,
            overlap: Overlap::from_name(&text("overlap")??)?,
            missed: Missed::from_name(&text("missed")??)?,
        },
        is_declared: number("declared")?? != 0,
        next_at: number("next_at")?,
        last_invocation,
        last_outcome,
        last_skipped,
    })
}
