//! Invocations as rows.

use std::time::Duration;

use bytes::Bytes;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row};

use super::answer::ANSWER_LIMIT;
use super::{Store, StoreError};
use crate::domain::{Destined, InvocationId, InvocationRecord, Open, Outcome, Own, Trigger};

impl Store {
    /// Writes down the next state of an invocation whose state is `from`, and what is to be told of an end. With
    /// `attempt` this node must have that claim on the invocation. False when the invocation has another state, or
    /// another claim.
    pub async fn update_invocation(
        &self,
        record: &InvocationRecord,
        from: Outcome,
        attempt: Option<u32>,
    ) -> Result<bool, StoreError> {
        let updated = sqlx::query(
            "UPDATE invocations SET outcome = $1, version = $2, executed_at = $3, exit_code = $4, error = $5, \
             start = $6, truncated = $7, queued_us = $8, duration_us = $9, cpu_us = $10, peak_memory = $11, \
             network = $12, stdout = $13, stderr = $14 WHERE id = $15 AND outcome = $16 \
             AND ($17 < 0 OR (attempt = $17 AND node = $18))",
        );
        let updated = bind_result(updated, record)
            .bind(from.name())
            // A file has one process, whose rows nobody else takes over.
            .bind(attempt.filter(|_| self.is_shared()).map_or(-1, i64::from))
            .bind(self.run());
        let update = async {
            if self.is_told(record).await? {
                return self.end_told(updated, record).await;
            }
            Ok(updated.execute(&self.pool()).await?.rows_affected() > 0)
        };
        self.ask(update).await
    }

    /// An invocation. None when there is no invocation of this id.
    pub async fn invocation(&self, id: InvocationId) -> Result<Option<InvocationRecord>, StoreError> {
        let select =
            format!("SELECT id, function_id, created_at, input, begun_by, {RESULT} FROM invocations WHERE id = $1");
        let select = sqlx::query(AssertSqlSafe(select)).bind(id.to_string());
        let row = self.ask(select.fetch_optional(&self.pool())).await?;
        row.map(|row| record(&row).ok_or_else(|| self.damaged(BAD_ROW))).transpose()
    }

    /// The outcome of an invocation. None when there is no invocation of this id.
    pub async fn outcome(&self, id: InvocationId) -> Result<Option<Outcome>, StoreError> {
        let select = sqlx::query_scalar("SELECT outcome FROM invocations WHERE id = $1").bind(id.to_string());
        let outcome: Option<String> = self.ask(select.fetch_optional(&self.pool())).await?;
        outcome.map(|name| Outcome::from_name(&name).ok_or_else(|| self.damaged(BAD_ROW))).transpose()
    }

    /// The highest number of an invocation; 0 where there is none.
    pub async fn last_invocation(&self) -> Result<u64, StoreError> {
        let last = sqlx::query_scalar::<_, Option<i64>>("SELECT max(number) FROM invocations");
        Ok(self.ask(last.fetch_one(&self.pool())).await?.unwrap_or_default().cast_unsigned())
    }

    /// Takes over invocations that wait for their turn and belong to no process on the list, at most this many: the
    /// oldest of each process first. Invocations that ran on such a process become lost. With `lapsed`, a process whose
    /// lease has run out counts as not on the list.
    pub async fn adopt_invocations(&self, most: u32, lapsed: bool) -> Result<Vec<Open>, StoreError> {
        let adopted = async {
            let mut rows = Vec::new();
            for run in self.gone_runs(lapsed).await? {
                self.lose_invocations(OF_A_RUN, &run).await?;
                let left = most.saturating_sub(u32::try_from(rows.len()).unwrap_or(most));
                if self.is_shared() && left > 0 {
                    // Two nodes that look at the same time take different rows.
                    let adopt = format!(
                        "UPDATE invocations SET node = $1, attempt = attempt + 1 WHERE number IN \
                         (SELECT number FROM invocations WHERE {OF_A_RUN} = $2 AND outcome = $3 \
                         ORDER BY number LIMIT $4 FOR UPDATE SKIP LOCKED) \
                         RETURNING number, id, function_id, attempt, tries, retry_at"
                    );
                    let adopt = sqlx::query(AssertSqlSafe(adopt)).bind(self.run()).bind(&run);
                    let adopt = adopt.bind(Outcome::Queued.name()).bind(i64::from(left));
                    rows.extend(adopt.fetch_all(&self.pool()).await?);
                }
            }
            if !self.is_shared() {
                // What waits is read only: a start on a full disk goes on with what was accepted.
                let select = "SELECT number, id, function_id, attempt, tries, retry_at FROM invocations \
                              WHERE outcome IN ('queued', 'running') AND outcome = $1 ORDER BY number";
                rows = sqlx::query(select).bind(Outcome::Queued.name()).fetch_all(&self.pool()).await?;
            }
            Ok(rows)
        };
        let rows = self.ask(adopted).await?;
        let numbered = rows.iter().map(|row| Some((row.try_get::<i64, _>("number").ok()?, open(row)?)));
        let mut found: Vec<_> = numbered.collect::<Option<_>>().ok_or_else(|| self.damaged(BAD_ROW))?;
        found.sort_unstable_by_key(|&(number, _)| number);
        Ok(found.into_iter().map(|(_, open)| open).collect())
    }

    /// The runs of open invocations that are not those of processes on the list; empty for a row from before there were
    /// runs. The query goes from run to run in the index, so that a long queue costs no more than a short one.
    async fn gone_runs(&self, lapsed: bool) -> Result<Vec<String>, sqlx::Error> {
        let next = |of: &str| format!("(SELECT min(coalesce(node, '')) FROM invocations WHERE {of})");
        let runs = format!(
            "WITH RECURSIVE runs (run) AS (SELECT {} UNION ALL SELECT {} FROM runs WHERE run IS NOT NULL) \
             SELECT run FROM runs WHERE run IS NOT NULL AND {}",
            next("outcome IN ('queued', 'running')"),
            next(&format!("{OF_A_RUN} > runs.run")),
            self.is_orphan("runs.run", lapsed)
        );
        sqlx::query_scalar(AssertSqlSafe(runs)).fetch_all(&self.pool()).await
    }

    /// Invocations that wait for their turn on this node, or run here, by the store, and were written more than a while
    /// ago: the oldest first, at most this many, from behind the row with the number `after`. The node may have
    /// forgotten an invocation, where the answer of the store was lost.
    pub async fn own_invocations(&self, after: u64, most: u32) -> Result<Vec<Own>, StoreError> {
        let select = format!(
            "SELECT number, outcome, id, function_id, attempt, tries, retry_at FROM invocations \
             WHERE {OF_A_RUN} = $1 AND number > $2 AND recorded_at < {} - {} ORDER BY number LIMIT $3",
            self.now(),
            2 * ANSWER_LIMIT.as_millis()
        );
        let select = sqlx::query(AssertSqlSafe(select)).bind(self.run()).bind(after.cast_signed());
        let rows = self.ask(select.bind(i64::from(most)).fetch_all(&self.pool())).await?;
        let own = |row: &AnyRow| {
            let number = row.try_get::<i64, _>("number").ok()?.cast_unsigned();
            let outcome = Outcome::from_name(&row.try_get::<String, _>("outcome").ok()?)?;
            Some(Own { number, outcome, open: open(row)? })
        };
        rows.iter().map(|row| own(row).ok_or_else(|| self.damaged(BAD_ROW))).collect()
    }

    /// Those of these invocations that are cancelled.
    pub async fn cancelled_invocations(&self, ids: &[InvocationId]) -> Result<Vec<InvocationId>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<String> = (2..ids.len() + 2).map(|place| format!("${place}")).collect();
        let select = format!("SELECT id FROM invocations WHERE outcome = $1 AND id IN ({})", places.join(", "));
        let mut select = sqlx::query_scalar::<_, String>(AssertSqlSafe(select)).bind(Outcome::Cancelled.name());
        for id in ids {
            select = select.bind(id.to_string());
        }
        let found = self.ask(select.fetch_all(&self.pool())).await?;
        found.iter().map(|id| id.parse().map_err(|_| self.damaged(BAD_ROW))).collect()
    }

    /// Notes how often a queued invocation could not begin, and the time of its next try in Unix milliseconds.
    pub async fn retry_invocation(&self, id: InvocationId, tries: u32, retry_at: u64) -> Result<(), StoreError> {
        let update = sqlx::query("UPDATE invocations SET tries = $1, retry_at = $2 WHERE id = $3 AND outcome = $4");
        let update = update
            .bind(i64::from(tries))
            .bind(retry_at.cast_signed())
            .bind(id.to_string())
            .bind(Outcome::Queued.name());
        self.ask(update.execute(&self.pool())).await.map(drop)
    }

    /// Notes that a client was promised that an invocation runs. False when the invocation was taken back.
    pub async fn promise_invocation(&self, id: InvocationId) -> Result<bool, StoreError> {
        let update = sqlx::query("UPDATE invocations SET promised = 1 WHERE id = $1").bind(id.to_string());
        let updated = self.ask(update.execute(&self.pool())).await?;
        Ok(updated.rows_affected() > 0)
    }

    /// Forgets a queued invocation of this node that was promised to no client, with its key. False when there is no
    /// such invocation.
    pub async fn take_back_invocation(&self, id: InvocationId) -> Result<bool, StoreError> {
        let delete = sqlx::query(
            "DELETE FROM invocations WHERE id = $1 AND outcome = $2 AND promised = 0 AND ($3 = '' OR node = $3)",
        );
        let run = if self.is_shared() { self.run() } else { "" };
        let delete = delete.bind(id.to_string()).bind(Outcome::Queued.name()).bind(run);
        Ok(self.ask(delete.execute(&self.pool())).await?.rows_affected() > 0)
    }

    /// Removes some of the invocations that ended before `before`, in Unix milliseconds, or came before the last
    /// `most`. False when no such invocation is left. An invocation with a key stays as long as the key, and the last
    /// run of a schedule until the next one.
    pub async fn prune_invocations(&self, before: u64, most: u64) -> Result<bool, StoreError> {
        const MAY_GO: &str = "outcome NOT IN ('queued', 'running') AND NOT EXISTS \
                              (SELECT 1 FROM idempotency_keys WHERE invocation_id = invocations.id) AND NOT EXISTS \
                              (SELECT 1 FROM schedules WHERE last_invocation = invocations.id)";
        let prune = async {
            let last: Option<i64> =
                sqlx::query_scalar("SELECT max(number) FROM invocations").fetch_one(&self.pool()).await?;
            let cutoff = last.unwrap_or_default().saturating_sub(most.cast_signed());
            let mut pruned = 0;
            // Each condition has its own index, so that rows which stay cost no time.
            for (condition, value) in [("created_at < $1", before.cast_signed()), ("number <= $1", cutoff)] {
                let chosen =
                    format!("SELECT number FROM invocations WHERE {condition} AND {MAY_GO} LIMIT {PRUNED_AT_ONCE}");
                let delete = format!("DELETE FROM invocations WHERE number IN ({chosen})");
                let delete = sqlx::query(AssertSqlSafe(delete)).bind(value).execute(&self.pool()).await?;
                pruned = delete.rows_affected().max(pruned);
            }
            Ok(pruned >= u64::from(PRUNED_AT_ONCE))
        };
        self.ask(prune).await
    }

    /// Writes down an invocation that this node has accepted. False when there is no such function.
    pub(super) async fn insert_queued(
        &self,
        connection: &mut AnyConnection,
        record: &InvocationRecord,
        promised: bool,
    ) -> Result<bool, sqlx::Error> {
        if self.insert_invocation(connection, record).await? == 0 {
            return Ok(false);
        }
        let claim = sqlx::query("UPDATE invocations SET promised = $1, node = $2, attempt = 1 WHERE id = $3");
        let claim = claim.bind(i64::from(promised)).bind(self.run()).bind(record.id.to_string());
        claim.execute(connection).await?;
        Ok(true)
    }

    /// Returns the number of written rows: 0 when there is no such function.
    async fn insert_invocation(
        &self,
        connection: &mut AnyConnection,
        record: &InvocationRecord,
    ) -> Result<u64, sqlx::Error> {
        let insert = format!(
            "INSERT INTO invocations ({RESULT}, id, created_at, input, begun_by, function_id, recorded_at) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, id, {} \
             FROM functions WHERE id = $19 ON CONFLICT (id) DO NOTHING",
            self.now()
        );
        let inserted = bind_row(sqlx::query(AssertSqlSafe(insert)), record).execute(connection).await?;
        Ok(inserted.rows_affected())
    }
}

/// An open invocation's run, to be compared: the index has only the open ones.
const OF_A_RUN: &str = "outcome IN ('queued', 'running') AND coalesce(node, '')";
/// The number of rows at a time, so that no other statement waits long for the connection.
const PRUNED_AT_ONCE: u32 = 1000;
pub(super) const BAD_ROW: &str = "an invocation's row has values that can't be";

/// The columns of what an invocation came to.
pub(super) const RESULT: &str = "outcome, version, executed_at, exit_code, error, start, truncated, queued_us, \
                                 duration_us, cpu_us, peak_memory, network, stdout, stderr";

/// Binds a new row: the values of [`bind_result`], and then what never changes.
pub(super) fn bind_row<'q>(
    insert: Query<'q, Any, AnyArguments>,
    record: &'q InvocationRecord,
) -> Query<'q, Any, AnyArguments> {
    bind_result(insert, record)
        .bind(record.created_at.cast_signed())
        .bind(&*record.input)
        .bind(Some(record.trigger.to_string()).filter(|_| record.trigger != Trigger::Api))
        .bind(record.function_id.to_string())
}

/// Binds 15 values: those of [`RESULT`], and the invocation's id.
fn bind_result<'q>(query: Query<'q, Any, AnyArguments>, record: &'q InvocationRecord) -> Query<'q, Any, AnyArguments> {
    query
        .bind(record.outcome.name())
        .bind(record.version.map(i64::from))
        .bind(record.executed_at.map(u64::cast_signed))
        .bind(record.exit_code.map(i64::from))
        .bind(&record.error)
        .bind(&record.start)
        .bind(i64::from(record.truncated))
        .bind(micros(record.queued))
        .bind(micros(record.duration))
        .bind(micros(record.cpu))
        .bind(record.peak_memory.map(u64::cast_signed))
        .bind(network(&record.network))
        .bind(&*record.stdout)
        .bind(&*record.stderr)
        .bind(record.id.to_string())
}

fn micros(duration: Option<Duration>) -> Option<i64> {
    duration.map(|duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}

/// Connections as JSON; None where there was none.
fn network(destinations: &[Destined]) -> Option<String> {
    let json = || serde_json::to_string(destinations).expect("texts and numbers can be written as JSON");
    (!destinations.is_empty()).then(json)
}

/// None when a value has a form that this program does not write.
fn open(row: &AnyRow) -> Option<Open> {
    Some(Open {
        id: row.try_get::<String, _>("id").ok()?.parse().ok()?,
        attempt: u32::try_from(row.try_get::<i64, _>("attempt").ok()?).ok()?,
        function_id: row.try_get::<String, _>("function_id").ok()?.parse().ok()?,
        tries: u32::try_from(row.try_get::<i64, _>("tries").ok()?).ok()?,
        retry_at: row.try_get::<Option<i64>, _>("retry_at").ok()?.map(i64::cast_unsigned),
    })
}

/// None when a value has a form that this program does not write.
fn record(row: &AnyRow) -> Option<InvocationRecord> {
    let bytes = |column: &str| row.try_get::<Vec<u8>, _>(column).ok().map(Bytes::from);
    let (input, stdout, stderr) = (bytes("input")?, bytes("stdout")?, bytes("stderr")?);
    Some(InvocationRecord { input, stdout, stderr, ..without_output(row)? })
}

/// A record whose input and output are left empty.
pub(super) fn without_output(row: &AnyRow) -> Option<InvocationRecord> {
    let number = |column: &str| row.try_get::<Option<i64>, _>(column).ok().map(|number| number.map(i64::cast_unsigned));
    let time = |column: &str| number(column).map(|micros| micros.map(Duration::from_micros));
    Some(InvocationRecord {
        id: row.try_get::<String, _>("id").ok()?.parse().ok()?,
        function_id: row.try_get::<String, _>("function_id").ok()?.parse().ok()?,
        version: match row.try_get::<Option<i64>, _>("version").ok()? {
            Some(number) => Some(u32::try_from(number).ok()?),
            None => None,
        },
        trigger: match row.try_get::<Option<String>, _>("begun_by").ok()? {
            Some(name) => Trigger::from_name(&name)?,
            None => Trigger::Api,
        },
        outcome: Outcome::from_name(&row.try_get::<String, _>("outcome").ok()?)?,
        created_at: number("created_at")??,
        executed_at: number("executed_at")?,
        exit_code: match row.try_get::<Option<i64>, _>("exit_code").ok()? {
            Some(code) => Some(i32::try_from(code).ok()?),
            None => None,
        },
        error: row.try_get("error").ok()?,
        start: row.try_get("start").ok()?,
        truncated: row.try_get::<i64, _>("truncated").ok()? != 0,
        queued: time("queued_us")?,
        duration: time("duration_us")?,
        cpu: time("cpu_us")?,
        peak_memory: number("peak_memory")?,
        network: match row.try_get::<Option<String>, _>("network").ok()? {
            Some(json) => serde_json::from_str(&json).ok()?,
            None => Vec::new(),
        },
        input: Bytes::new(),
        stdout: Bytes::new(),
        stderr: Bytes::new(),
    })
}
