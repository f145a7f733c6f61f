//! Tests of tokens as rows, and of how a node learns of changes of tokens.

use std::collections::BTreeSet;

use super::*;
use crate::domain::{Added, Scope, TokenHash, TokenId, TokenRecord};

on_each_database!(
    tokens_are_kept_and_their_changes_are_seen,
    a_name_is_one_tokens_and_tokens_are_bounded,
    the_last_use_never_goes_back,
);

pub(super) fn token(name: &str) -> TokenRecord {
    TokenRecord {
        id: TokenId::random(),
        name: name.parse().unwrap(),
        hash: TokenHash::of(name),
        scopes: BTreeSet::from([Scope::Invoke, Scope::Deploy]),
        functions: None,
        created_at: 1_700_000_000_000,
        expires_at: None,
        last_used: None,
    }
}

async fn add(store: &Store, token: &TokenRecord) -> u64 {
    let Added::Now(change) = store.insert_token(token, 10).await.unwrap() else { panic!("not added") };
    change
}

async fn tokens_are_kept_and_their_changes_are_seen(place: Place) {
    let one = record("one");
    let store = place.open_with(&[&one]).await;
    assert_eq!(store.changes(None).await.unwrap().tokens, Some(Vec::new()));
    assert_eq!(store.changes(Some(0)).await.unwrap().tokens, None, "a change of a function is none of a token");
    let functions = BTreeSet::from([one.id, FunctionId::random()]);
    let limited = TokenRecord {
        functions: Some(functions),
        expires_at: Some(1_800_000_000),
        created_at: 1_700_000_000_001,
        ..token("b")
    };
    let all = [token("a"), limited];
    let changes = [add(&store, &all[0]).await, add(&store, &all[1]).await];
    assert_eq!(changes, [2, 3]);
    store.close().await;
    let store = place.open().await;
    assert_eq!(store.tokens().await.unwrap(), all);
    assert_eq!(store.changes(None).await.unwrap().tokens.as_deref(), Some(&all[..]));
    let later = store.changes(Some(2)).await.unwrap();
    assert_eq!((later.last, later.changed.len(), later.tokens.as_deref()), (3, 0, Some(&all[..])));
    assert_eq!(store.changes(Some(3)).await.unwrap().tokens, None);
    insert(&store, &record("two")).await;
    let later = store.changes(Some(3)).await.unwrap();
    assert_eq!((later.last, later.changed.len(), later.tokens), (4, 1, None));
    assert_eq!(store.delete_token(&all[0].name).await.unwrap(), Some(5));
    assert_eq!(store.delete_token(&all[0].name).await.unwrap(), None);
    let later = store.changes(Some(4)).await.unwrap();
    assert_eq!((later.last, later.tokens.as_deref()), (5, Some(&all[1..])));
    // A scope of a newer program opens nothing, and is no trouble.
    sqlx::query("UPDATE tokens SET scopes = 'watch,read'").execute(&store.pool()).await.unwrap();
    assert_eq!(store.tokens().await.unwrap()[0].scopes, BTreeSet::from([Scope::Read]));
}

async fn a_name_is_one_tokens_and_tokens_are_bounded(place: Place) {
    let store = place.open().await;
    add(&store, &token("a")).await;
    let other = TokenRecord { hash: TokenHash::of("other"), ..token("a") };
    assert_eq!(store.insert_token(&other, 2).await.unwrap(), Added::Taken);
    assert!(matches!(store.insert_token(&token("b"), 2).await.unwrap(), Added::Now(2)), "a refusal is no change");
    assert_eq!(store.insert_token(&token("c"), 2).await.unwrap(), Added::Full);
    assert_eq!(store.tokens().await.unwrap().len(), 2);
    assert!(store.delete_token(&other.name).await.unwrap().is_some());
    assert!(matches!(store.insert_token(&other, 2).await.unwrap(), Added::Now(_)), "the name is free");
}

async fn the_last_use_never_goes_back(place: Place) {
    let store = place.open().await;
    let (one, gone) = (token("a"), token("gone"));
    let change = add(&store, &one).await;
    for (at, expected) in [(20, 20), (10, 20), (30, 30)] {
        store.note_token_uses(&[(one.id, at), (gone.id, at)]).await.unwrap();
        assert_eq!(store.tokens().await.unwrap()[0].last_used, Some(expected));
    }
    assert_eq!(store.changes(Some(change)).await.unwrap().tokens, None, "a use is no change");
}
