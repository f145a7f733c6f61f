//! The scope that each route of the API needs, in one table. A test compares the table with the API's description.

use axum::http::Method;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{OpenApi, SecurityRequirement};

use super::openapi::TOKEN;
use crate::domain::Scope;

/// What a route needs of a request's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing: the route is open to all.
    Nothing,
    /// A scope. A token that is for some functions gets what concerns these functions.
    Scope(Scope),
    /// A scope, and a token that is for all functions.
    AllFunctions(Scope),
}

use Needs::{AllFunctions, Nothing};
use Scope::{Admin, Deploy, Invoke, Read};

const fn of(scope: Scope) -> Needs {
    Needs::Scope(scope)
}

/// Each route: its method, its path and what the route needs.
const ROUTES: &[(&str, &str, Needs)] = &[
    ("POST", "/api/submit", AllFunctions(Deploy)),
    ("GET", "/api/execute", of(Invoke)),
    ("POST", "/api/execute", of(Invoke)),
    ("POST", "/api/functions/{name-or-id}/invoke", of(Invoke)),
    ("GET", "/api/functions", of(Read)),
    ("GET", "/api/functions/{id}", of(Read)),
    ("PUT", "/api/functions/{id}", of(Deploy)),
    ("PATCH", "/api/functions/{id}", of(Deploy)),
    ("DELETE", "/api/functions/{id}", of(Deploy)),
    ("GET", "/api/functions/{id}/settings", of(Read)),
    ("GET", "/api/functions/{id}/versions", of(Read)),
    ("GET", "/api/functions/{id}/versions/{number}", of(Read)),
    ("GET", "/api/functions/{id}/versions/{number}/code", of(Read)),
    ("POST", "/api/functions/{id}/rollback", of(Deploy)),
    ("GET", "/api/functions/{id}/invocations", of(Read)),
    ("GET", "/api/functions/{id}/notifications", of(Read)),
    ("GET", "/api/functions/{id}/schedules", of(Read)),
    ("GET", "/api/functions/{id}/schedules/{name}", of(Read)),
    ("PUT", "/api/functions/{id}/schedules/{name}", of(Deploy)),
    ("DELETE", "/api/functions/{id}/schedules/{name}", of(Deploy)),
    ("POST", "/api/functions/{id}/schedules/{name}/run", of(Invoke)),
    ("GET", "/api/invocations", of(Read)),
    ("GET", "/api/invocations/{id}", of(Read)),
    ("DELETE", "/api/invocations/{id}", of(Invoke)),
    ("GET", "/api/invocations/{id}/events", of(Read)),
    ("POST", "/api/invocations/{id}/again", of(Invoke)),
    ("GET", "/api/instances", of(Read)),
    ("GET", "/api/overview", of(Read)),
    ("GET", "/api/nodes", AllFunctions(Read)),
    ("GET", "/api/tokens", AllFunctions(Admin)),
    ("POST", "/api/tokens", AllFunctions(Admin)),
    ("DELETE", "/api/tokens/{name}", AllFunctions(Admin)),
    ("GET", "/api/openapi.json", of(Read)),
    ("GET", "/metrics", AllFunctions(Read)),
    ("GET", "/health", Nothing),
    ("GET", "/health/live", Nothing),
];

/// What a request needs whose path belongs to the route `path`. A path that is not in the table needs all scopes, so
/// that a route that the table lacks is open to nobody by mistake. A path in the table takes no other methods.
pub(super) fn needs(method: &Method, path: &str) -> Needs {
    let method = if method == Method::HEAD { Method::GET } else { method.clone() };
    let mut of_path = ROUTES.iter().filter(|(_, known, _)| *known == path).peekable();
    if of_path.peek().is_none() {
        return AllFunctions(Admin);
    }
    of_path.find(|(known, ..)| *known == method.as_str()).map_or(Nothing, |(.., needs)| *needs)
}

/// Writes into the description which scope each operation needs.
pub(super) fn describe(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            let scope = match needs(&method, path) {
                Needs::Nothing => continue,
                Needs::Scope(scope) | Needs::AllFunctions(scope) => scope,
            };
            // The empty one: a service without API_TOKEN asks for none.
            let security = [SecurityRequirement::new(TOKEN, [scope.name()]), SecurityRequirement::default()];
            operation.security = Some(security.into());
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
    let all = [
        (Method::GET, get),
        (Method::PUT, put),
        (Method::POST, post),
        (Method::DELETE, delete),
        (Method::OPTIONS, options),
        (Method::HEAD, head),
        (Method::PATCH, patch),
        (Method::TRACE, trace),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_description_have_the_same_routes() {
        let (_, mut document) = crate::http::described(1);
        let mut described: Vec<(String, String)> = Vec::new();
        for (path, item) in &mut document.paths.paths {
            described.extend(operations(item).map(|(method, _)| (method.to_string(), path.clone())));
        }
        let mut table: Vec<(String, String)> =
            ROUTES.iter().map(|&(method, path, _)| (method.to_owned(), path.to_owned())).collect();
        described.sort();
        table.sort();
        assert_eq!(table, described, "each route has one line in the table, and no other line is there");
    }

    #[test]
    fn a_route_that_the_table_lacks_is_for_admins() {
        assert_eq!(needs(&Method::GET, "/api/new"), AllFunctions(Admin));
        assert_eq!(needs(&Method::HEAD, "/api/functions"), of(Read));
        // The router answers 405.
        assert_eq!(needs(&Method::PUT, "/api/functions"), Nothing);
    }
}
