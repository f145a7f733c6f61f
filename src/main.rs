//! The program: a client of a platform, or the service itself. The service reads its configuration, listens, and serves
//! until a signal.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use youtube_serverless::app::{self, Listeners};
use youtube_serverless::cli::{self, Arguments, Local};
use youtube_serverless::config::{self, Config};
use youtube_serverless::telemetry::{self, Collector};

/// The exit status for a wrong configuration, as in sysexits.h: a restart does not help.
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    cli::complete();
    let local = match Arguments::parse().run() {
        Ok(status) => return status,
        Err(local) => local,
    };
    let config = config::environment().context("failed to read .env").and_then(|vars| Ok(Config::from_vars(vars)?));
    let config = match config {
        Ok(config) => config,
        Err(error) => return fail(&error, EX_CONFIG),
    };
    let limit = config::collector_limit().filter(|_| matches!(local, Local::Serve));
    let collector = match limit.map(Collector::from_environment).transpose() {
        Ok(collector) => collector,
        Err(error) => return fail(&error.into(), EX_CONFIG),
    };
    telemetry::start(config.log_level, config.log_format, collector.as_ref());
    let done = match local {
        Local::Serve => run(serve(config)),
        Local::Backup(file) => run(app::backup(&config, &file)),
        Local::MigrateStore => run(app::migrate_store(&config)),
    };
    // A second signal ends the process without this wait.
    if let (Some(collector), Ok(())) = (collector, &done) {
        collector.stop();
    }
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

/// The largest number of threads for blocking work. Further work waits.
const BLOCKING_THREADS: usize = 32;

/// Runs work to its end on the service's threads, see docs/architecture.md.
fn run(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut threads = runtime::Builder::new_current_thread();
    threads.max_blocking_threads(BLOCKING_THREADS).enable_all().build()?.block_on(work)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let listeners = Listeners::bind(&config).await?;
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut run = app::run(config, listeners, stop.clone());
    let mut is_stopping = false;
    loop {
        let name = tokio::select! {
            ended = &mut run => return ended,
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        if std::mem::replace(&mut is_stopping, true) {
            anyhow::bail!("{name} came again: stopped at once; what is left is removed at the next start");
        }
        tracing::info!(signal = name, "shutting down");
        stop.cancel();
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("youtube-serverless: {error:#}");
    ExitCode::from(code)
}
