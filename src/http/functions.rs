//! Handlers that submit, list, show and delete functions.

use axum::Json;
use axum::extract::multipart::MultipartRejection;
use axum::extract::rejection::PathRejection;
use axum::extract::{Multipart, Path, State as Extract};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use serde::Serialize;

use super::problem::Problem;
use super::upload::{self, UploadError};
use super::{MULTIPART_OVERHEAD, State};
use crate::registry::Function;
use crate::types::{FunctionId, UnknownFunction};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Submitted {
    function_id: String,
    image_id: String,
    message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    function_id: String,
    image_id: String,
    language: &'static str,
    created_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_executed: Option<u64>,
    name: String,
}

#[derive(Serialize)]
pub(super) struct Deleted {
    message: String,
}

pub(super) async fn submit(
    Extract(state): Extract<State>,
    headers: HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Json<Submitted>, Problem> {
    let limit = state.settings.max_file_size;
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit + MULTIPART_OVERHEAD) {
        return Err(UploadError::TooLarge { limit }.into());
    }
    state.deployer.check_room()?;
    let upload = upload::receive(form?, state.platform.temp_dir(), limit).await?;
    let function = state.deployer.deploy(upload).await?;
    Ok(Json(Submitted {
        function_id: function.id.to_string(),
        image_id: function.image().id.as_str().to_owned(),
        message: format!("Function '{}' deployed successfully", function.name),
    }))
}

pub(super) async fn list(Extract(state): Extract<State>) -> Json<Vec<Shown>> {
    Json(state.registry.list().iter().map(|function| shown(function)).collect())
}

pub(super) async fn show(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Shown>, Problem> {
    let id: FunctionId = id?.parse()?;
    let function = state.registry.get(id).ok_or(UnknownFunction(id))?;
    Ok(Json(shown(&function)))
}

pub(super) async fn delete(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Deleted>, Problem> {
    let id: FunctionId = id?.parse()?;
    state.deployer.delete(id).await?;
    Ok(Json(Deleted { message: format!("Function {id} deleted successfully") }))
}

fn shown(function: &Function) -> Shown {
    Shown {
        function_id: function.id.to_string(),
        image_id: function.image().id.as_str().to_owned(),
        language: function.language.as_str(),
        created_at: function.created_at,
        last_executed: function.executions().last,
        name: function.name.to_string(),
    }
}
