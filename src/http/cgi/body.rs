//! The body of a request: whole before an instance is leased, in memory while the body is small, and on disk from then
//! on. So a client that sends slowly holds neither an instance nor much memory.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time;

use super::Gateway;
use crate::http::body::upload::UploadError;
use crate::http::problem::Problem;
use crate::resources::budget::{Budget, BudgetShare};
use crate::resources::scratch::Temporary;
use crate::sandbox::protocol::{Spooled, Stdin};

/// The largest body that stays in memory, in bytes.
const MAX_IN_MEMORY: usize = 64 << 10;
/// The size from which on the bytes that have arrived go to the file, in bytes.
const PIECE: usize = 256 << 10;

/// A whole body, with the shares that the body takes of memory and disk.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) stdin: Stdin,
    /// Held until the invocation ends.
    pub(super) share: [BudgetShare; 2],
}

/// Receives a body within SERVER_READ_TIMEOUT, of at most MAX_REQUEST_SIZE.
pub(super) async fn receive(gateway: &Gateway, spooled: &Arc<Budget>, body: Body) -> Result<Received, Problem> {
    let limit = gateway.config.max_request_size;
    let too_large = || Problem::too_large(format!("the body is larger than {limit} bytes (MAX_REQUEST_SIZE)"));
    if body.size_hint().lower() > limit {
        return Err(too_large());
    }
    let arrival = arrive(gateway, spooled, body, limit, &too_large);
    let arrived = time::timeout(gateway.state.config.read_timeout, arrival).await;
    arrived.unwrap_or_else(|_| Err(Problem::request_timeout()))
}

async fn arrive(
    gateway: &Gateway,
    spooled: &Arc<Budget>,
    mut body: Body,
    limit: u64,
    too_large: &impl Fn() -> Problem,
) -> Result<Received, Problem> {
    let (mut memory, mut disk) = (gateway.state.budget.share(), spooled.share());
    let (mut held, mut size, mut file): (Vec<u8>, usize, Option<Temporary<File>>) = (Vec::new(), 0, None);
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.map_err(|_| unreadable())?.into_data() else { continue };
        size += bytes.len();
        if size as u64 > limit {
            return Err(too_large());
        }
        if file.is_none() && size > MAX_IN_MEMORY {
            gateway.room.check().await?;
            file = Some(gateway.state.scratch.file().await.map_err(UploadError::from)?);
            disk.take(held.len() as u64)?;
        }
        match file {
            Some(_) => disk.take(bytes.len() as u64)?,
            None => memory.take(bytes.len() as u64)?,
        }
        held.extend_from_slice(&bytes);
        if let Some(file) = file.as_mut().filter(|_| held.len() >= PIECE) {
            append(file, &mut held).await?;
        }
    }
    let share = [memory, disk];
    let Some(mut file) = file else { return Ok(Received { stdin: Stdin::Memory(held), share }) };
    append(&mut file, &mut held).await?;
    Ok(Received { stdin: Stdin::File(Spooled { file, size }), share })
}

async fn append(file: &mut Temporary<File>, held: &mut Vec<u8>) -> Result<(), UploadError> {
    let bytes = Bytes::from(std::mem::take(held));
    file.with(move |file| file.write_all(&bytes)).await??;
    Ok(())
}

fn unreadable() -> Problem {
    Problem::unreadable(StatusCode::BAD_REQUEST)
}
