//! Handlers that execute a function.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State as Extract};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::openapi::{Content, ObjectBuilder, Ref, RefOr, ResponseBuilder, Schema, Type, schema::SchemaType};
use utoipa::{IntoParams, IntoResponses, ToSchema};

use super::State;
use super::openapi::{AnyRoute, OfOneFunction, WithBody};
use super::problem::{Problem, status_of};
use crate::invoke::input::{Input, Object};
use crate::invoke::{Invocation, Outcome};
use crate::pool::Start;

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct ByQuery {
    /// The function's id.
    #[param(format = Uuid)]
    function_id: String,
}

/// What to execute.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Execution)]
pub(super) struct ByBody {
    /// The function's id.
    #[schema(format = Uuid)]
    function_id: String,
    #[schema(schema_with = input_schema)]
    input: Option<Object>,
}

fn input_schema() -> RefOr<Schema> {
    let about = "Each key reaches the function as an environment variable with its name in upper case, `-` and `.` as `_`; \
                 all of it arrives on stdin as JSON, too. Some names are reserved; at most 64 KiB a value, 1 MiB in all.";
    let names = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z_.-][A-Za-z0-9_.-]*$"));
    let object = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Object, Type::Null]));
    object.property_names(Some(names)).description(Some(about)).into()
}

/// How an execution went.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Executed {
    /// Stdout.
    output: String,
    /// That of the response: 200 for `ok`, 504 for `timeout`, else 500.
    status_code: u16,
    /// Unix seconds.
    executed_at: u64,
    #[schema(format = Uuid)]
    invocation_id: String,
    /// `ok`, `exit`, `signal`, `out_of_memory`, `timeout` or `lost`.
    outcome: &'static str,
    /// The exit status, where there is one.
    exit_code: Option<i32>,
    /// Why it is not `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
    stderr: String,
    /// A stream had more than MAX_OUTPUT_SIZE.
    truncated: bool,
    /// `warm` or `cold`.
    start: &'static str,
    /// The wait for a container.
    queued_ms: f64,
    duration_ms: f64,
    /// Processor time.
    cpu_ms: Option<f64>,
    peak_memory_bytes: Option<u64>,
}

/// What became of the function, or a problem.
struct OfExecution;

impl IntoResponses for OfExecution {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let schema = |name| Content::new(Some(Ref::from_schema_name(name)));
        let answers = [
            ("200", "It ended with exit status 0"),
            ("500", "It failed, as `outcome` says; or a problem of the service: `internal`"),
            ("504", "It did not end within DOCKER_RUN_TIMEOUT"),
        ];
        let answer = |(status, about): (&str, &str)| {
            let executed = ResponseBuilder::new().description(about).content("application/json", schema("Executed"));
            let response = match status {
                "500" => executed.content("application/problem+json", schema("Problem")),
                _ => executed,
            };
            (status.to_owned(), response.build().into())
        };
        answers.into_iter().map(answer).collect()
    }
}

type Answer = Result<(StatusCode, [(&'static str, String); 1], Json<Executed>), Problem>;

/// Execute without input
#[utoipa::path(get, path = "/api/execute", tag = "executions", params(ByQuery), responses(AnyRoute, OfOneFunction, OfExecution))]
pub(super) async fn by_query(Extract(state): Extract<State>, query: Result<Query<ByQuery>, QueryRejection>) -> Answer {
    execute(&state, &query?.function_id, Object::default()).await
}

/// Execute
///
/// Runs the function in a process of its own and answers when it has ended. A function that fails is a result.
#[utoipa::path(post, path = "/api/execute", tag = "executions", request_body = ByBody,
    responses(AnyRoute, OfOneFunction, WithBody, OfExecution))]
pub(super) async fn by_body(Extract(state): Extract<State>, body: Result<Json<ByBody>, JsonRejection>) -> Answer {
    let Json(body) = body?;
    execute(&state, &body.function_id, body.input.unwrap_or_default()).await
}

async fn execute(state: &State, function_id: &str, input: Object) -> Answer {
    let id = function_id.parse()?;
    let invocation = state.invoker.invoke(id, Input::parse(input)?).await?;
    let status = status_of(&invocation);
    let (queued, duration) = (milliseconds(invocation.queued), milliseconds(invocation.duration));
    let timing = [("server-timing", format!("queue;dur={queued}, run;dur={duration}"))];
    Ok((status, timing, Json(executed(invocation, status))))
}

fn executed(invocation: Invocation, status: StatusCode) -> Executed {
    let (outcome, exit_code, error) = match invocation.outcome {
        Outcome::Ok => ("ok", Some(0), None),
        Outcome::Exit(code) => ("exit", Some(code), Some(format!("the function ended with exit status {code}"))),
        Outcome::Signal(signal) => ("signal", None, Some(format!("the function was killed by {}", signal_name(signal)))),
        Outcome::OutOfMemory { limit, exit_code } => (
            "out_of_memory",
            exit_code,
            Some(format!("the function ran into the memory limit of {limit} bytes (DOCKER_MEMORY_LIMIT)")),
        ),
        Outcome::Timeout(limit) => {
            let error = format!("the function did not end within {limit:?} (DOCKER_RUN_TIMEOUT) and was killed");
            ("timeout", None, Some(error))
        }
        Outcome::Lost => ("lost", None, Some("the function's container or Docker went away under it".to_owned())),
    };
    Executed {
        output: text(&invocation.stdout, invocation.truncated),
        status_code: status.as_u16(),
        executed_at: invocation.executed_at,
        invocation_id: invocation.id.to_string(),
        outcome,
        exit_code,
        error,
        stderr: text(&invocation.stderr, invocation.truncated),
        truncated: invocation.truncated,
        start: match invocation.start {
            Start::Warm => "warm",
            Start::Cold => "cold",
        },
        queued_ms: milliseconds(invocation.queued),
        duration_ms: milliseconds(invocation.duration),
        cpu_ms: invocation.cpu.map(milliseconds),
        peak_memory_bytes: invocation.peak_memory,
    }
}

/// The stream as text; a cut in the middle of a character leaves that character out.
fn text(bytes: &[u8], truncated: bool) -> String {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if truncated && error.error_len().is_none() => &bytes[..error.valid_up_to()],
        Ok(_) | Err(_) => bytes,
    };
    String::from_utf8_lossy(whole).into_owned()
}

/// With the resolution of a microsecond.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// Its name in signal(7) on Linux, where it has one.
fn signal_name(number: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
        "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR",
        "SYS",
    ];
    let name = usize::try_from(number - 1).ok().and_then(|index| NAMES.get(index));
    name.map_or_else(|| format!("signal {number}"), |name| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_text() {
        assert_eq!(text("é".as_bytes(), false), "é");
        assert_eq!(text(b"a\xffb", false), "a\u{fffd}b");
        assert_eq!(text(&"aé".as_bytes()[..2], false), "a\u{fffd}");
        assert_eq!(text(&"aé".as_bytes()[..2], true), "a");
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(11), "SIGSEGV");
        assert_eq!(signal_name(6), "SIGABRT");
        assert_eq!(signal_name(31), "SIGSYS");
        assert_eq!(signal_name(40), "signal 40");
    }
}
