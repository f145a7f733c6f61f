//! What a request may do by its token, as handlers and other listeners ask.

use axum::extract::{Extension, FromRequestParts, MatchedPath, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::problem::Problem;
use super::request::bearer;
use super::scopes::{self, Needs};
use crate::domain::{FunctionId, InvocationId, Scope, UnknownInvocation};
use crate::tokens::{Access, Refusal};

/// How the paths of routes about one function begin, before the function's id or name.
const OF_A_FUNCTION: &str = "/api/functions/{";

impl Api {
    /// What a request may do by its `Authorization`.
    pub fn access(&self, headers: &HeaderMap) -> Result<Access, Refusal> {
        self.tokens.access(bearer(headers))
    }

    /// What a request may do by its `Authorization`, where the request may invoke the function.
    pub fn may_invoke(&self, headers: &HeaderMap, function: FunctionId) -> Result<Access, Refusal> {
        let access = self.access(headers)?;
        access.check_scope(Scope::Invoke)?;
        access.check_function(function)?;
        Ok(access)
    }

    /// Whether a header's value shows a token of this platform, which no function must see: API_TOKEN, CLUSTER_TOKEN,
    /// or a text that has the form of a token.
    pub fn is_own_token(&self, value: &HeaderValue) -> bool {
        words(value).any(|word| self.tokens.is_own(word) || self.peers.token().is_some_and(|token| token.0 == word))
    }

    /// Fails as for an invocation that does not exist, where the invocation is of a function that the request does not
    /// see.
    pub(super) async fn check_invocation(&self, access: &Access, id: InvocationId) -> Result<(), Problem> {
        if !access.is_limited() {
            return Ok(());
        }
        // A synchronous invocation is not written down before the invocation has ended.
        let function = match self.live.function(id) {
            Some(function) => Some(function),
            None => self.history.get(id).await?.map(|record| record.function_id),
        };
        if function.is_some_and(|function| access.sees(function)) { Ok(()) } else { Err(UnknownInvocation(id).into()) }
    }
}

/// The words of a header's value, of which one may be a token: behind a scheme, or alone.
fn words(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let words = value.as_bytes().split(u8::is_ascii_whitespace).filter_map(|word| std::str::from_utf8(word).ok());
    words.filter(|word| !word.is_empty())
}

/// Refuses a request whose token lacks the scope of its route, or is not for the function in the path. A request that
/// needs no token has no access, and passes.
pub(super) async fn with_scope(access: Option<Extension<Access>>, request: Request, next: Next) -> Response {
    let Some(Extension(access)) = access.filter(|access| access.token().is_some()) else {
        return next.run(request).await;
    };
    let (mut parts, body) = request.into_parts();
    match check(&access, &mut parts).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refusal) => Problem::from(refusal).into_response(),
    }
}

async fn check(access: &Access, parts: &mut Parts) -> Result<(), Refusal> {
    // Nothing is at such a path.
    let Some(path) = parts.extensions.get::<MatchedPath>().cloned() else { return Ok(()) };
    match scopes::needs(&parts.method, path.as_str()) {
        Needs::Nothing => {}
        Needs::Scope(scope) => access.check_scope(scope)?,
        Needs::AllFunctions(scope) => {
            access.check_scope(scope)?;
            access.check_unlimited()?;
        }
    }
    // This is for all routes about a function, those that come later included. A name is the handler's matter.
    if access.is_limited()
        && path.as_str().starts_with(OF_A_FUNCTION)
        && let Ok(params) = RawPathParams::from_request_parts(parts, &()).await
        && let Some(Ok(id)) = params.iter().next().map(|(_, id)| id.parse())
    {
        access.check_function(id)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use axum::{Router, body::Body};
    use tower::ServiceExt;

    #[test]
    fn a_token_is_a_word_of_a_value() {
        let value = HeaderValue::from_bytes(b"Bearer  one\ttwo \xff").unwrap();
        assert_eq!(words(&value).collect::<Vec<_>>(), ["Bearer", "one", "two"]);
        assert_eq!(words(&HeaderValue::from_static("")).count(), 0);
    }

    #[tokio::test]
    async fn the_id_in_a_path_is_read_as_the_handler_reads_the_id() {
        // `%31` is `1`: a check of the path's bytes would not see the id that the handler sees.
        let seen = async |params: RawPathParams| params.iter().next().map(|(_, id)| id.to_owned()).unwrap();
        let router: Router = Router::new().route("/api/functions/{id}", get(seen));
        let uri = "/api/functions/%3123e4567-e89b-42d3-a456-426614174000";
        let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        let body = axum::body::to_bytes(answer.into_body(), 100).await.unwrap();
        assert_eq!(&body[..], b"123e4567-e89b-42d3-a456-426614174000");
    }
}
