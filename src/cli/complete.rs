//! What a shell asks of a command that a person types: commands, arguments, and the names of functions.

use std::ffi::OsStr;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::time::Duration;

use clap::{CommandFactory, Parser, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;

use super::client::Client;
use super::{Arguments, output};

/// A person waits for the shell.
const PATIENCE: Duration = Duration::from_secs(1);

/// The shells that complete commands.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

/// Answers a shell that completes a command, and ends the process; or does nothing where no shell asks.
pub fn complete() {
    CompleteEnv::with_factory(Arguments::command).complete();
}

/// Prints the script by which a shell asks.
pub(super) fn print(shell: Shell) -> ExitCode {
    let name = shell.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let shells = Shells::builtins();
    let mut script = Vec::new();
    let program = "youtube-serverless";
    let written = shells
        .completer(&name)
        .map(|shell| shell.write_registration("COMPLETE", program, program, program, &mut script));
    if !matches!(written, Some(Ok(()))) {
        return ExitCode::FAILURE;
    }
    output::bytes(&script);
    ExitCode::SUCCESS
}

/// Completes the name of a function of the platform that the environment names.
pub(super) fn functions() -> ArgValueCompleter {
    ArgValueCompleter::new(|begun: &OsStr| {
        let begun = begun.to_string_lossy().into_owned();
        let (sender, names) = channel();
        // A platform that does not answer in time completes nothing. The thread ends with the process.
        std::thread::spawn(move || sender.send(names_of_functions()));
        let names = names.recv_timeout(PATIENCE).unwrap_or_default();
        names.into_iter().filter(|name| name.starts_with(&begun)).map(CompletionCandidate::new).collect()
    })
}

fn names_of_functions() -> Vec<String> {
    // The platform of a command without options, as the environment says.
    let Ok(Arguments { remote, .. }) = Arguments::try_parse_from(["youtube-serverless"]) else { return Vec::new() };
    let client = Client::new(&remote.url, remote.token.as_deref());
    let Ok(answer) = client.get("/api/functions") else { return Vec::new() };
    let names = answer.body.as_array().into_iter().flatten().filter_map(|one| one["name"].as_str());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}
