//! Parts of the history, as a client chooses them.

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Row};

use super::invocations::{BAD_ROW, without_output};
use super::{Database, Store, StoreError};
use crate::domain::{InvocationRecord, Page, Place, Trigger, TriggerKind};

impl Store {
    /// Invocations with their places, the last first, without input and output.
    pub async fn invocations(&self, page: &Page) -> Result<Vec<(Place, InvocationRecord)>, StoreError> {
        let mut chosen = Conditions::of(page);
        let order = match self.database {
            // The rows of one process are written in the order of their numbers.
            Database::Sqlite(_) => {
                if let Some(before) = page.before {
                    chosen.add("number < ", before.number.cast_signed());
                }
                "number DESC"
            }
            Database::Postgres(_) => {
                if let Some(before) = page.before {
                    let (time, number) =
                        (chosen.bind(before.time.cast_signed()), chosen.bind(before.number.cast_signed()));
                    chosen.texts.push(format!("(recorded_at, number) < ({time}, {number})"));
                }
                "recorded_at DESC, number DESC"
            }
        };
        let limit = chosen.bind(i64::from(page.limit));
        let select = format!(
            "SELECT number, recorded_at, id, function_id, version, outcome, created_at, executed_at, exit_code, error, \
             start, truncated, queued_us, duration_us, cpu_us, peak_memory, network, begun_by FROM invocations \
             WHERE {} ORDER BY {order} LIMIT {limit}",
            chosen.text()
        );
        let select = chosen.values.into_iter().fold(sqlx::query(AssertSqlSafe(select)), |select, value| value(select));
        let rows = self.ask(select.fetch_all(&self.pool())).await?;
        let placed = |row: &AnyRow| {
            let number = |column: &str| row.try_get::<i64, _>(column).ok().map(i64::cast_unsigned);
            Some((Place { time: number("recorded_at")?, number: number("number")? }, without_output(row)?))
        };
        rows.iter().map(|row| placed(row).ok_or_else(|| self.damaged(BAD_ROW))).collect()
    }
}

type Selection = Query<'static, Any, AnyArguments>;

/// The conditions of a statement, and the values that the statement is given, in the order of their places.
#[derive(Default)]
struct Conditions {
    texts: Vec<String>,
    values: Vec<Box<dyn FnOnce(Selection) -> Selection + Send>>,
}

impl Conditions {
    /// What a page chooses, but for the place.
    fn of(page: &Page) -> Self {
        let mut chosen = Self::default();
        if let Some(functions) = &page.functions {
            let places: Vec<String> = functions.iter().map(|id| chosen.bind(id.to_string())).collect();
            // No function is chosen by an empty list, which is no SQL.
            let text = if places.is_empty() { "1 = 0".to_owned() } else { list("function_id", &places) };
            chosen.texts.push(text);
        }
        if !page.outcomes.is_empty() {
            // The names stand in the statement: the index of failures is used for exactly these names.
            let names: Vec<String> = page.outcomes.iter().map(|outcome| format!("'{}'", outcome.name())).collect();
            chosen.texts.push(list("outcome", &names));
        }
        match &page.trigger {
            None => {}
            Some(TriggerKind::One(Trigger::Api)) => chosen.texts.push("begun_by IS NULL".to_owned()),
            Some(TriggerKind::One(trigger)) => chosen.add("begun_by = ", trigger.to_string()),
            Some(TriggerKind::Schedules) => chosen.texts.push("begun_by LIKE 'schedule:%'".to_owned()),
        }
        if let Some(since) = page.since {
            chosen.add("created_at >= ", since.cast_signed());
        }
        if let Some(until) = page.until {
            chosen.add("created_at < ", until.cast_signed());
        }
        chosen
    }

    fn add<T>(&mut self, text: &str, value: T)
    where
        T: 'static + Send + sqlx::Encode<'static, Any> + sqlx::Type<Any>,
    {
        let place = self.bind(value);
        self.texts.push(format!("{text}{place}"));
    }

    /// Gives the statement a value, and returns the value's place.
    fn bind<T>(&mut self, value: T) -> String
    where
        T: 'static + Send + sqlx::Encode<'static, Any> + sqlx::Type<Any>,
    {
        self.values.push(Box::new(|select| select.bind(value)));
        format!("${}", self.values.len())
    }

    fn text(&self) -> String {
        if self.texts.is_empty() { "1 = 1".to_owned() } else { self.texts.join(" AND ") }
    }
}

fn list(column: &str, values: &[String]) -> String {
    format!("{column} IN ({})", values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Outcome;

    #[test]
    fn the_index_of_failures_is_for_the_outcomes_that_failed() {
        let failed = Conditions::of(&Page { outcomes: Outcome::FAILED.to_vec(), ..Page::last(1) }).text();
        for migration in
            [include_str!("migrations/sqlite/0018_failures.sql"), include_str!("migrations/postgres/0016_failures.sql")]
        {
            assert!(migration.contains(&failed), "{failed}");
        }
    }
}
