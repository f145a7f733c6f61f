//! Decides an invocation's outcome from the evidence: exit status, signal, OOM kill or timeout.

use crate::domain::{Outcome, signal_name};
use crate::sandbox::instance::End;

/// An outcome, with the exit status where there is one, and with the reason for an outcome other than `ok`, for people.
type Verdict = (Outcome, Option<i32>, Option<String>);

/// The verdict on an invocation that ended with `end`, in a container with a memory limit of `limit` bytes: the
/// function's own, or DOCKER_MEMORY_LIMIT.
pub(super) fn of(end: &End, limit: u64) -> Verdict {
    match end {
        End::Exited(exit) => {
            // As in wait(2): the low seven bits are the signal, the byte above them is the exit status.
            let signal = exit.wait_status & 0x7f;
            let exit_code = (signal == 0).then_some((exit.wait_status >> 8) & 0xff);
            match exit_code {
                _ if exit.oom == Some(true) => out_of_memory(limit, exit_code),
                Some(0) => (Outcome::Ok, exit_code, None),
                Some(code) => (Outcome::Exit, exit_code, Some(format!("the function ended with exit status {code}"))),
                None => {
                    let error = format!("the function was killed by {}", signal_name(signal));
                    (Outcome::Signal, None, Some(error))
                }
            }
        }
        End::Timeout(limit) => {
            let error = format!(
                "the function did not end within {limit:?} (its `timeout`, else DOCKER_RUN_TIMEOUT) and was killed"
            );
            (Outcome::Timeout, None, Some(error))
        }
        End::OutOfMemory => out_of_memory(limit, None),
        End::Lost => (Outcome::Lost, None, Some("the function's container or Docker went away under it".to_owned())),
    }
}

fn out_of_memory(limit: u64, exit_code: Option<i32>) -> Verdict {
    let error =
        format!("the function ran into the memory limit of {limit} bytes (its `memory`, else DOCKER_MEMORY_LIMIT)");
    (Outcome::OutOfMemory, exit_code, Some(error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sandbox::protocol::Exit;

    #[track_caller]
    fn check(wait_status: i32, oom: Option<bool>, outcome: Outcome, exit_code: Option<i32>, error: Option<&str>) {
        let zero = Duration::ZERO;
        let exit = Exit { wait_status, oom, truncated: false, clean: true, duration: zero, cpu: zero, peak_memory: 0 };
        assert_eq!(of(&End::Exited(exit), 7), (outcome, exit_code, error.map(str::to_owned)));
    }

    #[test]
    fn the_outcome_follows_the_evidence() {
        let out_of_memory =
            Some("the function ran into the memory limit of 7 bytes (its `memory`, else DOCKER_MEMORY_LIMIT)");
        let killed = Some("the function was killed by SIGKILL");
        check(0, Some(false), Outcome::Ok, Some(0), None);
        check(3 << 8, Some(false), Outcome::Exit, Some(3), Some("the function ended with exit status 3"));
        check(9, Some(false), Outcome::Signal, None, killed);
        check(9, Some(true), Outcome::OutOfMemory, None, out_of_memory);
        check(137 << 8, Some(false), Outcome::Exit, Some(137), Some("the function ended with exit status 137"));
        check(1 << 8, Some(true), Outcome::OutOfMemory, Some(1), out_of_memory);
        check(0, Some(true), Outcome::OutOfMemory, Some(0), out_of_memory);
        check(9, None, Outcome::Signal, None, killed);
        check(0x80 | 11, Some(false), Outcome::Signal, None, Some("the function was killed by SIGSEGV"));
    }
}
