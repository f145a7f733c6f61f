//! The problem of a network that a function may not have.

use axum::http::StatusCode;

use super::Problem;
use crate::deployments::NetworkRefusal;

impl From<NetworkRefusal> for Problem {
    fn from(error: NetworkRefusal) -> Self {
        let (status, code) = match &error {
            NetworkRefusal::NotAllowed(_) | NetworkRefusal::NoneAllowed(_) | NetworkRefusal::NotifyNotAllowed(_) => {
                (StatusCode::BAD_REQUEST, "network_not_allowed")
            }
            NetworkRefusal::NotAvailable(_) => (StatusCode::BAD_REQUEST, "network_not_available"),
            NetworkRefusal::Unknown => (StatusCode::SERVICE_UNAVAILABLE, "docker_unavailable"),
        };
        Self::new(status, code, error)
    }
}
