//! The receiver of a function's notifications, as columns of the function's row.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::notifications::give_up_all;
use super::{Store, StoreError};
use crate::config::Secret;
use crate::domain::FunctionId;
use crate::domain::settings::notify::{Notify, Target};

/// The place of the key among a function's secrets, which no variable can have as its name.
pub(super) const KEY: &str = "of `notify`";

/// The columns of a receiver.
pub(super) const COLUMNS: &str = "notify_url, notify_on, notify_key, notify_sealed";

impl Store {
    /// Writes down the receiver of a function's notifications. What waits is given up where there is no receiver, and
    /// goes to the new receiver where there is another.
    pub(super) async fn set_notify(
        &self,
        connection: &mut AnyConnection,
        function: &str,
        notify: Option<&Notify>,
    ) -> Result<(), sqlx::Error> {
        let (key, is_sealed) = match notify {
            Some(notify) => {
                let (key, is_sealed) = self.sealed(function, KEY, &notify.key.0);
                (Some(key), is_sealed)
            }
            None => (None, false),
        };
        let set = sqlx::query(
            "UPDATE functions SET notify_url = $1, notify_on = $2, notify_key = $3, notify_sealed = $4 WHERE id = $5",
        );
        let set = set.bind(notify.map(|notify| notify.target.url().as_str()));
        let set = set.bind(notify.map(|notify| notify.target.events().join(",")));
        set.bind(key).bind(i64::from(is_sealed)).bind(function).execute(&mut *connection).await?;
        if notify.is_none() {
            give_up_all(connection, function).await?;
        }
        Ok(())
    }

    /// The receiver of a function's notifications, by the function's row.
    pub(super) fn read_notify(&self, function: FunctionId, row: &AnyRow) -> Result<Option<Notify>, StoreError> {
        let damaged = || self.damaged("the receiver of a function's notifications can't be");
        let text = |column: &str| row.try_get::<Option<String>, _>(column).map_err(|_| damaged());
        let (Some(url), Some(on), Some(key)) = (text("notify_url")?, text("notify_on")?, text("notify_key")?) else {
            return Ok(None);
        };
        let on: Vec<&str> = on.split(',').collect();
        let target = Target::new(&url, &on).map_err(|_| damaged())?;
        let is_sealed = row.try_get::<i64, _>("notify_sealed").map_err(|_| damaged())? != 0;
        let key = self.opened(&function.to_string(), KEY, key, is_sealed)?;
        Ok(Some(Notify { target, key: Secret(key) }))
    }

    /// The receiver of a function's notifications. None where there is no function, or no receiver.
    pub(super) async fn notify_of(&self, function: FunctionId) -> Result<Option<Notify>, StoreError> {
        let select = format!("SELECT {COLUMNS} FROM functions WHERE id = $1");
        let select = sqlx::query(sqlx::AssertSqlSafe(select)).bind(function.to_string());
        let row = self.ask(select.fetch_optional(&self.pool())).await?;
        row.map_or(Ok(None), |row| self.read_notify(function, &row))
    }
}
