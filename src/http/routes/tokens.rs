//! Handlers that make, list and delete tokens.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoResponses, ToSchema};

use crate::domain::{FunctionId, NotAFunctionId, Scope, TokenName, TokenRecord};
use crate::http::State;
use crate::http::body::json::{BodyError, JsonBody};
use crate::http::openapi::{AnyRoute, WithBody};
use crate::http::problem::{Problem, ProblemBody};
use crate::resources::clock;
use crate::tokens::{NewToken, TokenError};

/// The end of the year 9999, in Unix seconds. A later time is most likely meant in milliseconds.
const LAST_EXPIRY: u64 = 253_402_300_799;

/// A new token.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewToken)]
pub(in crate::http) struct NewTokenBody {
    /// The token's name, which no other token has.
    #[schema(min_length = 1, max_length = 63, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$", example = "ci")]
    name: String,
    /// What the token opens: `read` (code, inputs and outputs included), `invoke`, `deploy` (has `read`), `admin` (has
    /// all).
    #[schema(value_type = Vec<ScopeName>, min_items = 1)]
    scopes: Vec<String>,
    /// The ids of the only functions that the token's holder sees. Absent or null for all functions.
    #[schema(value_type = Option<Vec<uuid::Uuid>>, min_items = 1)]
    functions: Option<Vec<String>>,
    /// The time from which on the token is refused, in Unix seconds. Absent or null for never.
    expires_at: Option<u64>,
}

/// What a token opens.
#[derive(ToSchema)]
#[schema(as = Scope, rename_all = "lowercase")]
#[expect(dead_code, reason = "only its derived description is used")]
enum ScopeName {
    Read,
    Invoke,
    Deploy,
    Admin,
}

/// A token, without its text.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Token)]
pub(in crate::http) struct TokenBody {
    name: String,
    #[schema(value_type = Vec<ScopeName>)]
    scopes: Vec<&'static str>,
    /// The ids of the only functions that the token's holder sees. Absent where the holder sees all functions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<uuid::Uuid>>)]
    functions: Option<Vec<String>>,
    /// The time at which the token was made, in Unix seconds.
    created_at: u64,
    /// The time from which on the token is refused, in Unix seconds. Absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    expires_at: Option<u64>,
    /// The last use, in Unix seconds; uses of the last half minute on other nodes may lack. Absent until the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_used_at: Option<u64>,
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedToken)]
pub(in crate::http) struct Created {
    #[serde(flatten)]
    shown: TokenBody,
    /// The token's text, which no later answer has.
    #[schema(pattern = "^ysp_[0-9a-f]{64}$")]
    token: String,
}

/// A deleted token.
#[derive(Serialize, ToSchema)]
#[schema(as = DeletedToken)]
pub(in crate::http) struct Deleted {
    /// A sentence for people.
    message: String,
}

/// The further answers of all routes of tokens.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
enum TokensResponses {
    /// API_TOKEN is not set, so tokens would protect nothing: `tokens_off`.
    #[response(status = 409, content_type = "application/problem+json")]
    Off(ProblemBody<'static>),
}

/// The further answers where a token is made.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
enum CreateResponses {
    /// A function of `functions` does not exist: `function_not_found`.
    #[response(status = 404, content_type = "application/problem+json")]
    NoFunction(ProblemBody<'static>),
    /// A token has the name (`name_taken`), there are as many tokens as there may be (`too_many_tokens`), or API_TOKEN
    /// is not set (`tokens_off`).
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(ProblemBody<'static>),
}

/// The further answers of a deletion.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
enum DeleteResponses {
    /// No token has the name: `token_not_found`.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(ProblemBody<'static>),
}

/// List tokens
///
/// All tokens, the oldest first, expired tokens included. No text of a token is in the answer.
#[utoipa::path(get, path = "/api/tokens", tag = "tokens", operation_id = "listTokens",
    responses((status = 200, body = Vec<TokenBody>, description = "The tokens"), AnyRoute, TokensResponses))]
pub(in crate::http) async fn list(Extract(state): Extract<State>) -> Result<Json<Vec<TokenBody>>, Problem> {
    check_use(&state)?;
    Ok(Json(state.tokens.list().await?.into_iter().map(shown).collect()))
}

/// Make a token
///
/// The answer has the token's text, once: the service keeps only a hash. Every node takes the token from then on.
#[utoipa::path(post, path = "/api/tokens", tag = "tokens", operation_id = "createToken", request_body = NewTokenBody,
    responses((status = 201, body = Created, description = "The token is made"), AnyRoute, WithBody, CreateResponses))]
pub(in crate::http) async fn create(
    Extract(state): Extract<State>,
    body: Result<JsonBody<NewTokenBody>, BodyError>,
) -> Result<(StatusCode, [(HeaderName, &'static str); 1], Json<Created>), Problem> {
    let JsonBody(body) = body?;
    let new = parse(body).map_err(Problem::invalid_request)?;
    check_use(&state)?;
    for &id in new.functions.iter().flatten() {
        state.function(id).map_err(|problem| problem.of_field("functions"))?;
    }
    let (record, text) = state.tokens.create(new).await?;
    let created = Created { shown: shown(record), token: text.as_str().to_owned() };
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], Json(created)))
}

/// Delete a token
///
/// No node takes the token from then on. Requests under way go on to their ends.
#[utoipa::path(delete, path = "/api/tokens/{name}", tag = "tokens", operation_id = "deleteToken",
    params(("name" = String, Path, description = "The token's name", pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length = 63)),
    responses((status = 200, body = Deleted, description = "The token is deleted"), AnyRoute, DeleteResponses,
        TokensResponses))]
pub(in crate::http) async fn delete(
    Extract(state): Extract<State>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Deleted>, Problem> {
    let name = name.map_err(|error| Problem::invalid_request(error.body_text()))?;
    let name: TokenName = name.parse().map_err(Problem::invalid_request)?;
    check_use(&state)?;
    state.tokens.delete(name.clone()).await?;
    Ok(Json(Deleted { message: format!("Token {name} deleted successfully") }))
}

fn check_use(state: &State) -> Result<(), TokenError> {
    if state.tokens.are_asked_for() { Ok(()) } else { Err(TokenError::Off) }
}

/// What the client asks for, or what is wrong with that.
fn parse(body: NewTokenBody) -> Result<NewToken, String> {
    let name = body.name.parse::<TokenName>().map_err(|error| error.to_string())?;
    let scopes: BTreeSet<Scope> = body.scopes.iter().map(|name| scope(name)).collect::<Result<_, _>>()?;
    if scopes.is_empty() {
        return Err(format!("`scopes` is empty; give at least one of {}", all_scopes()));
    }
    let functions = body.functions.map(|ids| ids.iter().map(|id| id.parse()).collect());
    let functions: Option<BTreeSet<FunctionId>> =
        functions.transpose().map_err(|error: NotAFunctionId| format!("`functions`: {error}"))?;
    if functions.as_ref().is_some_and(BTreeSet::is_empty) {
        return Err("`functions` is empty; leave `functions` out for all functions".to_owned());
    }
    // The holder could make a token for all functions.
    if functions.is_some() && scopes.contains(&Scope::Admin) {
        return Err("`functions` can't go with the scope `admin`, which manages tokens for all functions".to_owned());
    }
    if let Some(at) = body.expires_at.filter(|at| !(clock::unix_seconds() + 1..=LAST_EXPIRY).contains(at)) {
        return Err(format!("`expiresAt` is {at}; it is a time to come, in Unix seconds"));
    }
    Ok(NewToken { name, scopes, functions, expires_at: body.expires_at })
}

fn scope(name: &str) -> Result<Scope, String> {
    Scope::from_name(name).ok_or_else(|| {
        let name: String = name.chars().take(64).collect();
        format!("`scopes` has {name:?}; it can have {}", all_scopes())
    })
}

fn all_scopes() -> String {
    Scope::ALL.map(Scope::name).join(", ")
}

fn shown(record: TokenRecord) -> TokenBody {
    TokenBody {
        name: record.name.to_string(),
        scopes: record.scopes.iter().map(|scope| scope.name()).collect(),
        functions: record.functions.map(|ids| ids.iter().map(FunctionId::to_string).collect()),
        created_at: record.created_at / 1000,
        expires_at: record.expires_at,
        last_used_at: record.last_used,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, wrong: &str) {
        let error = parse(serde_json::from_str(json).unwrap()).unwrap_err();
        assert!(error.contains(wrong), "{json}: {error}");
    }

    #[test]
    fn what_is_wrong_with_a_token_is_named() {
        check(r#"{"name": "a b", "scopes": ["read"]}"#, "`name`");
        check(r#"{"name": "ci", "scopes": []}"#, "`scopes` is empty");
        check(r#"{"name": "ci", "scopes": ["read", "write"]}"#, "`scopes` has \"write\"; it can have read, invoke");
        check(r#"{"name": "ci", "scopes": ["read"], "functions": []}"#, "`functions` is empty");
        check(r#"{"name": "ci", "scopes": ["read"], "functions": ["hello"]}"#, "`functions`: `hello`");
        let id = FunctionId::random();
        check(&format!(r#"{{"name": "ci", "scopes": ["admin"], "functions": ["{id}"]}}"#), "`admin`");
        for at in ["0", "1700000000", "4000000000000"] {
            check(&format!(r#"{{"name": "ci", "scopes": ["read"], "expiresAt": {at}}}"#), "`expiresAt`");
        }
        let body = r#"{"name": "ci", "scopes": ["deploy", "invoke", "deploy"], "expiresAt": 4000000000}"#;
        let new = parse(serde_json::from_str(body).unwrap()).unwrap();
        assert_eq!(new.scopes.into_iter().collect::<Vec<_>>(), [Scope::Invoke, Scope::Deploy]);
        assert_eq!((new.functions, new.expires_at), (None, Some(4_000_000_000)));
    }
}
