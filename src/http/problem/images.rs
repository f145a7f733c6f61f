//! Problems of images: of the zip that an image is made from, and of the build.

use axum::http::StatusCode;

use super::trouble::trouble;
use super::{Problem, chain};
use crate::build::BuildError;
use crate::build::package::{DependencyError, DetectError, PackageError};
use crate::functions::images::ImageError;

pub(super) fn image(error: &ImageError) -> Problem {
    // How much room lacks is for the client to know.
    if let ImageError::LowDisk(error) = error {
        return Problem::insufficient_storage(error);
    }
    if let Some(problem) = trouble(error.into(), error) {
        return problem;
    }
    match error {
        ImageError::Package(error) => package(error),
        ImageError::Build(error) => build(error),
        ImageError::Deleted => Problem::new(StatusCode::NOT_FOUND, "function_not_found", error),
        ImageError::LowDisk(_)
        | ImageError::Registry(_)
        | ImageError::Store(_)
        | ImageError::Io(_)
        | ImageError::Died(_) => Problem::internal(error),
    }
}

/// Why an image that was gone is not there again. The zip was good when it was submitted, so it is not the client's
/// fault.
pub(super) fn rebuilt_at(error: &ImageError) -> Problem {
    let problem = image(error);
    let others = [StatusCode::NOT_FOUND, StatusCode::TOO_MANY_REQUESTS];
    let is_known = !problem.status.is_client_error() || others.contains(&problem.status);
    if is_known && problem.status != StatusCode::GATEWAY_TIMEOUT {
        return problem;
    }
    let detail = format!("the function's image was gone and could not be built again: {}", problem.detail);
    tracing::error!(error = %chain(error), "an image could not be built again");
    Problem { status: StatusCode::INTERNAL_SERVER_ERROR, code: "internal", detail, ..problem }
}

pub(super) fn package(error: &PackageError) -> Problem {
    match error {
        PackageError::TooManyEntries(_)
        | PackageError::TooManyFolders
        | PackageError::TooLarge { .. }
        | PackageError::ManifestTooLarge
        | PackageError::ModulesTooLarge => Problem::too_large(error),
        PackageError::Detect(DetectError::Io(_)) | PackageError::Io(_) => Problem::internal(error),
        PackageError::Dependencies(error) => dependencies(error),
        PackageError::Detect(
            DetectError::Nothing { .. }
            | DetectError::Both { .. }
            | DetectError::NotThere { .. }
            | DetectError::Entry { .. }
            | DetectError::NoEntry { .. }
            | DetectError::GoEntry(_),
        ) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "language_not_detected", error),
        PackageError::NotAZip(_)
        | PackageError::Encrypted(_)
        | PackageError::Path { .. }
        | PackageError::Special(_)
        | PackageError::Duplicate(..)
        | PackageError::Repeated
        | PackageError::FileAsFolder(_)
        | PackageError::Overlap
        | PackageError::Damaged { .. } => Problem::new(StatusCode::BAD_REQUEST, "invalid_archive", error),
    }
}

pub(super) fn dependencies(error: &DependencyError) -> Problem {
    match error {
        DependencyError::Io(_) => Problem::internal(error),
        DependencyError::Refused { .. }
        | DependencyError::Encoding { .. }
        | DependencyError::TooLarge { .. }
        | DependencyError::TooMany
        | DependencyError::TooLargeTogether
        | DependencyError::LocalSource(_)
        | DependencyError::Project(_)
        | DependencyError::Dynamic => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "build_failed", error),
    }
}

pub(super) fn build(error: &BuildError) -> Problem {
    match error {
        BuildError::Failed { log } => {
            let build_log = Some(log.clone());
            Problem { build_log, ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "build_failed", error) }
        }
        BuildError::NotMain { .. } => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "language_not_detected", error),
        BuildError::Dependencies(error) => dependencies(error),
        BuildError::SourceBuild(_) | BuildError::NoNetwork | BuildError::Tree(_) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "build_failed", error)
        }
        BuildError::QueueFull { .. } | BuildError::QueueTimeout { .. } => Problem::overloaded(error),
        BuildError::Timeout { .. } => Problem::new(StatusCode::GATEWAY_TIMEOUT, "build_timeout", error),
        BuildError::Cancelled => Problem::shutting_down(),
        BuildError::Runtime(_) | BuildError::Docker(_) | BuildError::Io(_) => Problem::internal(error),
    }
}
