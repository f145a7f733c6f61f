//! The problem of each error, with its HTTP status. The status of an invocation that ended, such as 504 for a timeout,
//! is in `domain/outcome/http_status.rs`.

use axum::extract::multipart::{MultipartError, MultipartRejection};
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;

use super::trouble::trouble;
use super::{Problem, images};
use crate::deployments::{DeleteError, DeployError};
use crate::domain::{NotAFunctionId, NotAnInvocationId, UnknownFunction, UnknownInvocation, UnknownName};
use crate::http::body::json::BodyError;
use crate::http::body::manifest::ManifestError;
use crate::http::body::upload::UploadError;
use crate::http::request::BodyTimeout;
use crate::invocations::input::InputError;
use crate::invocations::invoke::InvokeError;
use crate::invocations::queue::{AcceptError, CancelError};
use crate::nodes::{CutOff, Unacknowledged};
use crate::resources::budget::BudgetExceeded;
use crate::resources::disk::{self, LowDisk};
use crate::sandbox::pool::AcquireError;
use crate::store::StoreError;

impl From<NotAFunctionId> for Problem {
    fn from(error: NotAFunctionId) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_function_id", error)
    }
}

impl From<NotAnInvocationId> for Problem {
    fn from(error: NotAnInvocationId) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_invocation_id", error)
    }
}

impl From<UnknownName> for Problem {
    fn from(error: UnknownName) -> Self {
        Self::new(StatusCode::NOT_FOUND, "function_not_found", error)
    }
}

impl From<UnknownInvocation> for Problem {
    fn from(error: UnknownInvocation) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invocation_not_found", error)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        store(&error)
    }
}

impl From<AcceptError> for Problem {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Unknown(error) => error.into(),
            AcceptError::Input(error) => error.into(),
            AcceptError::Full(_) => Self::overloaded(error),
            AcceptError::OtherRequest => Self::key_reused(error),
            AcceptError::LowDisk(error) => error.into(),
            AcceptError::Store(error) => error.into(),
            AcceptError::Invoke(error) => error.into(),
            AcceptError::Gone(error) => error.into(),
            AcceptError::Unsettled(ref cause) => {
                trouble((&**cause).into(), &error).unwrap_or_else(|| Self::internal(&error))
            }
            AcceptError::Died(_) => Self::internal(&error),
        }
    }
}

impl From<CancelError> for Problem {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::Unknown(error) => error.into(),
            CancelError::Ended(..) => Self::new(StatusCode::CONFLICT, "invocation_ended", error),
            CancelError::Store(error) => error.into(),
            CancelError::Died(_) => Self::internal(&error),
        }
    }
}

impl From<UnknownFunction> for Problem {
    fn from(error: UnknownFunction) -> Self {
        Self::new(StatusCode::NOT_FOUND, "function_not_found", error)
    }
}

impl From<InputError> for Problem {
    fn from(error: InputError) -> Self {
        match &error {
            InputError::TooLarge(..) => Self::too_large(error),
            InputError::Key(_)
            | InputError::Twice(..)
            | InputError::Reserved(..)
            | InputError::NotText(_)
            | InputError::Secret(_)
            | InputError::Proxy(_)
            | InputError::Nul(_) => Self::new(StatusCode::BAD_REQUEST, "invalid_input", error),
        }
    }
}

impl From<InvokeError> for Problem {
    fn from(error: InvokeError) -> Self {
        match error {
            InvokeError::Unknown(error) => error.into(),
            InvokeError::Input(error) => error.into(),
            InvokeError::CutOff(error) => error.into(),
            InvokeError::Image(error) => images::rebuilt_at(&error),
            InvokeError::Acquire(error) => acquire(error),
        }
    }
}

fn acquire(error: AcquireError) -> Problem {
    let specific = || match &error {
        AcquireError::ShuttingDown => Problem::shutting_down(),
        AcquireError::Retired => Problem::new(StatusCode::NOT_FOUND, "function_not_found", &error),
        AcquireError::Start(_) => Problem::start_failed(&error),
        AcquireError::QueueFull { .. } | AcquireError::StrangersFull { .. } | AcquireError::QueueTimeout { .. } => {
            Problem::overloaded(&error)
        }
    };
    trouble((&error).into(), &error).unwrap_or_else(specific)
}

impl From<DeployError> for Problem {
    fn from(error: DeployError) -> Self {
        match error {
            DeployError::Unknown(error) => error.into(),
            DeployError::UnknownVersion(_) => Self::new(StatusCode::NOT_FOUND, "version_not_found", error),
            DeployError::NoFormer(_) => Self::new(StatusCode::CONFLICT, "no_former_version", error),
            DeployError::Settings(error) => error.into(),
            DeployError::Network(error) => error.into(),
            DeployError::Warm(error) => {
                let problem = Self::from(error);
                Self { detail: format!("the function stays as it was: {}", problem.detail), ..problem }
            }
            DeployError::Image(error) => images::image(&error),
            DeployError::Build(error) => images::build(&error),
            DeployError::Store(error) => store(&error),
            DeployError::CutOff(error) => error.into(),
            DeployError::Unacknowledged(error) => error.into(),
            DeployError::OtherRequest => Self::key_reused(error),
            DeployError::InProgress => Self::new(StatusCode::CONFLICT, "in_progress", error),
            DeployError::NameTaken(_) => Self::new(StatusCode::CONFLICT, "name_taken", error),
            DeployError::SeveralOfName(_) => Self::new(StatusCode::CONFLICT, "ambiguous_name", error),
            DeployError::MadeMeanwhile(_) => Self::new(StatusCode::CONFLICT, "in_progress", error),
            DeployError::Refused(error) => error.into(),
            DeployError::Schedule(error) => error.into(),
            DeployError::Input(error) => error.into(),
            DeployError::TooManySchedules(_) => Self::new(StatusCode::CONFLICT, "too_many_schedules", error),
            DeployError::Io(_) | DeployError::Died(_) => Self::internal(&error),
        }
    }
}

impl From<Unacknowledged> for Problem {
    fn from(error: Unacknowledged) -> Self {
        match error {
            Unacknowledged::Slow | Unacknowledged::Store(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "nodes_pending", error)
            }
        }
    }
}

impl From<CutOff> for Problem {
    fn from(error: CutOff) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", error)
    }
}

impl From<DeleteError> for Problem {
    fn from(error: DeleteError) -> Self {
        match error {
            DeleteError::Unknown(error) => error.into(),
            DeleteError::Store(error) => store(&error),
            DeleteError::Unacknowledged(error) => error.into(),
            DeleteError::Died(_) => Self::internal(&error),
        }
    }
}

impl From<tokio::task::JoinError> for Problem {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::internal(&error)
    }
}

impl From<BudgetExceeded> for Problem {
    fn from(error: BudgetExceeded) -> Self {
        Self::overloaded(error)
    }
}

impl From<LowDisk> for Problem {
    fn from(error: LowDisk) -> Self {
        Self::insufficient_storage(error)
    }
}

fn store(error: &StoreError) -> Problem {
    trouble(error.into(), error).unwrap_or_else(|| Problem::internal(error))
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Multipart(error) => error.into(),
            UploadError::TooLarge { .. } => Self::too_large(error),
            UploadError::Io(ref io) if disk::is_full(io) => Self::disk_full(&error),
            UploadError::Io(_) => Self::internal(&error),
            UploadError::Missing
            | UploadError::Twice(_)
            | UploadError::Unknown(_)
            | UploadError::NotText(..)
            | UploadError::Name(_)
            | UploadError::Language(_)
            | UploadError::Setting(_) => Self::invalid_request(error),
            UploadError::Manifest(ManifestError::Package(error)) => images::package(&error),
            UploadError::Manifest(ManifestError::Died(_)) => Self::internal(&error),
            UploadError::Manifest(ManifestError::NotUtf8 | ManifestError::Line { .. }) => Self::invalid_request(error),
        }
    }
}

impl From<MultipartError> for Problem {
    fn from(error: MultipartError) -> Self {
        if let Some(problem) = arrival(&error) {
            return problem;
        }
        match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large("the upload is larger than MAX_FILE_SIZE allows"),
            _ => Self::invalid_request(format!("the multipart body is malformed: {}", error.body_text())),
        }
    }
}

impl From<MultipartRejection> for Problem {
    fn from(rejection: MultipartRejection) -> Self {
        let detail =
            format!("expected multipart/form-data with a boundary and a file field `code`: {}", rejection.body_text());
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::MediaType => Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", error),
            BodyError::NotUtf8 => Self::invalid_request(error),
            BodyError::Bytes(rejection) => rejection.into(),
            BodyError::Json(rejection) => Self::invalid_request(rejection.body_text()),
        }
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        if let Some(problem) = arrival(&rejection) {
            return problem;
        }
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large("the request is larger than the limit of 1 MiB"),
            _ => Self::invalid_request(rejection.body_text()),
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(_: QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_function_id", "give the function's id once, as ?functionId=UUID")
    }
}

impl From<PathRejection> for Problem {
    fn from(_: PathRejection) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_function_id",
            "the path does not hold a function's id, which is a UUID",
        )
    }
}

/// What kept a body from arriving, where it is a matter of ours.
fn arrival(error: &(dyn std::error::Error + 'static)) -> Option<Problem> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| {
        match error.downcast_ref::<BudgetExceeded>() {
            Some(exhausted) => Some(Problem::overloaded(exhausted)),
            None => error.is::<BodyTimeout>().then(Problem::request_timeout),
        }
    })
}
