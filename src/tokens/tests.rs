//! Tests of the tokens of a node that is alone with its store.

use super::*;

const API_TOKEN: &str = "of-the-operator";

/// The tokens of a store in this folder, where API_TOKEN is set or not.
async fn tokens(folder: &tempfile::TempDir, api_token: Option<&str>) -> Arc<Tokens> {
    let store = Store::sqlite(folder.path()).await.unwrap();
    let nodes = Membership::join(store.clone(), "node".to_owned(), None, folder.path()).await.unwrap();
    let all = store.changes(None).await.unwrap().tokens.unwrap_or_default();
    let api_token = api_token.map(|token| Secret(token.to_owned()));
    Tokens::new(store, Arc::new(nodes), api_token, all, TaskTracker::new())
}

fn new(name: &str, expires_at: Option<u64>) -> NewToken {
    NewToken { name: name.parse().unwrap(), scopes: BTreeSet::from([Scope::Read]), functions: None, expires_at }
}

#[tokio::test]
async fn a_request_is_let_in_by_the_token_that_it_shows() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = tokens(&folder, Some(API_TOKEN)).await;
    let (_, text) = tokens.create(new("ci", None)).await.unwrap();
    assert!(tokens.access(Some(API_TOKEN)).unwrap().token().is_none());
    let access = tokens.access(Some(text.as_str())).unwrap();
    assert_eq!(access.token().unwrap().name.as_str(), "ci");
    let form = format!("ysp_{}", "0".repeat(64));
    for shown in [None, Some(""), Some("guess"), Some(&*form), Some(&text.as_str()[..67])] {
        assert!(matches!(tokens.access(shown), Err(Refusal::Unknown)), "{shown:?}");
    }
    for (own, is_own) in [(API_TOKEN, true), (text.as_str(), true), (&*form, true), ("guess", false), ("", false)] {
        assert_eq!(tokens.is_own(own), is_own, "{own}");
    }
    let again = tokens.create(new("ci", None)).await.unwrap_err();
    assert!(matches!(again, TokenError::Taken(_)), "{again:?}");
    tokens.delete("ci".parse().unwrap()).await.unwrap();
    assert!(matches!(tokens.access(Some(text.as_str())), Err(Refusal::Unknown)));
    let again = tokens.delete("ci".parse().unwrap()).await.unwrap_err();
    assert!(matches!(again, TokenError::Unknown(_)), "{again:?}");
}

#[tokio::test]
async fn a_token_ends_with_its_last_second() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = tokens(&folder, Some(API_TOKEN)).await;
    let now = clock::unix_seconds();
    let (_, over) = tokens.create(new("over", Some(now))).await.unwrap();
    let (_, not_over) = tokens.create(new("not-over", Some(now + 60))).await.unwrap();
    assert!(matches!(tokens.access(Some(over.as_str())), Err(Refusal::Expired(name)) if name.as_str() == "over"));
    assert!(tokens.access(Some(not_over.as_str())).is_ok());
}

#[tokio::test]
async fn without_api_token_every_request_may_do_everything() {
    let folder = tempfile::tempdir().unwrap();
    let (_, text) = tokens(&folder, Some(API_TOKEN)).await.create(new("ci", None)).await.unwrap();
    let open = tokens(&folder, None).await;
    assert!(!open.are_asked_for() && open.len() == 1);
    for shown in [None, Some("guess"), Some(text.as_str())] {
        assert!(open.access(shown).unwrap().token().is_none(), "{shown:?}");
    }
    // What looks like a token is none of a function's business all the same.
    assert!(open.is_own(text.as_str()) && !open.is_own(API_TOKEN));
}

#[tokio::test]
async fn last_uses_are_written_down_now_and_then_and_outlast_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = tokens(&folder, Some(API_TOKEN)).await;
    let (_, text) = tokens.create(new("ci", None)).await.unwrap();
    let before = clock::unix_seconds();
    tokens.access(Some(text.as_str())).unwrap();
    // A change takes all tokens over again, without the use that is not written down.
    let stored = tokens.store.tokens().await.unwrap();
    assert_eq!(stored[0].last_used, None);
    tokens.take_over(stored);
    let last_used = tokens.list().await.unwrap()[0].last_used;
    assert!(last_used.is_some_and(|at| (before..before + 60).contains(&at)), "{last_used:?}");
    tokens.take_over(Vec::new());
    assert!(tokens.is_empty());
}
