//! Tests of the file of SQLite: older forms, damage, backups and limits.

use super::*;
use crate::store::migrations::OF_SQLITE;

#[tokio::test]
async fn functions_from_before_there_were_versions_are_at_their_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    let old = Store::connect(path.clone()).await.unwrap();
    let first_two = OF_SQLITE.iter().take(2).cloned().collect::<Vec<_>>();
    sqlx::migrate::Migrator::with_migrations(first_two).run(&old.pool()).await.unwrap();
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
    .execute(&old.pool())
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
            .execute(&old.pool())
            .await
            .unwrap();
    }
    old.close().await;
    let store = Store::sqlite(dir.path()).await.unwrap();
    assert_eq!(functions(&store).await, std::slice::from_ref(&function));
    assert_eq!(store.zip(first(&function)).await.unwrap().as_deref(), Some(&b"zip"[..]));
}

#[tokio::test]
async fn a_key_from_before_results_were_kept_answers_what_its_function_is_now() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    let old = Store::connect(path.clone()).await.unwrap();
    let first_three = OF_SQLITE.iter().take(3).cloned().collect::<Vec<_>>();
    sqlx::migrate::Migrator::with_migrations(first_three).run(&old.pool()).await.unwrap();
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
        sqlx::query(sqlx::AssertSqlSafe(row)).execute(&old.pool()).await.unwrap();
    }
    old.close().await;
    let store = Store::sqlite(dir.path()).await.unwrap();
    let key = IdempotencyKey { key: "k".to_owned(), request_sha256: "a".to_owned() };
    let image_id = image.id.as_str().to_owned();
    let now = Deployed {
        function_id: id,
        image_id,
        version: 2,
        name: "old".to_owned(),
        warnings: Vec::new(),
        notify_secret: None,
    };
    assert_eq!(store.claim_key(&key, 1).await.unwrap(), Known::Same(now));
}

#[tokio::test]
async fn a_file_is_found_whatever_its_folder_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("50% of what? #1 and%20more");
    std::fs::create_dir(&folder).unwrap();
    let one = record("one");
    insert(&Store::sqlite(&folder).await.unwrap(), &one).await;
    assert!(folder.join(FILE_NAME).exists());
    assert_eq!(functions(&Store::sqlite(&folder).await.unwrap()).await, [one]);
}

#[tokio::test]
async fn a_backup_is_whole_and_goes_to_a_new_file_only() {
    let (dir, restored) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::sqlite(dir.path()).await.unwrap();
    let one = record("one");
    insert(&store, &one).await;
    let file = restored.path().join(FILE_NAME);
    Store::backup(dir.path(), &file).await.unwrap();
    assert!(matches!(Store::backup(dir.path(), &file).await, Err(StoreError::Exists(_))));
    let nothing = restored.path().join("nothing");
    assert!(matches!(Store::backup(&nothing, &restored.path().join("x")).await, Err(StoreError::Missing(_))));
    assert_eq!(functions(&Store::sqlite(restored.path()).await.unwrap()).await, [one]);
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
    sqlx::query(migration).execute(&store.pool()).await.unwrap();
    store.close().await;
    let error = Store::sqlite(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { schema: 99, .. }), "{error:?}");
}

#[tokio::test]
async fn a_database_with_a_damaged_page_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::sqlite(dir.path()).await.unwrap();
    for n in 0..200 {
        insert(&store, &record(&format!("function {n}"))).await;
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
        length.fetch_one(&store.pool()).await.map(i64::cast_unsigned)
    };
    // A megabyte is more than what stands in a row beside the zip.
    let most = crate::config::MAX_FILE;
    assert_eq!(length(most + 1_000_000).await.unwrap(), most + 1_000_000);
    length(most + 1_000_001).await.expect_err("a value that SQLite does not take");
}
