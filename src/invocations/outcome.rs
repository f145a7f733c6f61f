//! Decides an invocation's outcome from the evidence: exit status, signal, OOM kill or timeout.

use crate::domain::Outcome;
use crate::sandbox::instance::End;
use crate::sandbox::protocol::Exit;

/// The outcome of a process that exited, in a container with a memory limit of `limit` bytes.
fn of(exit: &Exit, limit: u64) -> Outcome {
    // As in wait(2): the low seven bits are the signal, the byte above them is the exit status.
    let signal = exit.wait_status & 0x7f;
    let exit_code = (signal == 0).then_some((exit.wait_status >> 8) & 0xff);
    if exit.oom == Some(true) {
        return Outcome::OutOfMemory { limit, exit_code };
    }
    match exit_code {
        Some(0) => Outcome::Ok,
        Some(code) => Outcome::Exit(code),
        None => Outcome::Signal(signal),
    }
}

/// The outcome of an invocation that ended with `end`, in a container with a memory limit of `limit` bytes.
pub(super) fn of_end(end: &End, limit: u64) -> Outcome {
    match end {
        End::Exited(exit) => of(exit, limit),
        End::Timeout(after) => Outcome::Timeout(*after),
        End::OutOfMemory => Outcome::OutOfMemory { limit, exit_code: None },
        End::Lost => Outcome::Lost,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[track_caller]
    fn check(wait_status: i32, oom: Option<bool>, expected: Outcome) {
        let zero = Duration::ZERO;
        let exit = Exit { wait_status, oom, truncated: false, clean: true, duration: zero, cpu: zero, peak_memory: 0 };
        assert_eq!(of(&exit, 7), expected);
    }

    #[test]
    fn the_outcome_follows_the_evidence() {
        check(0, Some(false), Outcome::Ok);
        check(3 << 8, Some(false), Outcome::Exit(3));
        check(9, Some(false), Outcome::Signal(9));
        check(9, Some(true), Outcome::OutOfMemory { limit: 7, exit_code: None });
        check(137 << 8, Some(false), Outcome::Exit(137));
        check(1 << 8, Some(true), Outcome::OutOfMemory { limit: 7, exit_code: Some(1) });
        check(0, Some(true), Outcome::OutOfMemory { limit: 7, exit_code: Some(0) });
        check(9, None, Outcome::Signal(9));
        check(0x80 | 11, Some(false), Outcome::Signal(11));
    }
}
