//! What a request may do.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Refusal;
use crate::domain::{FunctionId, Scope, TokenRecord, UnknownFunction};

/// What a request may do: everything, or what a token allows.
#[derive(Clone, Debug)]
pub struct Access(Option<Arc<TokenRecord>>);

impl Access {
    /// The access of API_TOKEN, and of each request where API_TOKEN is not set.
    pub fn all() -> Self {
        Self(None)
    }

    /// The access of a token.
    pub(super) fn of(token: Arc<TokenRecord>) -> Self {
        Self(Some(token))
    }

    /// The token of the request; None where the request may do everything without one.
    pub fn token(&self) -> Option<&TokenRecord> {
        self.0.as_deref()
    }

    /// Whether the request sees some functions only.
    pub fn is_limited(&self) -> bool {
        self.token().is_some_and(|token| token.functions.is_some())
    }

    /// The functions that the request sees; None where the request sees all.
    pub fn functions(&self) -> Option<&BTreeSet<FunctionId>> {
        self.token().and_then(|token| token.functions.as_ref())
    }

    /// Whether the request sees the function.
    pub fn sees(&self, function: FunctionId) -> bool {
        self.functions().is_none_or(|functions| functions.contains(&function))
    }

    /// Fails as for a function that does not exist, where the request does not see the function.
    pub fn check_function(&self, function: FunctionId) -> Result<(), UnknownFunction> {
        if self.sees(function) { Ok(()) } else { Err(UnknownFunction(function)) }
    }

    /// Fails where the request lacks a scope.
    pub fn check_scope(&self, scope: Scope) -> Result<(), Refusal> {
        match self.token() {
            Some(token) if !token.scopes.iter().any(|own| own.has(scope)) => {
                Err(Refusal::Scope { token: token.name.clone(), lacks: scope })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Fails where the request sees some functions only.
    pub fn check_unlimited(&self) -> Result<(), Refusal> {
        match self.token() {
            Some(token) if token.functions.is_some() => Err(Refusal::Limited(token.name.clone())),
            Some(_) | None => Ok(()),
        }
    }

    /// A client's `Idempotency-Key` as the key of this token alone. A client's key has no space, so no key of another
    /// token, nor a key that came without a token, is the same.
    pub fn own_key(&self, key: String) -> String {
        match self.token() {
            Some(token) => format!("{} {key}", token.id),
            None => key,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::{TokenHash, TokenId};

    fn token(scopes: &[Scope], functions: Option<&[FunctionId]>) -> Access {
        Access::of(Arc::new(TokenRecord {
            id: TokenId::random(),
            name: "ci".parse().unwrap(),
            hash: TokenHash::of("x"),
            scopes: scopes.iter().copied().collect(),
            functions: functions.map(|ids| ids.iter().copied().collect::<BTreeSet<_>>()),
            created_at: 1,
            expires_at: None,
            last_used: None,
        }))
    }

    #[test]
    fn a_token_does_what_its_scopes_say() {
        let access = token(&[Scope::Deploy], None);
        for scope in Scope::ALL {
            let has = matches!(scope, Scope::Read | Scope::Deploy);
            match access.check_scope(scope) {
                Ok(()) => assert!(has, "{scope}"),
                Err(refusal) => {
                    assert!(!has, "{scope}");
                    assert!(refusal.to_string().contains(&format!("`{scope}`")), "{refusal}");
                }
            }
            assert!(Access::all().check_scope(scope).is_ok());
        }
    }

    #[test]
    fn a_limited_token_sees_its_functions_only() {
        let (own, other) = (FunctionId::random(), FunctionId::random());
        let access = token(&[Scope::Admin], Some(&[own]));
        assert!(access.is_limited() && access.sees(own) && !access.sees(other));
        assert!(access.check_function(own).is_ok() && access.check_function(other).is_err());
        assert!(access.check_unlimited().is_err());
        for access in [Access::all(), token(&[Scope::Read], None)] {
            assert!(!access.is_limited() && access.sees(other) && access.check_unlimited().is_ok());
        }
    }

    #[test]
    fn a_key_belongs_to_one_token() {
        let (one, other) = (token(&[Scope::Deploy], None), token(&[Scope::Deploy], None));
        assert_eq!(Access::all().own_key("k".to_owned()), "k", "keys from before there were tokens stay the same");
        assert_ne!(one.own_key("k".to_owned()), other.own_key("k".to_owned()));
        assert!(one.own_key("k".to_owned()).contains(' '));
    }
}
