//! The migrations of both databases, in their order. sqlx keeps the number and the checksum of each, so that no text
//! may change that a release has had.

use std::sync::LazyLock;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// A migration: its name and its statements.
type Step = (&'static str, &'static str);

const SQLITE: [Step; 18] = [
    ("functions", include_str!("migrations/sqlite/0001_functions.sql")),
    ("invocations", include_str!("migrations/sqlite/0002_invocations.sql")),
    ("versions", include_str!("migrations/sqlite/0003_versions.sql")),
    ("tries", include_str!("migrations/sqlite/0004_tries.sql")),
    ("preload", include_str!("migrations/sqlite/0005_preload.sql")),
    ("image digest", include_str!("migrations/sqlite/0006_image_digest.sql")),
    ("nodes", include_str!("migrations/sqlite/0007_nodes.sql")),
    ("sharing", include_str!("migrations/sqlite/0008_sharing.sql")),
    ("warmth", include_str!("migrations/sqlite/0009_warmth.sql")),
    ("function network", include_str!("migrations/sqlite/0010_function_network.sql")),
    ("invocation network", include_str!("migrations/sqlite/0011_invocation_network.sql")),
    ("triggers", include_str!("migrations/sqlite/0012_triggers.sql")),
    ("http", include_str!("migrations/sqlite/0013_http.sql")),
    ("tokens", include_str!("migrations/sqlite/0014_tokens.sql")),
    ("schedules", include_str!("migrations/sqlite/0015_schedules.sql")),
    ("notifications", include_str!("migrations/sqlite/0016_notifications.sql")),
    ("manifests", include_str!("migrations/sqlite/0017_manifests.sql")),
    ("failures", include_str!("migrations/sqlite/0018_failures.sql")),
];

const POSTGRES: [Step; 16] = [
    ("tables", include_str!("migrations/postgres/0001_tables.sql")),
    ("image digest", include_str!("migrations/postgres/0002_image_digest.sql")),
    ("nodes", include_str!("migrations/postgres/0003_nodes.sql")),
    ("flushes", include_str!("migrations/postgres/0004_flushes.sql")),
    ("sharing", include_str!("migrations/postgres/0005_sharing.sql")),
    ("flush times", include_str!("migrations/postgres/0006_flush_times.sql")),
    ("warmth", include_str!("migrations/postgres/0007_warmth.sql")),
    ("function network", include_str!("migrations/postgres/0008_function_network.sql")),
    ("invocation network", include_str!("migrations/postgres/0009_invocation_network.sql")),
    ("triggers", include_str!("migrations/postgres/0010_triggers.sql")),
    ("http", include_str!("migrations/postgres/0011_http.sql")),
    ("tokens", include_str!("migrations/postgres/0012_tokens.sql")),
    ("schedules", include_str!("migrations/postgres/0013_schedules.sql")),
    ("notifications", include_str!("migrations/postgres/0014_notifications.sql")),
    ("manifests", include_str!("migrations/postgres/0015_manifests.sql")),
    ("failures", include_str!("migrations/postgres/0016_failures.sql")),
];

/// The migrations of a file of SQLite.
pub(super) static OF_SQLITE: LazyLock<Migrator> = LazyLock::new(|| migrator(&SQLITE));

/// The migrations of a database of PostgreSQL.
pub(super) static OF_POSTGRES: LazyLock<Migrator> = LazyLock::new(|| migrator(&POSTGRES));

fn migrator(steps: &[Step]) -> Migrator {
    let numbered = (1..).zip(steps).map(|(number, &(name, text))| {
        Migration::new(number, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    });
    Migrator::with_migrations(numbered.collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_file_is_a_migration() {
        for (folder, migrator) in [("sqlite", &OF_SQLITE), ("postgres", &OF_POSTGRES)] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/migrations").join(folder);
            let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
            let mut files: Vec<String> = files.collect();
            files.sort();
            let known =
                migrator.iter().map(|step| format!("{:04}_{}.sql", step.version, step.description.replace(' ', "_")));
            assert_eq!(files, known.collect::<Vec<_>>());
        }
    }
}
