mod invocations;
#[expect(clippy::disallowed_methods, reason = "a test runs a real server")]
#[path = "../../tests/support/postgres.rs"]
mod postgres_server;

use bytes::Bytes;

use std::time::Duration;

use super::*;
use crate::config::Secret;
use crate::domain::settings::Settings;
use crate::domain::{
    Deployed, Executions, FunctionId, IdempotencyKey, Image, ImageDigest, ImageId, InvocationRecord, Known, Language,
    Open, Outcome, Package, Page, Preload, Preloaded, Queued, Record, Update, VersionId, VersionRecord,
};

fn record(name: &str) -> Record {
    Record {
        id: FunctionId::random(),
        name: name.parse().unwrap(),
        created_at: 1_700_000_000,
        executions: Executions::default(),
        settings: Settings::default(),
        preloaded: None,
        version: version(1),
        previous: None,
        last_version: 1,
    }
}

fn version(number: u32) -> VersionRecord {
    VersionRecord {
        number,
        language: Language::Python,
        entry: Some("main.py".to_owned()),
        created_at: 1_700_000_000,
        zip_size: 3,
        zip_sha256: "ab".repeat(32),
        unpacked_size: 9,
        image: image('0'),
    }
}

fn first(record: &Record) -> VersionId {
    VersionId { function: record.id, number: 1 }
}

const PACKAGE: Package<'_> = Package { zip: b"zip", build_log: "log", warnings: &[] };

fn image(digit: char) -> Image {
    let id = ImageId::parse(&format!("sha256:{}", digit.to_string().repeat(64))).unwrap();
    Image { id, size: 7, present: true, digest: ImageDigest::parse(&format!("sha256:{}", "d".repeat(64))) }
}

/// A database that a test opens again and again.
enum Place {
    Folder(tempfile::TempDir),
    Url(Secret),
}

impl Place {
    fn sqlite() -> Self {
        Self::Folder(tempfile::tempdir().unwrap())
    }

    fn postgres() -> Self {
        Self::Url(Secret(postgres_server::database(&format!("store-{}", uuid::Uuid::new_v4()))))
    }

    async fn open(&self) -> Store {
        match self {
            Self::Folder(folder) => Store::sqlite(folder.path()).await.unwrap(),
            Self::Url(url) => Store::postgres(url).await.unwrap(),
        }
    }

    async fn open_with(&self, functions: &[&Record]) -> Store {
        let store = self.open().await;
        for record in functions {
            store.insert(record, PACKAGE, None).await.unwrap();
        }
        store
    }
}

/// Makes two tests of each function: on SQLite and on PostgreSQL.
macro_rules! on_each_database {
    ($($test:ident),+ $(,)?) => {
        $(mod $test {
            #[tokio::test]
            async fn on_sqlite() {
                super::$test(super::Place::sqlite()).await;
            }

            #[tokio::test]
            #[ignore = "needs PostgreSQL"]
            async fn on_postgres() {
                super::$test(super::Place::postgres()).await;
            }
        })+
    };
}
pub(super) use on_each_database;

on_each_database!(
    what_is_stored_is_there_after_a_new_start,
    a_function_moves_between_versions_and_keeps_the_last_few,
    only_what_was_promised_to_nobody_is_taken_back,
    a_log_may_have_any_character,
);

async fn what_is_stored_is_there_after_a_new_start(place: Place) {
    let store = place.open().await;
    let (mut one, two, gone) = (record("one"), record("two"), record("gone"));
    for record in [&one, &two, &gone] {
        store.insert(record, PACKAGE, None).await.unwrap();
    }
    assert!(store.delete(gone.id).await.unwrap() && !store.delete(gone.id).await.unwrap());
    one.executions = Executions { count: 5, last: Some(1_700_000_009) };
    store.insert_invocations(&[], &[(one.id, one.executions), (gone.id, one.executions)]).await.unwrap();
    store.mark_images_missing(&[first(&one)]).await.unwrap();
    one.version.image.present = false;
    store.close().await;
    let store = place.open().await;
    assert_eq!(store.functions().await.unwrap(), [one.clone(), two.clone()]);
    assert_eq!(store.zip(first(&two)).await.unwrap().as_deref(), Some(&b"zip"[..]));
    assert_eq!(store.zip(first(&gone)).await.unwrap(), None, "the zip goes with the function");
    one.version.image = image('1');
    assert!(store.set_image(first(&one), &one.version.image, Some("second log")).await.unwrap());
    assert!(!store.set_image(first(&gone), &one.version.image, None).await.unwrap());
    assert_eq!(store.functions().await.unwrap(), [one, two]);
}

async fn a_function_moves_between_versions_and_keeps_the_last_few(place: Place) {
    let store = place.open().await;
    let one = record("one");
    store.insert(&one, PACKAGE, None).await.unwrap();
    let name = "renamed".parse().unwrap();
    let mut settings =
        Settings { memory: Some(5), cpus: Some(0.5), timeout: Some(Duration::from_millis(1500)), ..one.settings };
    settings.environment.insert("A".to_owned(), "1".to_owned());
    settings.secrets.insert("KEY".to_owned(), Secret("s".to_owned()));
    settings.preload = Some(Preload::Modules(vec!["json".to_owned()]));
    let found = Preloaded { modules: vec!["json".to_owned()], ..Preloaded::default() };
    let update = |version, previous| Update {
        id: one.id,
        name: &name,
        settings: &settings,
        preloaded: Some(&found),
        version,
        previous,
        max_versions: 2,
    };
    for number in 2..5 {
        assert!(
            store.update(&update(number, Some(number - 1)), Some((&version(number), PACKAGE)), None).await.unwrap()
        );
    }
    let numbers =
        async || store.versions(one.id).await.unwrap().iter().map(|version| version.number).collect::<Vec<_>>();
    assert_eq!(numbers().await, [4, 3]);
    assert!(store.update(&update(3, Some(4)), None, None).await.unwrap());
    assert!(store.update(&update(6, Some(3)), Some((&version(6), PACKAGE)), None).await.unwrap());
    assert_eq!(numbers().await, [6, 4, 3], "what was run before is kept, however old it is");
    let known = store.versions(one.id).await.unwrap();
    assert!(!known[1].image.present && known[2].image.present, "only what was run last has an image");
    store.close().await;
    let store = place.open().await;
    let stored = store.functions().await.unwrap().remove(0);
    let expected = Record {
        name: name.clone(),
        settings: settings.clone(),
        preloaded: Some(found.clone()),
        version: version(6),
        previous: Some(version(3)),
        last_version: 6,
        ..stored.clone()
    };
    assert_eq!(stored, expected);
    assert!(store.delete(one.id).await.unwrap());
    assert!(!store.update(&update(7, None), Some((&version(7), PACKAGE)), None).await.unwrap());
    assert_eq!(store.zip(VersionId { function: one.id, number: 6 }).await.unwrap(), None);
}

#[tokio::test]
async fn functions_from_before_there_were_versions_are_at_their_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    let old = Store::connect(path.clone()).await.unwrap();
    let all = sqlx::migrate!("src/store/migrations/sqlite");
    let first_two = all.iter().take(2).cloned().collect::<Vec<_>>();
    sqlx::migrate::Migrator { migrations: first_two.into(), ..all }.run(&old.pool).await.unwrap();
    let mut function = record("old");
    // No registry had images then.
    function.version.image.digest = None;
    let image_id = image('0');
    sqlx::query(
        "INSERT INTO functions (id, name, language, entry, created_at, zip_size, zip_sha256, unpacked_size, image_id, \
         image_size, state)
         VALUES ($1, 'old', 'python', 'main.py', 1700000000, 3, $2, 9, $3, 7, 'ready')",
    )
    .bind(function.id.to_string())
    .bind("ab".repeat(32))
    .bind(image_id.id.as_str())
    .execute(&old.pool)
    .await
    .unwrap();
    for (table, column, value) in [("packages", "zip", &b"zip"[..]), ("build_logs", "log", b"log")] {
        let insert = format!(
            "INSERT INTO {table} (function_id, {column}) VALUES ($1, CAST($2 AS {}))",
            if column == "zip" { "BLOB" } else { "TEXT" }
        );
        sqlx::query(sqlx::AssertSqlSafe(insert))
            .bind(function.id.to_string())
            .bind(value)
            .execute(&old.pool)
            .await
            .unwrap();
    }
    old.close().await;
    let store = Store::sqlite(dir.path()).await.unwrap();
    assert_eq!(store.functions().await.unwrap(), std::slice::from_ref(&function));
    assert_eq!(store.zip(first(&function)).await.unwrap().as_deref(), Some(&b"zip"[..]));
}

#[tokio::test]
async fn a_key_from_before_results_were_kept_answers_what_its_function_is_now() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    let old = Store::connect(path.clone()).await.unwrap();
    let all = sqlx::migrate!("src/store/migrations/sqlite");
    let first_three = all.iter().take(3).cloned().collect::<Vec<_>>();
    sqlx::migrate::Migrator { migrations: first_three.into(), ..all }.run(&old.pool).await.unwrap();
    let (function, image) = (record("old"), image('0'));
    let id = function.id.to_string();
    let rows = [
        format!("INSERT INTO functions (id, name, created_at, version) VALUES ('{id}', 'old', 1, 2)"),
        format!(
            "INSERT INTO versions VALUES ('{id}', 2, 'python', 'main.py', 1, 3, '', 9, '{}', 7, 'ready')",
            image.id.as_str()
        ),
        format!("INSERT INTO idempotency_keys VALUES ('submit', 'k', 'a', 1, '{id}', NULL)"),
    ];
    for row in rows {
        sqlx::query(sqlx::AssertSqlSafe(row)).execute(&old.pool).await.unwrap();
    }
    old.close().await;
    let store = Store::sqlite(dir.path()).await.unwrap();
    let key = IdempotencyKey { key: "k".to_owned(), request_sha256: "a".to_owned() };
    let image_id = image.id.as_str().to_owned();
    let now = Deployed { function_id: id, image_id, version: 2, name: "old".to_owned(), warnings: Vec::new() };
    assert_eq!(store.submitted(&key).await.unwrap(), Known::Same(now));
}

async fn only_what_was_promised_to_nobody_is_taken_back(place: Place) {
    let one = record("one");
    let store = place.open_with(&[&one]).await;
    let key = IdempotencyKey { key: "k".to_owned(), request_sha256: "a".to_owned() };
    let queue = async |created_at| {
        let record = InvocationRecord::queued(one.id, created_at, Bytes::new());
        assert_eq!(store.queue_invocation(&record, Some(&key), true, false).await.unwrap(), Queued::Now);
        record
    };
    let first = queue(1).await;
    assert!(store.take_back_invocation(first.id).await.unwrap());
    assert_eq!(store.invocation(first.id).await.unwrap(), None);
    let second = queue(2).await;
    store.promise_invocation(second.id).await.unwrap();
    assert!(!store.take_back_invocation(second.id).await.unwrap());
    assert!(store.invocation(second.id).await.unwrap().is_some());
}

async fn a_log_may_have_any_character(place: Place) {
    let one = record("one");
    let store = place.open().await;
    store.insert(&one, Package { build_log: "a\0b\u{1b}[31m", ..PACKAGE }, None).await.unwrap();
    assert!(store.set_image(first(&one), &one.version.image, Some("\0")).await.unwrap());
}

#[tokio::test]
async fn a_file_is_found_whatever_its_folder_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("50% of what? #1 and%20more");
    std::fs::create_dir(&folder).unwrap();
    let one = record("one");
    Store::sqlite(&folder).await.unwrap().insert(&one, PACKAGE, None).await.unwrap();
    assert!(folder.join(FILE_NAME).exists());
    assert_eq!(Store::sqlite(&folder).await.unwrap().functions().await.unwrap(), [one]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_file_is_copied_to_an_empty_postgres_and_all_goes_on_there() {
    let (dir, place) = (tempfile::tempdir().unwrap(), Place::postgres());
    let Place::Url(url) = &place else { unreachable!() };
    let missing = Store::migrate_to_postgres(dir.path(), url).await.unwrap_err();
    assert!(matches!(missing, StoreError::Missing(_)), "{missing:?}");
    let (mut one, two) = (record("one"), record("two"));
    one.settings.cpus = Some(0.5);
    one.settings.secrets.insert("KEY".to_owned(), Secret("s".to_owned()));
    let store = Store::sqlite(dir.path()).await.unwrap();
    let key = IdempotencyKey { key: "k".to_owned(), request_sha256: "a".to_owned() };
    store.insert(&one, PACKAGE, Some(&key)).await.unwrap();
    store.insert(&two, PACKAGE, None).await.unwrap();
    let queued = InvocationRecord::queued(one.id, 1, Bytes::from("{}"));
    store.queue_invocation(&queued, Some(&key), true, true).await.unwrap();
    let result = store.submitted(&key).await.unwrap();
    store.close().await;
    assert_eq!(Store::migrate_to_postgres(dir.path(), url).await.unwrap(), 2);
    let again = Store::migrate_to_postgres(dir.path(), url).await.unwrap_err();
    assert!(matches!(again, StoreError::NotEmpty("functions")), "{again:?}");
    let store = place.open().await;
    assert_eq!(store.functions().await.unwrap(), [one.clone(), two]);
    assert_eq!(store.zip(first(&one)).await.unwrap().as_deref(), Some(&b"zip"[..]));
    assert_eq!(store.submitted(&key).await.unwrap(), result);
    assert_eq!(store.invocation(queued.id).await.unwrap(), Some(queued));
    let three = record("three");
    store.insert(&three, PACKAGE, None).await.unwrap();
    assert_eq!(store.functions().await.unwrap().len(), 3, "the numbers of rows go on");
}

#[tokio::test]
async fn a_backup_is_whole_and_goes_to_a_new_file_only() {
    let (dir, restored) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::sqlite(dir.path()).await.unwrap();
    let one = record("one");
    store.insert(&one, PACKAGE, None).await.unwrap();
    let file = restored.path().join(FILE_NAME);
    Store::backup(dir.path(), &file).await.unwrap();
    assert!(matches!(Store::backup(dir.path(), &file).await, Err(StoreError::Exists(_))));
    let nothing = restored.path().join("nothing");
    assert!(matches!(Store::backup(&nothing, &restored.path().join("x")).await, Err(StoreError::Missing(_))));
    assert_eq!(Store::sqlite(restored.path()).await.unwrap().functions().await.unwrap(), [one]);
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_refused_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE_NAME);
    std::fs::write(&file, "no database at all, but long enough to be looked at ".repeat(99)).unwrap();
    let error = Store::sqlite(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("restore a backup"), "{error}");
    std::fs::remove_file(&file).unwrap();

    let store = Store::sqlite(dir.path()).await.unwrap();
    let migration = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES \
                     (99, 'later', 1, x'00', 0)";
    sqlx::query(migration).execute(&store.pool).await.unwrap();
    store.close().await;
    let error = Store::sqlite(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { schema: 99, .. }), "{error:?}");
}

#[tokio::test]
async fn a_database_with_a_damaged_page_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::sqlite(dir.path()).await.unwrap();
    for n in 0..200 {
        store.insert(&record(&format!("function {n}")), PACKAGE, None).await.unwrap();
    }
    store.close().await;
    let file = dir.path().join(FILE_NAME);
    let mut bytes = std::fs::read(&file).unwrap();
    let damaged = bytes.windows(12).position(|window| window == b"function 100").unwrap() / 4096 * 4096;
    assert!(damaged >= 4096);
    bytes[damaged..damaged + 4096].fill(0x5a);
    std::fs::write(&file, bytes).unwrap();
    let error = Store::sqlite(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn the_largest_zip_that_can_be_allowed_fits_in_a_row_and_the_next_sizes_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::sqlite(dir.path()).await.unwrap();
    let length = async |bytes: u64| {
        let length = sqlx::query_scalar::<_, i64>("SELECT length(zeroblob($1))").bind(bytes.cast_signed());
        length.fetch_one(&store.pool).await.map(i64::cast_unsigned)
    };
    // A megabyte is more than what stands in a row beside the zip.
    let most = crate::config::MAX_FILE;
    assert_eq!(length(most + 1_000_000).await.unwrap(), most + 1_000_000);
    length(most + 1_000_001).await.expect_err("a value that SQLite does not take");
}
