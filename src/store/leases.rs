//! Leases as rows: work that one node does for all.

use sqlx::AssertSqlSafe;

use super::{Store, StoreError};

impl Store {
    /// Takes the lease of this name, or keeps the lease. False when another live node has the lease. The lease ends
    /// with the process, or when the process loses its place among the nodes.
    pub async fn take_lease(&self, name: &str) -> Result<bool, StoreError> {
        if !self.is_shared() {
            return Ok(true);
        }
        let take = format!(
            "INSERT INTO leases (name, run) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET run = excluded.run \
             WHERE leases.run = excluded.run OR NOT {}",
            self.is_live("leases.run")
        );
        let take = sqlx::query(AssertSqlSafe(take)).bind(name).bind(self.run());
        Ok(self.ask(take.execute(&self.pool())).await?.rows_affected() > 0)
    }

    /// Gives the lease of this name back.
    pub async fn give_lease(&self, name: &str) -> Result<(), StoreError> {
        let delete = sqlx::query("DELETE FROM leases WHERE name = $1 AND run = $2").bind(name).bind(self.run());
        self.ask(delete.execute(&self.pool())).await.map(drop)
    }
}
