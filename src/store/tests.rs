mod invocations;
mod nodes;
mod notifications;
#[expect(clippy::disallowed_methods, reason = "a test runs a real server")]
#[path = "../../tests/support/postgres.rs"]
pub(crate) mod postgres_server;
mod schedules;
mod sqlite_file;
mod tokens;

use bytes::Bytes;

use std::time::Duration;

use super::*;
use crate::config::{Secret, SecretKey};
use crate::domain::settings::Pins;
use crate::domain::settings::Settings;
use crate::domain::settings::network::Network;
use crate::domain::{
    Changed, Deployed, Destined, Executions, FunctionId, Heartbeat, IdempotencyKey, Image, ImageDigest, ImageId,
    InvocationId, InvocationRecord, Known, Language, Open, Outcome, Own, Package, Page, Preload, Preloaded, Queued,
    Record, Seen, Update, VersionId, VersionRecord,
};

fn destined(refused: u64, reason: Option<&str>) -> Destined {
    let (to, reason) = (format!("{refused}.example:443"), reason.map(str::to_owned));
    Destined { to, connections: 1, sent_bytes: 120, received_bytes: 1 << 40, refused, reason }
}

fn record(name: &str) -> Record {
    Record {
        id: FunctionId::random(),
        number: 0,
        generation: 1,
        name: name.parse().unwrap(),
        created_at: 1_700_000_000,
        executions: Executions::default(),
        settings: Settings::default(),
        preloaded: None,
        version: version(1),
        previous: None,
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
        manifest: None,
        unpacked_size: 9,
        image: image('0'),
    }
}

fn first(record: &Record) -> VersionId {
    VersionId { function: record.id, number: 1 }
}

async fn insert(store: &Store, record: &Record) {
    let inserted = store.insert(&mut record.clone(), PACKAGE, &[], None, false).await.unwrap();
    assert!(matches!(inserted, Changed::Now(_)), "{inserted:?}");
}

/// All functions, as if no number had been given to them. All that is set counts as set by clients, as no version has a
/// manifest.
async fn functions(store: &Store) -> Vec<Record> {
    let all = store.changes(None).await.unwrap().changed;
    let given = |record: Record| {
        assert_eq!(record.settings.pins, Pins::of(&record.settings));
        Record { number: 0, settings: Settings { pins: Pins::default(), ..record.settings }, ..record }
    };
    all.into_iter().map(given).collect()
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
            insert(&store, record).await;
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
    a_column_of_a_newer_program_is_no_trouble,
    a_log_may_have_any_character,
    secrets_are_sealed_and_keys_can_be_changed,
);

async fn what_is_stored_is_there_after_a_new_start(place: Place) {
    let store = place.open().await;
    let (mut one, two, gone) = (record("one"), record("two"), record("gone"));
    for record in [&one, &two, &gone] {
        insert(&store, record).await;
    }
    assert!(store.delete(gone.id).await.unwrap().is_some() && store.delete(gone.id).await.unwrap().is_none());
    one.executions = Executions { count: 5, last: Some(1_700_000_009) };
    store.insert_invocations(&[], &[(one.id, one.executions), (gone.id, one.executions)], 1).await.unwrap();
    store.mark_images_missing(&[first(&one)]).await.unwrap();
    // Nodes that share a database have images of their own.
    one.version.image.present = store.is_shared();
    store.close().await;
    let store = place.open().await;
    assert_eq!(functions(&store).await, [one.clone(), two.clone()]);
    assert_eq!(store.zip(first(&two)).await.unwrap().as_deref(), Some(&b"zip"[..]));
    assert_eq!(store.zip(first(&gone)).await.unwrap(), None, "the zip goes with the function");
    one.version.image = image('1');
    assert!(store.set_image(first(&one), &one.version.image, Some("second log")).await.unwrap());
    assert!(!store.set_image(first(&gone), &one.version.image, None).await.unwrap());
    assert_eq!(functions(&store).await, [one, two]);
}

async fn a_function_moves_between_versions_and_keeps_the_last_few(place: Place) {
    let store = place.open().await;
    let one = record("one");
    insert(&store, &one).await;
    let name = "renamed".parse().unwrap();
    let mut settings =
        Settings { memory: Some(5), cpus: Some(0.5), timeout: Some(Duration::from_millis(1500)), ..one.settings };
    settings.environment.insert("A".to_owned(), "1".to_owned());
    settings.secrets.insert("KEY".to_owned(), Secret("s".to_owned()));
    settings.preload = Some(Preload::Modules(vec!["json".to_owned()]));
    (settings.concurrency, settings.keep_warm) = (Some(7), Some(2));
    settings.network = Network::new(["api.example:443", "*.example.org:443", "[2001:db8::/32]:1"]).ok();
    let found = Preloaded { modules: vec!["json".to_owned()], ..Preloaded::default() };
    let update = |from, version, previous| Update {
        id: one.id,
        from,
        name: &name,
        settings: &settings,
        preloaded: Some(&found),
        version,
        previous,
        declared: None,
        max_versions: 2,
    };
    for number in 2..5 {
        let update = update(u64::from(number) - 1, number, Some(number - 1));
        let updated = store.update(&update, Some((&version(number), PACKAGE)), None).await.unwrap();
        assert!(matches!(updated, Changed::Now(_)), "{updated:?}");
    }
    let numbers =
        async || store.versions(one.id).await.unwrap().iter().map(|version| version.number).collect::<Vec<_>>();
    assert_eq!(numbers().await, [4, 3]);
    let rolled_back = store.update(&update(4, 3, Some(4)), None, None).await.unwrap();
    assert!(matches!(rolled_back, Changed::Now(_)), "{rolled_back:?}");
    let updated = store.update(&update(5, 6, Some(3)), Some((&version(6), PACKAGE)), None).await.unwrap();
    assert!(matches!(updated, Changed::Now(_)), "{updated:?}");
    let late = store.update(&update(5, 7, Some(3)), Some((&version(7), PACKAGE)), None).await.unwrap();
    assert_eq!(late, Changed::Since, "another change has come first");
    assert_eq!(numbers().await, [6, 4, 3], "what was run before is kept, however old it is");
    let known = store.versions(one.id).await.unwrap();
    assert!(!known[1].image.present && known[2].image.present, "only what was run last has an image");
    store.close().await;
    let store = place.open().await;
    let stored = functions(&store).await.remove(0);
    let expected = Record {
        name: name.clone(),
        settings: settings.clone(),
        preloaded: Some(found.clone()),
        version: version(6),
        previous: Some(version(3)),
        generation: 6,
        ..stored.clone()
    };
    assert_eq!(stored, expected);
    assert!(store.delete(one.id).await.unwrap().is_some());
    let gone = store.update(&update(6, 7, None), Some((&version(7), PACKAGE)), None).await.unwrap();
    assert_eq!(gone, Changed::Gone);
    assert_eq!(store.zip(VersionId { function: one.id, number: 6 }).await.unwrap(), None);
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

async fn a_column_of_a_newer_program_is_no_trouble(place: Place) {
    let mut one = record("one");
    one.settings.environment.insert("A".to_owned(), "1".to_owned());
    let store = place.open_with(&[&one]).await;
    let key = |key: &str| IdempotencyKey { key: key.to_owned(), request_sha256: "a".to_owned() };
    // Each connection has prepared the statements before, and runs them again after each column.
    for round in 0..3 {
        for _ in 0..10 {
            assert_eq!(functions(&store).await, [one.clone()]);
            assert_eq!(store.versions(one.id).await.unwrap(), [one.version.clone()]);
        }
        let queued = InvocationRecord::queued(one.id, 1, Bytes::new());
        let now = key(&format!("{round}"));
        assert_eq!(store.queue_invocation(&queued, Some(&now), true, true).await.unwrap(), Queued::Now);
        let before = Queued::Before(queued.id);
        assert_eq!(store.queue_invocation(&queued, Some(&now), true, true).await.unwrap(), before);
        assert_eq!(store.invocation(queued.id).await.unwrap(), Some(queued.clone()));
        assert_eq!(store.outcome(queued.id).await.unwrap(), Some(Outcome::Queued));
        assert_eq!(store.claim_key(&now, 1).await.unwrap(), Known::New);
        store.give_back_key(&now).await.unwrap();
        for table in ["functions", "versions", "variables", "invocations", "idempotency_keys"] {
            let add = format!("ALTER TABLE {table} ADD COLUMN newer_{round} INTEGER NOT NULL DEFAULT 7");
            sqlx::query(sqlx::AssertSqlSafe(add)).execute(&store.pool()).await.unwrap();
        }
    }
}

async fn a_log_may_have_any_character(place: Place) {
    let one = record("one");
    let store = place.open().await;
    store.insert(&mut one.clone(), Package { build_log: "a\0b\u{1b}[31m", ..PACKAGE }, &[], None, false).await.unwrap();
    assert!(store.set_image(first(&one), &one.version.image, Some("\0")).await.unwrap());
}

async fn secrets_are_sealed_and_keys_can_be_changed(place: Place) {
    let (old, new) = (SecretKey([1; 32]), SecretKey([2; 32]));
    let mut one = record("one");
    one.settings.environment.insert("OPEN".to_owned(), "an open value".to_owned());
    one.settings.secrets.insert("KEY".to_owned(), Secret("a secret value".to_owned()));
    let values = async |store: &Store| -> Vec<String> {
        let values = sqlx::query_scalar("SELECT value FROM variables ORDER BY name");
        values.fetch_all(&store.pool()).await.unwrap()
    };
    let store = place.open_with(&[&one]).await;
    assert_eq!(values(&store).await, ["a secret value", "an open value"], "without a key");
    store.close().await;
    // With a key, what is there is sealed at the start.
    let store = place.open().await.with_keys(std::slice::from_ref(&old)).await.unwrap();
    let by_old = values(&store).await;
    assert!(!by_old[0].contains("secret") && by_old[1] == "an open value", "{by_old:?}");
    assert_eq!(functions(&store).await, [one.clone()]);
    store.close().await;
    let store = place.open().await.with_keys(&[new.clone(), old.clone()]).await.unwrap();
    let by_new = values(&store).await;
    assert_ne!(by_new[0], by_old[0]);
    assert_eq!(functions(&store).await, [one.clone()]);
    store.close().await;
    let store = place.open().await.with_keys(&[new]).await.unwrap();
    assert_eq!(functions(&store).await, [one]);
    store.close().await;
    let lost = place.open().await.with_keys(&[old]).await.unwrap_err();
    assert!(matches!(lost, StoreError::Sealed { .. }), "{lost:?}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_file_is_copied_to_an_empty_postgres_and_all_goes_on_there() {
    let (dir, place) = (tempfile::tempdir().unwrap(), Place::postgres());
    let Place::Url(url) = &place else { unreachable!() };
    let keys = [SecretKey([1; 32])];
    let missing = Store::migrate_to_postgres(dir.path(), url, &keys).await.unwrap_err();
    assert!(matches!(missing, StoreError::Missing(_)), "{missing:?}");
    let (mut one, two) = (record("one"), record("two"));
    one.settings.cpus = Some(0.5);
    one.settings.network = Network::new(["10.0.0.0/8:5432", "*:443"]).ok();
    one.settings.secrets.insert("KEY".to_owned(), Secret("s".to_owned()));
    let store = Store::sqlite(dir.path()).await.unwrap();
    let key = IdempotencyKey { key: "k".to_owned(), request_sha256: "a".to_owned() };
    assert_eq!(store.claim_key(&key, 1).await.unwrap(), Known::New);
    store.insert(&mut one.clone(), PACKAGE, &[], Some(&key), false).await.unwrap();
    insert(&store, &two).await;
    let network = vec![destined(3, Some("refused"))];
    let queued = InvocationRecord { network, ..InvocationRecord::queued(one.id, 1, Bytes::from("{}")) };
    store.queue_invocation(&queued, Some(&key), true, true).await.unwrap();
    let result = store.claim_key(&key, 1).await.unwrap();
    let token = tokens::token("ci");
    store.insert_token(&token, 1).await.unwrap();
    store.close().await;
    assert_eq!(Store::migrate_to_postgres(dir.path(), url, &keys).await.unwrap(), 2);
    let again = Store::migrate_to_postgres(dir.path(), url, &keys).await.unwrap_err();
    assert!(matches!(again, StoreError::NotEmpty("functions")), "{again:?}");
    let sealed = place.open().await.changes(None).await.unwrap_err();
    assert!(matches!(sealed, StoreError::Sealed { .. }), "{sealed:?}");
    let store = place.open().await.with_keys(&keys).await.unwrap();
    assert_eq!(functions(&store).await, [one.clone(), two]);
    assert_eq!(store.zip(first(&one)).await.unwrap().as_deref(), Some(&b"zip"[..]));
    assert_eq!(store.claim_key(&key, 1).await.unwrap(), result);
    assert_eq!(store.tokens().await.unwrap(), [token]);
    assert_eq!(store.invocation(queued.id).await.unwrap(), Some(queued));
    let three = record("three");
    insert(&store, &three).await;
    assert_eq!(functions(&store).await.len(), 3, "the numbers of rows go on");
    assert_eq!(store.changes(Some(2)).await.unwrap().changed.len(), 1, "and so do those of changes");
}
