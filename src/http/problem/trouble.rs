//! The problem of what the platform itself lacks.

use super::Problem;
use crate::docker::{Cause, Failure};

/// The platform's own trouble has the same problem in all places.
pub(super) fn trouble(failure: Failure, error: &(dyn std::error::Error + 'static)) -> Option<Problem> {
    match failure {
        Failure::Transient(Cause::Docker) => Some(Problem::docker(error)),
        Failure::Transient(Cause::Disk) => Some(Problem::disk_full(error)),
        Failure::Transient(Cause::Store) => Some(Problem::store(error)),
        Failure::Transient(Cause::Registry) => Some(Problem::registry(error)),
        Failure::Transient(Cause::Load) => Some(Problem::overloaded(error)),
        Failure::Transient(Cause::Service) | Failure::Suspect | Failure::Permanent | Failure::Abandoned => None,
    }
}
