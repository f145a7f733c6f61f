//! Handlers that submit, update and roll back a function, with the stream of a build's lines.

use std::sync::Arc;
use std::task::Poll;

use axum::Json;
use axum::extract::multipart::MultipartRejection;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Multipart, Path, Query, State as Extract};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, IntoResponses, ToSchema};

use crate::config::Secret;
use crate::deployments::{DeployError, Deployer, Upload};
use crate::docker::LiveLog;
use crate::domain::{Deployed, FunctionId, FunctionName, InvalidName};
use crate::http::body::upload::{self, UploadError};
use crate::http::openapi::{AnyRoute, FunctionResponses, SettingsResponses, WithBody};
use crate::http::problem::{Problem, ProblemBody};
use crate::http::request::RequestId;
use crate::http::{MULTIPART_OVERHEAD, State, idempotency, sse};
use crate::tokens::Access;

/// A function that was deployed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Submitted {
    /// The id by which clients execute the function.
    #[schema(format = Uuid)]
    function_id: String,
    /// The id of the function's image in Docker.
    #[schema(example = "sha256:...")]
    image_id: String,
    /// A sentence for people.
    message: String,
    /// Warnings for the author: parts of the zip that probably do not do what the author means. Absent without any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, example = json!(["Pipfile is not read"]))]
    warnings: Vec<String>,
    /// The key that the function's notifications are signed by. Absent unless this request has made the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "whsec_...")]
    notify_secret: Option<String>,
}

/// A function that runs another version from now on.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Updated {
    #[schema(format = Uuid)]
    function_id: String,
    /// The id of the version's image in Docker.
    #[schema(example = "sha256:...")]
    image_id: String,
    /// The number of the version that the function runs.
    version: u32,
    /// A sentence for people.
    message: String,
    /// Warnings for the author: parts of the zip that probably do not do what the author means. Absent without any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, example = json!(["Pipfile is not read"]))]
    warnings: Vec<String>,
    /// The key that the function's notifications are signed by. Absent unless this request has made the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "whsec_...")]
    notify_secret: Option<String>,
}

/// The form of a submit.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(in crate::http) struct Submission {
    /// The zip with the function's code.
    #[schema(value_type = String, format = Binary, content_media_type = "application/octet-stream")]
    code: Vec<u8>,
    /// The function's name: 1 to 63 of letters, digits, `.`, `_`, `-` and space. The default follows from the file's
    /// name.
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 63,
        pattern = "^[A-Za-z0-9._ -]*[A-Za-z0-9._-][A-Za-z0-9._ -]*$"
    )]
    name: Option<String>,
    /// The language, for a zip that fits two languages.
    #[schema(nullable = false, value_type = Option<LanguageName>)]
    language: Option<String>,
    /// The memory limit of an instance, such as `64MB`: at least 16 MB, at most MAX_FUNCTION_MEMORY. The default is
    /// DOCKER_MEMORY_LIMIT.
    #[schema(nullable = false, example = "64MB")]
    memory: Option<String>,
    /// The processors of an instance, at most MAX_FUNCTION_CPUS. The default is DOCKER_CPU_LIMIT.
    #[schema(nullable = false, example = "0.5")]
    cpus: Option<String>,
    /// The time limit of an invocation, such as `10s`, at most MAX_FUNCTION_TIMEOUT. The default is DOCKER_RUN_TIMEOUT.
    #[schema(nullable = false, example = "10s")]
    timeout: Option<String>,
    /// How many invocations run at one time on each node, 1 to 1000; more wait. The default is no limit but the node's.
    #[schema(nullable = false, example = "5")]
    concurrency: Option<String>,
    /// How many instances each node keeps, whether or not the instances are used: 0 to 10. The default is 0.
    #[schema(nullable = false, rename = "keepWarm", example = "1")]
    keep_warm: Option<String>,
    /// A JSON object with what programs may reach, within EGRESS_ALLOW. An empty text and `null` are no network, which
    /// is the default of a new function.
    #[schema(nullable = false, example = "{\"allow\": [\"api.example.com:443\"]}")]
    network: Option<String>,
    /// Whose requests the function answers over HTTP: `off`, `token` or `public`, within HTTP_FUNCTIONS. The default is
    /// `off`.
    #[schema(nullable = false, example = "public")]
    http: Option<String>,
    /// A JSON object with the receiver of notifications, within EGRESS_ALLOW. An empty text and `null` are no receiver,
    /// which is the default of a new function.
    #[schema(nullable = false, example = "{\"url\": \"https://hooks.example.com/failed\", \"on\": [\"failure\"]}")]
    notify: Option<String>,
    /// A JSON object with variables for every invocation. An input's variable of the same name goes first.
    #[schema(nullable = false, example = "{\"GREETING\": \"Hello\"}")]
    environment: Option<String>,
    /// A JSON object with variables that no answer shows and no input replaces.
    #[schema(nullable = false, example = "{\"API_KEY\": \"abc\"}")]
    secrets: Option<String>,
}

/// A language that functions can be written in.
#[derive(ToSchema)]
#[schema(as = Language, rename_all = "lowercase")]
#[expect(dead_code, reason = "only its derived description is used")]
enum LanguageName {
    Python,
    Golang,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct RollbackQuery {
    /// The number of a version that the platform keeps. The default is the version that ran before.
    #[param(nullable = false, minimum = 1)]
    version: Option<u32>,
}

/// The further answers of a route that builds.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(in crate::http) enum BuildResponses {
    /// A request with the same `Idempotency-Key` is under way: `in_progress`.
    #[response(status = 409, content_type = "application/problem+json")]
    InProgress(ProblemBody<'static>),
    /// No language was found (`language_not_detected`), the code does not build (`build_failed`), or the
    /// `Idempotency-Key` came with another request (`idempotency_key_reused`).
    #[response(status = 422, content_type = "application/problem+json")]
    Unbuildable(ProblemBody<'static>),
    /// The build took longer than DOCKER_BUILD_TIMEOUT: `build_timeout`.
    #[response(status = 504, content_type = "application/problem+json")]
    BuildTimeout(ProblemBody<'static>),
}

/// The further answers of a rollback.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
enum RollbackResponses {
    /// There is no such function, or the function has no such version: `version_not_found`.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(ProblemBody<'static>),
    /// The function has no earlier version: `no_former_version`.
    #[response(status = 409, content_type = "application/problem+json")]
    NoFormer(ProblemBody<'static>),
}

/// Submit
///
/// Builds a function from a zip with Python or Go code, and answers when the function can be executed. With an
/// `Idempotency-Key`, a client can send the request again: the service makes one function, even if the client
/// leaves, and gives the same answer. With `accept: text/event-stream` the answer is a stream of events: `log` for
/// each line that the build prints, and in the end `deployed`, with the JSON of the plain answer, or `problem`.
#[utoipa::path(post, path = "/api/submit", tag = "functions", operation_id = "submitFunction",
    params(idempotency::KeyHeader),
    request_body(content = Submission, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The function can be executed", content((Submitted = "application/json"),
            (String = "text/event-stream"))),
        AnyRoute, WithBody, BuildResponses, SettingsResponses))]
pub(in crate::http) async fn submit(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    Extension(request_id): Extension<RequestId>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response, Problem> {
    let key = idempotency::key(&headers, &access)?;
    let upload = Upload { key, ..receive(&state, &headers, form).await? };
    if sse::are_wanted(&headers) {
        return Ok(of_deployment(&state, Target::New, upload, request_id));
    }
    Ok(Json(submitted(state.deployer.deploy(upload).await?)).into_response())
}

/// Update
///
/// Builds another version. The version takes the place of the earlier version at one moment, when an instance of the
/// new version waits. Until then, and when a step fails, the function stays as it was. `name` and settings may change
/// with the version. With a name in the path, the function is made where there is none of that name, so that a client
/// sends the same request each time. As with a submit, the answer can be a stream of events.
#[utoipa::path(put, path = "/api/functions/{id}", tag = "functions", operation_id = "updateFunction",
    params(("id" = String, Path, description = "The function's id, or the name of a function, which must be the only \
            one of that name. A name that has the form of an id is taken for an id.", min_length = 1, max_length = 63,
            pattern = "^[A-Za-z0-9._ -]*[A-Za-z0-9._-][A-Za-z0-9._ -]*$"),
        idempotency::KeyHeader),
    request_body(content = Submission, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The function runs the version", content((Updated = "application/json"),
            (String = "text/event-stream"))),
        (status = 201, description = "The function was made, and can be executed", body = Updated),
        AnyRoute, FunctionResponses, WithBody, BuildResponses, SettingsResponses))]
pub(in crate::http) async fn update(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    Extension(request_id): Extension<RequestId>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response, Problem> {
    let key = idempotency::key(&headers, &access)?;
    let target = Target::parse(&id?, access)?;
    // A request that was carried out has its answer, whatever has become of its function.
    if key.is_none() {
        match &target {
            Target::New => {}
            Target::Function(id) => drop(state.function(*id)?),
            Target::Name(name, access) => drop(state.deployer.of_name(name, access)?),
        }
    }
    let upload = Upload { key, ..receive(&state, &headers, form).await? };
    if let (Target::Name(name, _), Some(other)) = (&target, &upload.name)
        && name != other
    {
        return Err(Problem::invalid_request(format!("`name` is {other} in the form, and {name} in the path")));
    }
    if sse::are_wanted(&headers) {
        return Ok(of_deployment(&state, target, upload, request_id));
    }
    let deployed = target.deploy(&state.deployer, upload).await?;
    // A version that is the first has come with its function.
    let status = if deployed.version == 1 { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(made_or_updated(deployed))).into_response())
}

/// Roll back
///
/// Runs an earlier version again. The version takes the place of the current version at one moment, as with an update.
#[utoipa::path(post, path = "/api/functions/{id}/rollback", tag = "functions", operation_id = "rollBackFunction",
    params(("id" = Uuid, Path, description = "The function's id"), RollbackQuery),
    responses((status = 200, body = Updated, description = "The function runs the version"), AnyRoute, BuildResponses,
        RollbackResponses))]
pub(in crate::http) async fn roll_back(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
    target: Result<Query<RollbackQuery>, QueryRejection>,
) -> Result<Json<Updated>, Problem> {
    let id: FunctionId = id?.parse()?;
    let Query(target) = target.map_err(|error| Problem::invalid_request(error.body_text()))?;
    Ok(Json(updated(state.deployer.roll_back(id, target.version).await?)))
}

/// What an upload is for.
enum Target {
    /// A new function.
    New,
    /// The function of this id.
    Function(FunctionId),
    /// The function of this name, which is made where the client sees none.
    Name(FunctionName, Access),
}

impl Target {
    fn parse(id: &str, access: Access) -> Result<Self, Problem> {
        if let Ok(id) = id.parse() {
            return Ok(Self::Function(id));
        }
        let name = id.parse().map_err(|error: InvalidName| Problem::invalid_request(error))?;
        Ok(Self::Name(name, access))
    }

    async fn deploy(self, deployer: &Arc<Deployer>, upload: Upload) -> Result<Deployed, DeployError> {
        match self {
            Self::New => deployer.deploy(upload).await,
            Self::Function(id) => deployer.update(id, upload).await,
            Self::Name(name, access) => deployer.deploy_named(name, upload, access).await,
        }
    }
}

/// Carries out a deployment, and streams the build's lines. A deployment without a key ends when the client leaves.
fn of_deployment(state: &State, target: Target, upload: Upload, request_id: RequestId) -> Response {
    let (live, mut lines) = LiveLog::channel();
    let (deployer, is_new) = (Arc::clone(&state.deployer), matches!(target, Target::New));
    let mut deployment = Box::pin(async move {
        let upload = Upload { live: Some(live), ..upload };
        target.deploy(&deployer, upload).await
    });
    let mut ended = None;
    let events = stream::poll_fn(move |cx| {
        if ended.is_none()
            && let Poll::Ready(done) = deployment.as_mut().poll(cx)
        {
            ended = Some(Some(done));
        }
        match lines.poll_recv(cx) {
            Poll::Ready(Some(line)) => return Poll::Ready(Some(Event::default().event("log").data(line))),
            // All that the build has printed comes before its end, which drops the sender.
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => {}
        }
        match ended.as_mut() {
            None => Poll::Pending,
            Some(done) => Poll::Ready(done.take().map(|done| match done {
                Ok(deployed) => {
                    let body = if is_new {
                        serde_json::to_string(&submitted(deployed))
                    } else {
                        serde_json::to_string(&made_or_updated(deployed))
                    };
                    let body = body.expect("texts and numbers can be written as JSON");
                    Event::default().event("deployed").data(body)
                }
                Err(error) => Event::default().event("problem").data(Problem::from(error).to_json(&request_id.0)),
            })),
        }
    });
    sse::answer(events)
}

/// Receives the form of a submit or an update, where the disks have room.
async fn receive(
    state: &State,
    headers: &HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Upload, Problem> {
    let limit = state.config.max_file_size;
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit + MULTIPART_OVERHEAD) {
        return Err(UploadError::TooLarge { limit }.into());
    }
    state.deployer.check_room().await?;
    Ok(upload::receive(form?, &state.scratch, limit).await?)
}

fn submitted(deployed: Deployed) -> Submitted {
    let message = made(&deployed.name);
    let Deployed { function_id, image_id, warnings, notify_secret, .. } = deployed;
    Submitted { function_id, image_id, message, warnings, notify_secret: notify_secret.map(|Secret(key)| key) }
}

/// An update never runs a function's first version.
fn made_or_updated(deployed: Deployed) -> Updated {
    match deployed.version {
        1 => Updated { message: made(&deployed.name), ..updated(deployed) },
        _ => updated(deployed),
    }
}

fn made(name: &str) -> String {
    format!("Function '{name}' deployed successfully")
}

fn updated(Deployed { function_id, image_id, version, name, warnings, notify_secret }: Deployed) -> Updated {
    let message = format!("Function '{name}' runs version {version}");
    let notify_secret = notify_secret.map(|Secret(key)| key);
    Updated { function_id, image_id, version, message, warnings, notify_secret }
}
