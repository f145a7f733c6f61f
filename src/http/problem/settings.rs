//! The problems of settings that a function may not have.

use axum::http::StatusCode;

use super::Problem;
use crate::domain::settings::SettingsError;

impl From<SettingsError> for Problem {
    fn from(error: SettingsError) -> Self {
        let code = match &error {
            SettingsError::HttpOff { .. } => "http_functions_off",
            SettingsError::HttpNotAllowed(..) => "http_not_allowed",
            _ => "invalid_settings",
        };
        Self::new(StatusCode::BAD_REQUEST, code, error)
    }
}
