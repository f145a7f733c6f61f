//! The command line: a client of the API for people and scripts, and the service itself.

mod browser;
mod client;
mod complete;
mod deploy;
mod folder;
mod functions;
mod init;
mod invoke;
mod logs;
mod output;
mod runs;
mod schedules;
mod settings;
mod tokens;
mod transport;
mod versions;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use complete::complete;

use client::Client;
use deploy::{Target, Texts};

/// The exit status where the platform does not answer or refuses, as of `docker run`.
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
  youtube-serverless init ./hello && youtube-serverless deploy ./hello
                                                  a first function; the same deploy updates the function later
  youtube-serverless invoke hello -i '{\"name\": \"John\"}'
  youtube-serverless logs -f hello                what the function's invocations print, as they print it
  youtube-serverless logs -f $(youtube-serverless invoke --async hello)
                                                  the output of an invocation, without delay
  youtube-serverless deploy ./hello && youtube-serverless rollback hello
  youtube-serverless deploy ./fetch --allow api.example.com:443 --allow db.internal:5432
  youtube-serverless deploy ./shop --http public && curl http://127.0.0.1:8081/f/shop/
  youtube-serverless deploy ./job --notify https://hooks.example.com/failed
  youtube-serverless schedule add hello '0 3 * * *' --zone Europe/Berlin
  youtube-serverless settings hello memory=256MB timeout=10s
  youtube-serverless secret set hello API_KEY < key.txt
  youtube-serverless allow hello api.example.com:443
  youtube-serverless runs --outcome failed --since 1h
  youtube-serverless ls --json | jq -r '.[].name'
  TOKEN=$(youtube-serverless token create ci --scope deploy --function hello --expires 90d)
  source <(youtube-serverless completions bash)

The exit status of `invoke`, `again` and `logs -f INVOCATION` is the function's own; 124 after a timeout, 137 when
it ran out of memory, 128 and the signal's number when it was killed, and 125 when the platform could not run
it. Other commands end with 0, or 125 when the platform said no.";

/// The platform that a command calls.
#[derive(Debug, Args)]
struct Remote {
    /// The platform's address.
    #[arg(long, global = true, env = "YOUTUBE_SERVERLESS_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The platform's API_TOKEN, or another token of the platform.
    #[arg(long, global = true, env = "API_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Print the API's JSON, and nothing else.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT. The program does the same without a command.
    Serve,
    /// Copy all functions and their history to a new file. The service may run meanwhile; DATA_DIR must be the
    /// service's.
    Backup {
        /// The new file.
        file: PathBuf,
    },
    /// Copy all functions and their history from the file in DATA_DIR into the empty PostgreSQL of STORE_URL. The
    /// service must not run meanwhile. In the file, too, secrets are sealed then.
    MigrateStore,
    /// Make a function of a folder or a zip, or update the function of that name. Files that .gitignore names are left
    /// out. A function.toml in the folder says what the function is.
    Deploy {
        /// The folder or the zip.
        path: PathBuf,
        /// The function's name. The default is the name in function.toml, or that of the folder or the zip.
        #[arg(long)]
        name: Option<String>,
        /// Make another function, also where functions have the name already.
        #[arg(long, conflicts_with = "update")]
        new: bool,
        /// python or golang, for code that fits both.
        #[arg(long)]
        language: Option<String>,
        /// A host and a port that the function may reach, such as api.example.com:443, once for each. An update without
        /// this leaves the function's network as it is.
        #[arg(long, value_name = "HOST:PORT")]
        allow: Vec<String>,
        /// Whose requests the function answers over HTTP: off, token or public.
        #[arg(long, value_name = "MODE")]
        http: Option<String>,
        /// A URL that is told, by Standard Webhooks, when an asynchronous execution has failed. The key of the
        /// signatures is shown once, on stderr. An empty text ends that. An update without this leaves the receiver as
        /// the receiver is.
        #[arg(long, value_name = "URL")]
        notify: Option<String>,
        /// The ends that the URL is told of: failure, success, or both.
        #[arg(long, value_name = "EVENTS", value_delimiter = ',', default_value = "failure", requires = "notify")]
        notify_on: Vec<String>,
        /// Update this function, whatever its name: an id, or a name that only one function has.
        #[arg(long, value_name = "FUNCTION")]
        update: Option<String>,
    },
    /// Write a first function into a folder, with a function.toml: change the code, and deploy the folder.
    Init {
        /// The folder. Its name becomes the function's name.
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// What the function is to be.
        #[arg(long, value_enum, default_value_t = init::Starter::Python)]
        starter: init::Starter,
    },
    /// Run an earlier version of a function again.
    Rollback {
        /// The function's id, or a name that only one function has.
        #[arg(add = complete::functions())]
        function: String,
        /// The number of the version. The default is the version that ran before.
        #[arg(long)]
        version: Option<u32>,
    },
    /// Run a function once: print its stdout and stderr, and end with its exit status.
    Invoke {
        /// The function's name or id.
        #[arg(add = complete::functions())]
        function: String,
        /// The input, a JSON object; `-` reads it from stdin.
        #[arg(short, long, default_value = "{}")]
        input: String,
        /// Do not wait: print the id of the invocation.
        #[arg(long = "async")]
        is_async: bool,
    },
    /// Show the invocations of a function with their output, or the output of one invocation.
    Logs {
        /// The function's name or id, or an invocation's id.
        #[arg(value_name = "FUNCTION|INVOCATION", add = complete::functions())]
        of: String,
        /// Show what each further invocation prints, as the invocation prints it; of one invocation, to its end.
        #[arg(short, long)]
        follow: bool,
        /// The number of invocations to begin with.
        #[arg(short = 'n', long, default_value_t = 10)]
        lines: u32,
    },
    /// Have a function run by itself at times.
    #[command(subcommand)]
    Schedule(schedules::Schedule),
    /// Show a function's settings, or change some.
    Settings(settings::Settings),
    /// The variables of a function's environment.
    #[command(subcommand)]
    Env(settings::Env),
    /// The secrets of a function: variables that are never shown.
    #[command(subcommand)]
    Secret(settings::Secret),
    /// Have a function reach hosts, or list what a function may reach.
    Allow(settings::Allow),
    /// List the last invocations of all functions, or of one.
    Runs(runs::Runs),
    /// Run a function again with the input of an earlier invocation, as `invoke` does.
    Again {
        /// The invocation's id.
        invocation: String,
        /// Do not wait: print the id of the new invocation.
        #[arg(long = "async")]
        is_async: bool,
    },
    /// List the versions of a function, or show the log of a version's build.
    Versions {
        #[command(flatten)]
        one: settings::One,
        /// The number of a version: show what its build has said.
        number: Option<u32>,
    },
    /// Get the zip of a function's version.
    Code {
        #[command(flatten)]
        one: settings::One,
        /// The number of the version. The default is the version that runs.
        #[arg(long)]
        version: Option<u32>,
        /// The file; `-` is stdout. The default is the function's name with the version's number.
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Open the console, or a function's page there, in a browser.
    Open {
        /// The function's id, or a name that only one function has.
        #[arg(add = complete::functions())]
        function: Option<String>,
    },
    /// List the functions.
    Ls,
    /// Delete functions with their versions and history.
    Rm {
        /// The functions' ids, or names that only one function has.
        #[arg(required = true, add = complete::functions())]
        functions: Vec<String>,
    },
    /// Make, list and delete tokens for clients that may do less than the holder of API_TOKEN.
    Token {
        #[command(subcommand)]
        command: tokens::TokenCommand,
    },
    /// Print a script by which a shell completes this command's arguments.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: complete::Shell,
    },
}

/// The commands that need this machine's data. All other commands are calls of a platform.
#[derive(Debug)]
pub enum Local {
    /// Serve.
    Serve,
    /// Copy all data to this file.
    Backup(PathBuf),
    /// Copy all data to PostgreSQL.
    MigrateStore,
}

impl Arguments {
    /// Does what is asked of a platform elsewhere, and returns with which status to end; or says what is asked of this
    /// one.
    pub fn run(self) -> Result<ExitCode, Local> {
        let remote = self.remote;
        let done = match self.command {
            None | Some(Command::Serve) => return Err(Local::Serve),
            Some(Command::Backup { file }) => return Err(Local::Backup(file)),
            Some(Command::MigrateStore) => return Err(Local::MigrateStore),
            Some(Command::Completions { shell }) => {
                return Ok(complete::print(shell));
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
            Self::Deploy { path, name, new, language, allow, http, notify, notify_on, update } => {
                let notify = notify.map(|url| (url, notify_on));
                let target = match update {
                    Some(function) => Target::Update(function),
                    None if new => Target::New,
                    None => Target::Named,
                };
                deploy::run(client, &path, Texts { name, language, allow, http, notify }, target, json)
            }
            Self::Init { folder, starter } => init::run(&folder, starter, json),
            Self::Rollback { function, version } => functions::roll_back(client, &function, version, json),
            Self::Invoke { function, input, is_async } => invoke::run(client, &function, &input, is_async, json),
            Self::Logs { of, follow, lines } => logs::run(client, &of, follow, lines, json),
            Self::Schedule(command) => schedules::run(client, command, json),
            Self::Settings(command) => settings::settings(client, command, json),
            Self::Env(command) => settings::env(client, command, json),
            Self::Secret(command) => settings::secret(client, command, json),
            Self::Allow(command) => settings::allow(client, command, json),
            Self::Runs(command) => runs::list(client, command, json),
            Self::Again { invocation, is_async } => runs::again(client, &invocation, is_async, json),
            Self::Versions { one, number } => versions::list(client, &one.function, number, json),
            Self::Code { one, version, output } => versions::code(client, &one.function, version, output, json),
            Self::Open { function } => browser::open(client, function.as_deref(), json),
            Self::Ls => functions::list(client, json),
            Self::Rm { functions } => functions::remove(client, &functions, json),
            Self::Token { command } => command.ask(client, json),
            Self::Serve | Self::Backup { .. } | Self::MigrateStore | Self::Completions { .. } => {
                unreachable!("done before")
            }
        }
    }
}
