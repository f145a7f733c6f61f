use super::*;
use crate::types::{FunctionId, ImageId, Language};

fn record(name: &str) -> Record {
    Record {
        id: FunctionId::random(),
        name: name.parse().unwrap(),
        language: Language::Python,
        entry: Some("main.py".to_owned()),
        created_at: 1_700_000_000,
        executions: Executions::default(),
        zip_size: 3,
        zip_sha256: "ab".repeat(32),
        unpacked_size: 9,
        image: image('0'),
    }
}

fn image(digit: char) -> Image {
    let id = ImageId::parse(&format!("sha256:{}", digit.to_string().repeat(64))).unwrap();
    Image { id, size: 7, is_there: true }
}

#[tokio::test]
async fn what_is_stored_is_there_after_a_new_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let (mut one, two, gone) = (record("one"), record("two"), record("gone"));
    for record in [&one, &two, &gone] {
        store.insert(record, b"zip", "log").await.unwrap();
    }
    assert!(store.delete(gone.id).await.unwrap() && !store.delete(gone.id).await.unwrap());
    one.executions = Executions { count: 5, last: Some(1_700_000_009) };
    store.set_executions(&[(one.id, one.executions), (gone.id, one.executions)]).await.unwrap();
    store.lose_images(&[one.id]).await.unwrap();
    one.image.is_there = false;
    store.close().await;
    let store = Store::open(dir.path()).await.unwrap();
    assert_eq!(store.functions().await.unwrap(), [one.clone(), two.clone()]);
    assert_eq!(store.zip(two.id).await.unwrap().as_deref(), Some(&b"zip"[..]));
    assert_eq!(store.zip(gone.id).await.unwrap(), None, "the zip goes with the function");
    one.image = image('1');
    assert!(store.set_image(one.id, &one.image, "second log").await.unwrap());
    assert!(!store.set_image(gone.id, &one.image, "").await.unwrap());
    assert_eq!(store.functions().await.unwrap(), [one, two]);
}

#[tokio::test]
async fn a_backup_is_whole_and_goes_to_a_new_file_only() {
    let (dir, restored) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(dir.path()).await.unwrap();
    let one = record("one");
    store.insert(&one, b"zip", "log").await.unwrap();
    let file = restored.path().join(FILE_NAME);
    Store::backup(dir.path(), &file).await.unwrap();
    assert!(matches!(Store::backup(dir.path(), &file).await, Err(StoreError::Exists(_))));
    let nothing = restored.path().join("nothing");
    assert!(matches!(Store::backup(&nothing, &restored.path().join("x")).await, Err(StoreError::Missing(_))));
    assert_eq!(Store::open(restored.path()).await.unwrap().functions().await.unwrap(), [one]);
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_refused_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE_NAME);
    std::fs::write(&file, "no database at all, but long enough to be looked at ".repeat(99)).unwrap();
    let error = Store::open(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("restore a backup"), "{error}");
    std::fs::remove_file(&file).unwrap();

    let store = Store::open(dir.path()).await.unwrap();
    let migration = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'later', 1, x'00', 0)";
    sqlx::query(migration).execute(&store.pool).await.unwrap();
    store.close().await;
    let error = Store::open(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { schema: 99, .. }), "{error:?}");
}

#[tokio::test]
async fn a_database_with_a_damaged_page_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    for n in 0..200 {
        store.insert(&record(&format!("function {n}")), b"zip", "log").await.unwrap();
    }
    store.close().await;
    let file = dir.path().join(FILE_NAME);
    let mut bytes = std::fs::read(&file).unwrap();
    let damaged = bytes.windows(9).position(|window| window == b"function ").unwrap() / 4096 * 4096;
    assert!(damaged >= 4096);
    bytes[damaged..damaged + 4096].fill(0x5a);
    std::fs::write(&file, bytes).unwrap();
    let error = Store::open(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}
