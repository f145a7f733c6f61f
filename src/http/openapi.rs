//! The OpenAPI document, which is collected from the routes: the document has every route and no other.

use axum::Extension;
use axum::body::Bytes;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use utoipa::IntoResponses;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, SecurityRequirement, Server,
};

use super::problem::ProblemBody;

/// The name of the security scheme.
pub(in crate::http) const TOKEN: &str = "token";

/// The document, written once.
#[derive(Clone, Debug)]
pub(in crate::http) struct Document(Bytes);

impl From<OpenApi> for Document {
    fn from(document: OpenApi) -> Self {
        Self(document.to_json().expect("the document can be written as JSON").into())
    }
}

/// The parts of the document beside the routes.
pub(in crate::http) fn head(components: ComponentsBuilder) -> OpenApi {
    let about = "Post a zip with Python or Go code; it becomes a container image and runs on demand. Errors are RFC \
                 9457 \
                 problems; every response has an `x-request-id`.";
    let info = InfoBuilder::new().title("YouTube Serverless Platform").version(env!("CARGO_PKG_VERSION"));
    let license = LicenseBuilder::new().name("MIT").identifier(Some("MIT"));
    let info = info.description(Some(about)).license(Some(license.build()));
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    // Named by the answers below, which the routes' own collection does not see.
    let components = components.security_scheme(TOKEN, token).schema_from::<ProblemBody<'_>>().build();
    OpenApiBuilder::new()
        .info(info.build())
        .components(Some(components))
        // Where the document was found.
        .servers(Some([Server::new("/")]))
        // The empty one: a service without API_TOKEN asks for none.
        .security(Some([SecurityRequirement::new::<_, [&str; 0], &str>(TOKEN, []), SecurityRequirement::default()]))
        .build()
}

/// The answers of any route.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(in crate::http) enum AnyRoute {
    /// The request is not valid: `invalid_request`.
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(ProblemBody<'static>),
    /// API_TOKEN is set, and the request shows neither API_TOKEN nor a token of the service: `unauthorized`; or the
    /// token's time is over: `token_expired`.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(ProblemBody<'static>),
    /// The token lacks the scope that the operation's `security` names, or is for some functions only: `forbidden`; or
    /// a browser sent the request for a page of another site: `cross_site`.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(ProblemBody<'static>),
    /// The path does not take the method: `method_not_allowed`.
    #[response(status = 405, content_type = "application/problem+json")]
    Method(ProblemBody<'static>),
    /// The request did not arrive whole within SERVER_READ_TIMEOUT: `request_timeout`.
    #[response(status = 408, content_type = "application/problem+json")]
    BodyTimeout(ProblemBody<'static>),
    /// Too many requests of one address or token (`rate_limited`), or too many executions (`overloaded`); see
    /// `retry-after`.
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(ProblemBody<'static>),
    /// A fault of the service, which its log explains: `internal`; or a container that does not start: `start_failed`.
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(ProblemBody<'static>),
    /// Docker does not answer (`docker_unavailable`), nor does the registry of images (`registry_unavailable`), or the
    /// service stops (`shutting_down`); see `retry-after`.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(ProblemBody<'static>),
    /// A disk has too little room: `insufficient_storage`.
    #[response(status = 507, content_type = "application/problem+json")]
    Full(ProblemBody<'static>),
}

/// The further answers of probes.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(in crate::http) enum Probe {
    /// The path does not take the method: `method_not_allowed`.
    #[response(status = 405, content_type = "application/problem+json")]
    Method(ProblemBody<'static>),
}

/// The further answers of a route about one function.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(in crate::http) enum FunctionResponses {
    /// There is no such function: `function_not_found`.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(ProblemBody<'static>),
}

/// The further answers of a route with a body.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(in crate::http) enum WithBody {
    /// The request is over the limit that `detail` names: `too_large`.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(ProblemBody<'static>),
    /// The body is of another kind: `unsupported_media_type`.
    #[response(status = 415, content_type = "application/problem+json")]
    MediaType(ProblemBody<'static>),
}

/// The further answers of a route with settings.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(in crate::http) enum SettingsResponses {
    /// The request is not valid: `invalid_request`, or `invalid_archive`; or a setting is out of its range, or a
    /// variable can't be one: `invalid_settings`; or EGRESS_ALLOW does not cover the network or the receiver of
    /// notifications (`network_not_allowed`), or there can be no network here (`network_not_available`).
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(ProblemBody<'static>),
}

/// This document
///
/// The OpenAPI description of this service.
#[utoipa::path(get, path = "/api/openapi.json", tag = "service", operation_id = "getDescription",
    responses((status = 200, description = "An OpenAPI 3.1 document", body = Object), AnyRoute))]
pub(in crate::http) async fn document(
    Extension(document): Extension<Document>,
) -> ([(HeaderName, &'static str); 1], Bytes) {
    ([(CONTENT_TYPE, "application/json")], document.0)
}
