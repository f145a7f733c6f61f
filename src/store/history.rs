//! A flush of the history: rows of invocations that have ended, and counts of executions.

use std::collections::HashSet;

use sqlx::{AnyConnection, AssertSqlSafe};

use super::invocations::{RESULT, bind_row};
use super::{Database, Store, StoreError};
use crate::domain::{Executions, FunctionId, InvocationRecord};

/// The largest number of rows of a statement. SQLite takes 32,766 values in one statement.
const ROWS: usize = 100;

/// The size of a statement's inputs and outputs, in bytes, from which on the next row is in the next statement.
const BYTES: usize = 4 << 20;

/// The number of values of a row.
const VALUES: usize = 19;

impl Store {
    /// Writes down invocations, and adds to the functions' counts of executions, together. Rows of deleted functions
    /// are left out. A flush that is tried again, as its answer was lost, adds nothing twice: rows have their ids, and
    /// counts have the number of their flush, which grows from flush to flush of this process.
    pub async fn insert_invocations(
        &self,
        records: &[InvocationRecord],
        executed: &[(FunctionId, Executions)],
        flush: u64,
    ) -> Result<(), StoreError> {
        let inserted = async {
            let mut transaction = self.pool().begin().await?;
            let mut rest = records;
            while !rest.is_empty() {
                let (together, later) = rest.split_at(fitting(rest));
                self.insert_rows(&mut transaction, together).await?;
                rest = later;
            }
            if !executed.is_empty() && self.is_first(&mut transaction, flush).await? {
                add_executions(&mut transaction, executed).await?;
            }
            transaction.commit().await
        };
        self.ask(inserted).await
    }

    /// Notes the flush. False when the flush is written down already. Another try of the same flush that is under way
    /// is waited for. A file answers for each commit, so there no flush is tried again after the commit.
    pub(super) async fn is_first(&self, connection: &mut AnyConnection, flush: u64) -> Result<bool, sqlx::Error> {
        if !self.is_shared() {
            return Ok(true);
        }
        let note = format!(
            "INSERT INTO flushes (run, number, noted_at) VALUES ($1, $2, {}) ON CONFLICT (run) DO UPDATE SET \
             number = excluded.number, noted_at = excluded.noted_at WHERE flushes.number < excluded.number",
            self.now()
        );
        let noted =
            sqlx::query(AssertSqlSafe(note)).bind(self.run()).bind(flush.cast_signed()).execute(connection).await?;
        Ok(noted.rows_affected() > 0)
    }

    async fn insert_rows(
        &self,
        connection: &mut AnyConnection,
        records: &[InvocationRecord],
    ) -> Result<(), sqlx::Error> {
        let ids: HashSet<String> = records.iter().map(|record| record.function_id.to_string()).collect();
        let there = self.lock_functions(connection, &ids).await?;
        let records: Vec<_> = records.iter().filter(|record| there.contains(&record.function_id.to_string())).collect();
        if records.is_empty() {
            return Ok(());
        }
        let rows: Vec<String> =
            (0..records.len()).map(|row| format!("({}, {})", self.places(row * VALUES, VALUES), self.now())).collect();
        let insert = format!(
            "INSERT INTO invocations ({RESULT}, id, created_at, input, begun_by, function_id, recorded_at) VALUES {} \
             ON CONFLICT (id) DO NOTHING",
            rows.join(", ")
        );
        // Each number of rows is another statement, which the connection need not keep.
        let insert = sqlx::query(AssertSqlSafe(insert)).persistent(false);
        records.into_iter().fold(insert, bind_row).execute(connection).await.map(drop)
    }

    /// Those of these functions that are there, and stay until the end of the transaction.
    async fn lock_functions(
        &self,
        connection: &mut AnyConnection,
        ids: &HashSet<String>,
    ) -> Result<HashSet<String>, sqlx::Error> {
        let lock = match self.database {
            Database::Sqlite(_) => "",
            // As the reference of a row to its function does.
            Database::Postgres(_) => "ORDER BY id FOR KEY SHARE",
        };
        let select = format!("SELECT id FROM functions WHERE id IN ({}) {lock}", self.places(0, ids.len()));
        let select = sqlx::query_scalar::<_, String>(AssertSqlSafe(select)).persistent(false);
        let there = ids.iter().fold(select, |select, id| select.bind(id)).fetch_all(connection).await?;
        Ok(there.into_iter().collect())
    }

    /// The places of `count` values in a statement, behind `before` others. SQLite takes `$1` for a name and searches
    /// the list of all names for each value: with names, a flush of many rows takes a fifth of the service's time.
    fn places(&self, before: usize, count: usize) -> String {
        match self.database {
            Database::Sqlite(_) => vec!["?"; count].join(", "),
            Database::Postgres(_) => {
                let places: Vec<String> = (before + 1..=before + count).map(|place| format!("${place}")).collect();
                places.join(", ")
            }
        }
    }
}

/// How many of the first records go into one statement.
fn fitting(records: &[InvocationRecord]) -> usize {
    let mut bytes = 0;
    let fits = |record: &&InvocationRecord| {
        let fits = bytes < BYTES;
        bytes += record.input.len() + record.stdout.len() + record.stderr.len();
        fits
    };
    records.iter().take(ROWS).take_while(fits).count()
}

async fn add_executions(
    connection: &mut AnyConnection,
    executed: &[(FunctionId, Executions)],
) -> Result<(), sqlx::Error> {
    // Two nodes that write at the same time lock the rows in the same order.
    let mut executed = executed.to_vec();
    executed.sort_unstable_by_key(|&(id, _)| id);
    for (id, executions) in &executed {
        // The time must not go back, where another node was later.
        let add = "UPDATE functions SET executions = executions + $1, last_executed = \
                   CASE WHEN last_executed > $2 THEN last_executed ELSE $2 END WHERE id = $3";
        sqlx::query(add)
            .bind(executions.count.cast_signed())
            .bind(executions.last.map(u64::cast_signed))
            .bind(id.to_string())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
