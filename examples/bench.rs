//! Measures executions against `docker run` typed by hand, in turn, on this machine: `make bench`.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program that runs others, measures real time and prints"
)]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::multipart::{Form, Part};
use reqwest::{Client, Url};
use serde_json::{Value, json};

const COLD_ROUNDS: usize = 30;
const PORT: &str = "8089";

#[tokio::main]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let service = Service::start(dir.path()).await?;
    println!("| function | docker run by hand, p50 | execute, p50 | ratio |");
    println!("| --- | --- | --- | --- |");
    for language in ["python", "go"] {
        let function = service.submit(language).await?;
        let (mut by_hand, mut ours) = (Vec::new(), Vec::new());
        for round in 0..=COLD_ROUNDS {
            let hand = docker_run(&function)?;
            let our = service.execute(&function).await?;
            // The first round warms the caches of both.
            if round > 0 {
                by_hand.push(hand);
                ours.push(our);
            }
        }
        let (by_hand, ours) = (median(&mut by_hand), median(&mut ours));
        println!("| {language} | {by_hand:.1?} | {ours:.1?} | {:.2} |", ours.as_secs_f64() / by_hand.as_secs_f64());
        service.delete(&function).await?;
    }
    service.stop()
}

struct Function {
    id: String,
    image: String,
    /// What one types to run the program without the platform.
    command: &'static [&'static str],
}

struct Service {
    child: Child,
    client: Client,
    url: Url,
}

impl Service {
    async fn start(dir: &std::path::Path) -> Result<Self> {
        let child = command("target/release/youtube-serverless")
            .env("SERVER_PORT", PORT)
            .env("DATA_DIR", dir.join("data"))
            .env("TEMP_DIR_BASE", dir)
            .env("LOG_LEVEL", "error")
            .spawn()
            .context("failed to start target/release/youtube-serverless; `make bench` builds it first")?;
        let service = Self { child, client: Client::new(), url: format!("http://127.0.0.1:{PORT}").parse()? };
        let deadline = Instant::now() + Duration::from_secs(60);
        while service.client.get(service.url.join("/health")?).send().await.map_or(true, |answer| !answer.status().is_success()) {
            ensure!(Instant::now() < deadline, "the service is not healthy after a minute");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(service)
    }

    async fn submit(&self, language: &str) -> Result<Function> {
        let (file, command): (_, &[&str]) = match language {
            "python" => ("examples/python-hello/main.py", &["--entrypoint=python3", "IMAGE", "main.py"]),
            _ => ("examples/go-hello/main.go", &["--entrypoint=/function", "IMAGE"]),
        };
        let name = file.rsplit('/').next().context("a path")?;
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file(name, zip::write::SimpleFileOptions::default())?;
        std::io::Write::write_all(&mut zip, &std::fs::read(file)?)?;
        let part = Part::bytes(zip.finish()?.into_inner()).file_name("bench.zip");
        let request = self.client.post(self.url.join("/api/submit")?).multipart(Form::new().part("code", part));
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        let text = |key: &str| answer[key].as_str().map(str::to_owned).context("an answer to a submit");
        Ok(Function { id: text("functionId")?, image: text("imageId")?, command })
    }

    async fn execute(&self, function: &Function) -> Result<Duration> {
        let body = json!({"functionId": function.id, "input": {"name": "John"}});
        let started = Instant::now();
        let answer: Value = self.client.post(self.url.join("/api/execute")?).json(&body).send().await?.json().await?;
        let elapsed = started.elapsed();
        ensure!(answer["output"] == "Hello, John!\n", "an unexpected answer: {answer}");
        Ok(elapsed)
    }

    async fn delete(&self, function: &Function) -> Result<()> {
        let path = format!("/api/functions/{}", function.id);
        self.client.delete(self.url.join(&path)?).send().await?.error_for_status()?;
        Ok(())
    }

    fn stop(mut self) -> Result<()> {
        ensure!(command("kill").arg(self.child.id().to_string()).status()?.success(), "failed to stop the service");
        ensure!(self.child.wait()?.success(), "the service did not stop cleanly");
        Ok(())
    }
}

/// The same container as ours, with the program in it and nothing of the platform.
fn docker_run(function: &Function) -> Result<Duration> {
    let sandbox = "run --rm -i --network=none --read-only --cap-drop=ALL --security-opt=no-new-privileges --log-driver=none \
                   --user=65534:65534 --memory=128000000 --memory-swap=128000000 --cpus=1 --pids-limit=64 \
                   --ulimit=nofile=1024:1024 --ulimit=core=0:0 --oom-score-adj=500 --env=NAME=John \
                   --tmpfs=/tmp:rw,noexec,nosuid,nodev,mode=1777,size=64000000";
    let program = function.command.iter().map(|&arg| if arg == "IMAGE" { function.image.as_str() } else { arg });
    let started = Instant::now();
    let output = command("docker").args(sandbox.split_whitespace()).args(program).stdin(Stdio::null()).output()?;
    let elapsed = started.elapsed();
    ensure!(output.stdout == b"Hello, John!\n", "docker run: {}", String::from_utf8_lossy(&output.stderr));
    Ok(elapsed)
}

fn command(program: &str) -> Command {
    Command::new(program)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
