//! The problems of schedules.

use axum::http::StatusCode;

use super::Problem;
use crate::domain::{InvalidScheduleName, UnknownSchedule};
use crate::schedules::{ScheduleError, TimesError};

impl Problem {
    pub(in crate::http) fn invalid_schedule(detail: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_schedule", detail)
    }
}

impl From<InvalidScheduleName> for Problem {
    fn from(error: InvalidScheduleName) -> Self {
        Self::invalid_schedule(error)
    }
}

impl From<UnknownSchedule> for Problem {
    fn from(error: UnknownSchedule) -> Self {
        Self::new(StatusCode::NOT_FOUND, "schedule_not_found", error)
    }
}

impl From<TimesError> for Problem {
    fn from(error: TimesError) -> Self {
        match error {
            TimesError::Cron(_) | TimesError::Zone(_) => Self::invalid_schedule(error),
        }
    }
}

impl From<ScheduleError> for Problem {
    fn from(error: ScheduleError) -> Self {
        match error {
            ScheduleError::Function(error) => error.into(),
            ScheduleError::Schedule(error) => error.into(),
            ScheduleError::Times(error) => error.into(),
            ScheduleError::Input(error) => error.into(),
            ScheduleError::TooMany(_) => Self::new(StatusCode::CONFLICT, "too_many_schedules", error),
            ScheduleError::Accept(error) => error.into(),
            ScheduleError::Store(error) => error.into(),
            ScheduleError::Died(error) => error.into(),
        }
    }
}
