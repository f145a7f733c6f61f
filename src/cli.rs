//! The command line: a client of the API for people and scripts, and the service itself.

mod client;
mod deploy;
mod folder;
mod functions;
mod invoke;
mod logs;
mod output;
mod transport;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use client::Client;

/// A platform of yours could not be asked, or said no. As in `docker run`.
const EX_PLATFORM: u8 = 125;

/// YouTube Serverless Platform: post a zip with Python or Go code, run it on demand over HTTP.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Option<Command>,
}

const AFTER_HELP: &str = "\
Examples:
  youtube-serverless                              serve, configured by environment variables: see docs/configuration.md
  youtube-serverless deploy ./hello               make a function of a folder
  youtube-serverless invoke hello -i '{\"name\": \"John\"}'
  youtube-serverless logs -f hello                what its invocations came to, as they end
  youtube-serverless logs -f $(youtube-serverless invoke --async hello)
                                                  what one prints, as it prints it
  youtube-serverless deploy ./hello --update hello && youtube-serverless rollback hello
  youtube-serverless ls --json | jq -r '.[].name'
  source <(youtube-serverless completions bash)

The exit status of `invoke`, and of `logs -f INVOCATION`, is the function's own; 124 after a timeout, 137 when
it ran out of memory, 128 and the signal's number when it was killed, and 125 when the platform could not run
it. Other commands end with 0, or 125 when the platform said no.";

/// Which platform is asked.
#[derive(Debug, Args)]
struct Remote {
    /// The platform's address.
    #[arg(long, global = true, env = "YOUTUBE_SERVERLESS_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The platform's API_TOKEN.
    #[arg(long, global = true, env = "API_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Print JSON, as the API has it, and nothing else.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT; this is what no command means.
    Serve,
    /// Copy all that is to be kept to a new file. The service may run meanwhile; DATA_DIR must be its own.
    Backup {
        /// The new file.
        file: PathBuf,
    },
    /// Make a function of a folder, or of a zip. What .gitignore names is left out of a folder.
    Deploy {
        /// The folder or the zip.
        path: PathBuf,
        /// The function's name; default: the folder's or the file's.
        #[arg(long)]
        name: Option<String>,
        /// python or golang, where both are in it.
        #[arg(long)]
        language: Option<String>,
        /// Make it the next version of this function, by its id or a name that only one has, instead of a new function.
        #[arg(long, value_name = "FUNCTION")]
        update: Option<String>,
    },
    /// Run a version again that a function had before.
    Rollback {
        /// Its id, or a name that only one function has.
        function: String,
        /// Which version; default: the one that was run before.
        #[arg(long)]
        version: Option<u32>,
    },
    /// Run a function once: prints its stdout and stderr, and ends as it did.
    Invoke {
        /// Its name or id.
        function: String,
        /// The input, a JSON object; `-` reads it from stdin.
        #[arg(short, long, default_value = "{}")]
        input: String,
        /// Do not wait: print the id of the invocation.
        #[arg(long = "async")]
        is_async: bool,
    },
    /// Show what a function's invocations came to, and what they printed; or what one invocation prints.
    Logs {
        /// The function's name or id, or an invocation's id.
        #[arg(value_name = "FUNCTION|INVOCATION")]
        of: String,
        /// Go on with those that end from now on. One invocation is followed as it prints, to its end.
        #[arg(short, long)]
        follow: bool,
        /// As many of the last as are shown first.
        #[arg(short = 'n', long, default_value_t = 10)]
        lines: u32,
    },
    /// List the functions.
    Ls,
    /// Delete functions, with all that is kept of them.
    Rm {
        /// Their ids, or names that only one function has.
        #[arg(required = true)]
        functions: Vec<String>,
    },
    /// Print what a shell needs to complete this command's arguments.
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

/// What the arguments ask of this machine; all else is done.
#[derive(Debug)]
pub enum Local {
    /// To serve.
    Serve,
    /// To copy all data to this file.
    Backup(PathBuf),
}

impl Arguments {
    /// Does what is asked of a platform elsewhere, and returns with which status to end; or says what is asked of this
    /// one.
    pub fn run(self) -> Result<ExitCode, Local> {
        let remote = self.remote;
        let done = match self.command {
            None | Some(Command::Serve) => return Err(Local::Serve),
            Some(Command::Backup { file }) => return Err(Local::Backup(file)),
            Some(Command::Completions { shell }) => {
                clap_complete::generate(shell, &mut Self::command(), "youtube-serverless", &mut std::io::stdout());
                return Ok(ExitCode::SUCCESS);
            }
            Some(command) => command.ask(&Client::new(&remote.url, remote.token.as_deref()), remote.json),
        };
        Ok(done.unwrap_or_else(|error| {
            eprintln!("youtube-serverless: {error:#}");
            ExitCode::from(EX_PLATFORM)
        }))
    }
}

impl Command {
    fn ask(self, client: &Client, json: bool) -> anyhow::Result<ExitCode> {
        match self {
            Self::Deploy { path, name, language, update } => {
                deploy::run(client, &path, name, language, update.as_deref(), json)
            }
            Self::Rollback { function, version } => functions::roll_back(client, &function, version, json),
            Self::Invoke { function, input, is_async } => invoke::run(client, &function, &input, is_async, json),
            Self::Logs { of, follow, lines } => logs::run(client, &of, follow, lines, json),
            Self::Ls => functions::list(client, json),
            Self::Rm { functions } => functions::remove(client, &functions, json),
            Self::Serve | Self::Backup { .. } | Self::Completions { .. } => unreachable!("done before"),
        }
    }
}
