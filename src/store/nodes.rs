//! Nodes as rows: the processes that serve from the store.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Row};

use super::{Database, Store, StoreError};
use crate::domain::{Heartbeat, InvocationId, Node, Outcome, Seen, Whereabouts};

/// How long a node counts as live after a heartbeat. A node that has not reached the store for this long executes
/// nothing until it has.
pub const LEASE: Duration = Duration::from_secs(10);

/// How long a node that is gone stays in the list.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// The time after which the flushes of a process that is gone are forgotten. A process that was cut off for less than
/// this time can't count its last flush twice.
const FORGET_FLUSHES_AFTER: Duration = Duration::from_hours(24 * 7);

const BAD_ROW: &str = "a row of a node or an invocation has values that can't be";

impl Store {
    /// Makes this process known, before the process works on any row. The process must send heartbeats from then on.
    /// A process alone is known without a row: a start needs no room on the disk.
    ///
    /// Returns the last heartbeat of another process with this id that seems to live: then nothing is done. The run
    /// `ended` does not live. Of several processes with one id that start at one time, one joins.
    pub async fn join(&self, id: &str, url: Option<&str>, ended: Option<&str>) -> Result<Option<u64>, StoreError> {
        if !self.is_shared() {
            return Ok(None);
        }
        let joined = async {
            let mut transaction = self.pool().begin().await?;
            let alone = sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))").bind(id);
            alone.execute(&mut *transaction).await?;
            let other = format!(
                "SELECT max(seen_at) FROM nodes WHERE id = $1 AND run <> $2 AND run <> $3 AND {}",
                self.is_seen()
            );
            let other = sqlx::query_scalar(AssertSqlSafe(other)).bind(id).bind(self.run());
            let other: Option<i64> = other.bind(ended.unwrap_or_default()).fetch_one(&mut *transaction).await?;
            if let Some(heartbeat) = other {
                return Ok(Some(heartbeat.cast_unsigned()));
            }
            sqlx::query("DELETE FROM nodes WHERE id = $1").bind(id).execute(&mut *transaction).await?;
            let insert =
                format!("INSERT INTO nodes (run, id, url, version, seen_at) VALUES ($1, $2, $3, $4, {})", self.now());
            let insert = sqlx::query(AssertSqlSafe(insert)).bind(self.run()).bind(id).bind(url);
            insert.bind(env!("CARGO_PKG_VERSION")).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(None)
        };
        self.ask(joined).await
    }

    /// Renews this node's place among the nodes, and tells how others saw the node until now.
    pub async fn beat(&self, beat: &Heartbeat) -> Result<Seen, StoreError> {
        for (condition, seen) in [(self.is_seen(), Seen::Live), ("run = run".to_owned(), Seen::Lapsed)] {
            let update = format!(
                "UPDATE nodes SET seen_at = {}, instances = $1, is_ready = $2, applied = $3 \
                 WHERE run = $4 AND {condition}",
                self.now()
            );
            let update = sqlx::query(AssertSqlSafe(update)).bind(i64::from(beat.instances));
            let update = update.bind(i64::from(beat.is_ready)).bind(beat.applied.cast_signed()).bind(self.run());
            if self.ask(update.execute(&self.control())).await?.rows_affected() > 0 {
                return Ok(seen);
            }
        }
        Ok(Seen::Gone)
    }

    /// Takes this process off the list, at its end: what the process had is free at once.
    pub async fn leave(&self) -> Result<(), StoreError> {
        let delete = sqlx::query("DELETE FROM nodes WHERE run = $1").bind(self.run());
        self.ask(delete.execute(&self.pool())).await.map(drop)
    }

    /// All nodes that were seen lately, in the order of their ids.
    pub async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        let select = format!(
            "SELECT id, run, url, version, instances, is_ready, {now} - seen_at AS age, seen_at FROM nodes \
             WHERE seen_at > {now} - {} ORDER BY id",
            FORGET_AFTER.as_millis(),
            now = self.now(),
        );
        let rows = self.ask(sqlx::query(AssertSqlSafe(select)).fetch_all(&self.pool())).await?;
        let node = |row: &sqlx::any::AnyRow| {
            Some(Node {
                id: row.try_get("id").ok()?,
                run: row.try_get("run").ok()?,
                url: row.try_get("url").ok()?,
                version: row.try_get("version").ok()?,
                seen_at: row.try_get::<i64, _>("seen_at").ok()?.cast_unsigned(),
                instances: u32::try_from(row.try_get::<i64, _>("instances").ok()?).ok()?,
                is_ready: row.try_get::<i64, _>("is_ready").ok()? != 0,
                is_live: row.try_get::<i64, _>("age").ok()? < LEASE.as_millis().try_into().ok()?,
            })
        };
        rows.iter().map(|row| node(row).ok_or_else(|| self.damaged("a node's row has values that can't be"))).collect()
    }

    /// The URLs of all nodes on the list.
    pub async fn node_urls(&self) -> Result<Vec<String>, StoreError> {
        let select = sqlx::query_scalar("SELECT url FROM nodes WHERE url IS NOT NULL");
        self.ask(select.fetch_all(&self.control())).await
    }

    /// Forgets nodes that are gone for long, and what they have flushed.
    pub async fn prune_nodes(&self) -> Result<(), StoreError> {
        if !self.is_shared() {
            return Ok(());
        }
        let prune = format!("DELETE FROM nodes WHERE seen_at < {} - {}", self.now(), FORGET_AFTER.as_millis());
        self.ask(sqlx::query(AssertSqlSafe(prune)).execute(&self.pool())).await?;
        let prune = format!(
            "DELETE FROM flushes WHERE noted_at < {} - {} AND NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.run = \
             flushes.run)",
            self.now(),
            FORGET_FLUSHES_AFTER.as_millis()
        );
        self.ask(sqlx::query(AssertSqlSafe(prune)).execute(&self.pool())).await.map(drop)
    }

    /// Whether another live node has not taken over the change with this number.
    pub async fn is_change_pending(&self, change: u64) -> Result<bool, StoreError> {
        let select = format!("SELECT count(*) FROM nodes WHERE applied < $1 AND run <> $2 AND {}", self.is_seen());
        let pending = sqlx::query_scalar::<_, i64>(AssertSqlSafe(select)).bind(change.cast_signed()).bind(self.run());
        Ok(self.ask(pending.fetch_one(&self.control())).await? > 0)
    }

    /// Where these invocations are. Invocations without a row are left out.
    pub async fn whereabouts(&self, ids: &[InvocationId]) -> Result<Vec<Whereabouts>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<String> = (1..=ids.len()).map(|place| format!("${place}")).collect();
        let select = format!(
            "SELECT id, outcome, node, (SELECT url FROM nodes WHERE nodes.run = invocations.node AND {}) AS url \
             FROM invocations WHERE id IN ({})",
            self.is_seen(),
            places.join(", ")
        );
        let mut select = sqlx::query(AssertSqlSafe(select));
        for id in ids {
            select = select.bind(id.to_string());
        }
        let rows = self.ask(select.fetch_all(&self.pool())).await?;
        let whereabouts = |row: &sqlx::any::AnyRow| {
            Some(Whereabouts {
                id: row.try_get::<String, _>("id").ok()?.parse().ok()?,
                outcome: Outcome::from_name(&row.try_get::<String, _>("outcome").ok()?)?,
                run: row.try_get("node").ok()?,
                url: row.try_get("url").ok()?,
            })
        };
        let found = rows.iter().map(|row| whereabouts(row).ok_or_else(|| self.damaged(BAD_ROW)));
        found.collect()
    }

    /// The condition that the column names the run of a live node, as SQL. Of a file's processes only this one lives.
    pub(super) fn is_live(&self, column: &str) -> String {
        match self.database {
            Database::Sqlite(_) => format!("coalesce({column} = '{}', false)", self.run),
            Database::Postgres(_) => {
                format!("EXISTS (SELECT 1 FROM nodes WHERE nodes.run = {column} AND {})", self.is_seen())
            }
        }
    }

    /// The condition that the column names the run of no process that is on the list, as SQL. With `lapsed`, a process
    /// whose lease has run out counts as not on the list.
    pub(super) fn is_orphan(&self, column: &str, lapsed: bool) -> String {
        if lapsed || !self.is_shared() {
            format!("NOT {}", self.is_live(column))
        } else {
            format!("NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.run = {column})")
        }
    }

    fn is_seen(&self) -> String {
        format!("nodes.seen_at > {} - {}", self.now(), LEASE.as_millis())
    }
}
