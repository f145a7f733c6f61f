//! The response of a function, as the function writes.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::Response;
use bytes::BytesMut;
use futures_util::{Stream, stream};
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::Gateway;
use super::head::{self, Begun, Head};
use crate::domain::{InvocationId, InvocationRecord, Outcome};
use crate::http::problem::{OfFunction, Problem};
use crate::invocations::input::Input;
use crate::invocations::invoke::Ready;
use crate::resources::budget::BudgetShare;
use crate::sandbox::output::Output;

const INVOCATION_ID: HeaderName = HeaderName::from_static("x-invocation-id");

/// The size from which on text without a header goes out before the function has ended, in bytes.
const MAX_HELD_BACK: usize = 32 << 10;

/// A running invocation. A drop ends the invocation, as when the client has left.
#[must_use]
#[derive(Debug)]
pub(super) struct Invocation {
    id: InvocationId,
    output: Arc<Output>,
    /// A task of its own: a client that reads slowly must not keep an invocation from its end. None after the end.
    task: Option<JoinHandle<InvocationRecord>>,
}

impl Drop for Invocation {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
    }
}

/// Begins an invocation on an instance. The shares are held until the end.
pub(super) fn begin(
    gateway: &Gateway,
    ready: Ready,
    record: InvocationRecord,
    input: Input,
    shares: [BudgetShare; 2],
) -> Invocation {
    let (invoker, id) = (Arc::clone(&gateway.state.invoker), record.id);
    let output = invoker.flow();
    let flow = Arc::clone(&output);
    let run = async move {
        let record = invoker.serve(ready, record, input, &flow).await;
        drop(shares);
        record
    };
    Invocation { id, output, task: Some(gateway.tasks.spawn(run.in_current_span())) }
}

/// The response, once the function has written its header. The body follows as the function writes.
pub(super) async fn answer(mut invocation: Invocation, method: &Method) -> Result<Response, Problem> {
    let id = invocation.id;
    let (head, first) = invocation.head().await?;
    let has_body = *method != Method::HEAD && !matches!(head.status.as_u16(), 204 | 304);
    let body = if has_body {
        Body::from_stream(rest(invocation, first))
    } else {
        while invocation.output.take().await.is_some() {}
        invocation.end().await?;
        Body::empty()
    };
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.fields;
    let id = HeaderValue::from_str(&id.to_string()).expect("an id is visible ASCII");
    response.headers_mut().insert(INVOCATION_ID, id);
    response.extensions_mut().insert(OfFunction);
    Ok(response)
}

impl Invocation {
    /// Waits for the header, and returns the beginning of the body, too.
    async fn head(&mut self) -> Result<(Head, Bytes), Problem> {
        let mut begin = BytesMut::new();
        loop {
            let taken = self.output.take().await;
            let is_whole = taken.is_none();
            begin.extend_from_slice(&taken.unwrap_or_default());
            match head::begun(&begin, is_whole) {
                Begun::Head(head, size) => {
                    let first = begin.split_off(size).freeze();
                    return Ok((head, first));
                }
                Begun::Invalid(reason) => return Err(Problem::invalid_response(self.id, reason)),
                // Text without a header has no point from which on the response stands, so a failure is told while
                // that is possible.
                Begun::Text if is_whole => {
                    self.end().await?;
                    return Ok((Head::text(), begin.freeze()));
                }
                Begun::Text if begin.len() > MAX_HELD_BACK => return Ok((Head::text(), begin.freeze())),
                Begun::Text | Begun::Maybe => {}
            }
        }
    }

    /// Waits for the end of the invocation, whose output was taken. Fails when the function has failed.
    async fn end(&mut self) -> Result<(), Problem> {
        let Some(task) = &mut self.task else { return Ok(()) };
        let record = task.await?;
        self.task = None;
        if record.outcome == Outcome::Ok { Ok(()) } else { Err(Problem::function_failed(&record)) }
    }
}

/// The body: `first`, and what the function writes from now on. The body of a function that fails breaks off, so that
/// the client does not take a part for the whole.
fn rest(invocation: Invocation, first: Bytes) -> impl Stream<Item = io::Result<Bytes>> {
    let first = Some(first).filter(|first| !first.is_empty());
    stream::unfold(Some((invocation, first)), async |state| {
        let (mut invocation, first) = state?;
        if let Some(first) = first {
            return Some((Ok(first), Some((invocation, None))));
        }
        match invocation.output.take().await {
            Some(bytes) => Some((Ok(bytes), Some((invocation, None)))),
            None => {
                let failed = invocation.end().await.err();
                // The client gets what comes before: hyper sends its buffer while the body has nothing new.
                tokio::task::yield_now().await;
                failed.map(|_| (Err(io::Error::other("the function failed")), None))
            }
        }
    })
}
