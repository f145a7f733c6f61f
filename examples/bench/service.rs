//! The service under measurement, as a process of its own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::multipart::{Form, Part};
use reqwest::{Client, Url};
use serde_json::{Value, json};

pub(crate) const CONTAINER_LIMIT: usize = 10;
const PROGRAM: &str = "target/release/youtube-serverless";
const PORT: (&str, &str) = ("SERVER_PORT", "8089");

pub(crate) struct Service {
    child: Child,
    client: Client,
    url: Url,
}

pub(crate) struct Function {
    pub(crate) id: String,
    pub(crate) image: String,
}

impl Drop for Service {
    /// A measurement that fails leaves no service and no container behind.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
            let _ = self.child.wait();
        }
    }
}

impl Service {
    pub(crate) async fn start(dir: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_by(Command::new(PROGRAM), dir, settings).await
    }

    /// Starts the service where this file stands in for /etc/hosts. Needs root.
    pub(crate) async fn start_with_hosts(dir: &Path, settings: &[(&str, &str)], hosts: &Path) -> Result<Self> {
        let mut outer = Command::new("unshare");
        outer.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$1\""]).arg(hosts).arg(PROGRAM);
        Self::start_by(outer, dir, settings).await
    }

    async fn start_by(mut command: Command, dir: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let child = command
            .envs([PORT, ("LOG_LEVEL", "error"), ("QUEUE_TIMEOUT", "60s")])
            .env("DATA_DIR", dir.join("data"))
            .env("TEMP_DIR_BASE", dir)
            .env("DOCKER_CONTAINER_LIMIT", CONTAINER_LIMIT.to_string())
            .envs(settings.iter().copied())
            .spawn()
            .with_context(|| format!("failed to start {PROGRAM}; `make bench` first builds the program"))?;
        // The client closes an idle connection before the service does, so that no request meets a closing connection.
        let client = Client::builder().pool_idle_timeout(Duration::from_secs(5)).build()?;
        let (_, port) = settings.iter().find(|(name, _)| *name == PORT.0).unwrap_or(&PORT);
        let service = Self { child, client, url: format!("http://127.0.0.1:{port}").parse()? };
        let deadline = Instant::now() + Duration::from_secs(60);
        while service
            .client
            .get(service.url.join("/health")?)
            .send()
            .await
            .map_or(true, |answer| !answer.status().is_success())
        {
            ensure!(Instant::now() < deadline, "the service is not healthy after a minute");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(service)
    }

    /// Submits an example, and returns the time of the submit with a first execution, too.
    pub(crate) async fn submit(&self, language: &str) -> Result<(Function, Duration)> {
        let name = if language == "python" { "main.py" } else { "main.go" };
        self.submit_files(&[(name, &fs::read_to_string(format!("examples/{language}-hello/{name}"))?)]).await
    }

    /// Submits a program that greets, and returns the time of the submit with a first execution, too.
    pub(crate) async fn submit_files(&self, files: &[(&str, &str)]) -> Result<(Function, Duration)> {
        let started = Instant::now();
        let function = self.deploy(files, &[]).await?;
        self.execute(&function).await?;
        Ok((function, started.elapsed()))
    }

    /// Submits a program with form fields.
    pub(crate) async fn deploy(&self, files: &[(&str, &str)], fields: &[(&'static str, String)]) -> Result<Function> {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, content) in files {
            zip.start_file(*name, zip::write::SimpleFileOptions::default())?;
            std::io::Write::write_all(&mut zip, content.as_bytes())?;
        }
        let part = Part::bytes(zip.finish()?.into_inner()).file_name("bench.zip");
        let form = Form::new().part("code", part);
        let form = fields.iter().fold(form, |form, (name, value)| form.text(*name, value.clone()));
        let request = self.client.post(self.url.join("/api/submit")?).multipart(form);
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        let text = |key: &str| answer[key].as_str().map(str::to_owned).context("an answer to a submit");
        Ok(Function { id: text("functionId")?, image: text("imageId")? })
    }

    /// Executes a function, and returns what the function has printed.
    pub(crate) async fn output(&self, function: &Function, input: Value) -> Result<String> {
        let body = json!({"functionId": function.id, "input": input});
        let answer = self.client.post(self.url.join("/api/execute")?).json(&body).send().await?;
        let answer: Value = answer.json().await?;
        ensure!(answer["outcome"] == "ok", "an execution failed: {answer}");
        Ok(answer["output"].as_str().context("an output")?.to_owned())
    }

    pub(crate) async fn execute(&self, function: &Function) -> Result<Duration> {
        Ok(self.execute_from(function).await?.0)
    }

    /// Executes a function, and returns also how the instance had started.
    pub(crate) async fn execute_from(&self, function: &Function) -> Result<(Duration, String)> {
        let body = json!({"functionId": function.id, "input": {"name": "John"}});
        let started = Instant::now();
        let bytes = self.client.post(self.url.join("/api/execute")?).json(&body).send().await?.bytes().await?;
        let elapsed = started.elapsed();
        let answer: Value = serde_json::from_slice(&bytes)?;
        ensure!(answer["output"] == "Hello, John!\n", "an unexpected answer: {answer}");
        Ok((elapsed, answer["start"].as_str().context("a start")?.to_owned()))
    }

    /// Has an asynchronous execution accepted.
    pub(crate) async fn accept(&self, function: &Function) -> Result<()> {
        let body = json!({"functionId": function.id, "input": {"name": "John"}});
        let request = self.client.post(self.url.join("/api/execute")?).header("prefer", "respond-async").json(&body);
        let answer = request.send().await?.error_for_status()?;
        ensure!(answer.status().as_u16() == 202, "an execution was answered {}", answer.status());
        answer.bytes().await?;
        Ok(())
    }

    /// Whether a function has an invocation of this outcome.
    pub(crate) async fn has(&self, function: &Function, outcome: &str) -> Result<bool> {
        let path = format!("/api/functions/{}/invocations?limit=1&outcome={outcome}", function.id);
        let page: Value = self.client.get(self.url.join(&path)?).send().await?.error_for_status()?.json().await?;
        Ok(!page["invocations"].as_array().context("a page")?.is_empty())
    }

    pub(crate) async fn list(&self, expected: usize) -> Result<Duration> {
        let started = Instant::now();
        let bytes = self.client.get(self.url.join("/api/functions")?).send().await?.bytes().await?;
        let elapsed = started.elapsed();
        let listed: Vec<Value> = serde_json::from_slice(&bytes)?;
        ensure!(listed.len() == expected, "{} functions are listed", listed.len());
        Ok(elapsed)
    }

    pub(crate) async fn delete(&self, function: &Function) -> Result<()> {
        let path = format!("/api/functions/{}", function.id);
        self.client.delete(self.url.join(&path)?).send().await?.error_for_status()?;
        // The image goes after the containers.
        let deadline = Instant::now() + Duration::from_secs(60);
        while !docker(&["images", "--quiet", &format!("youtube-serverless/{}", function.id)])?.is_empty() {
            ensure!(Instant::now() < deadline, "the image was not removed");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        let signalled = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(signalled.success() && self.child.wait()?.success(), "the service did not stop cleanly");
        Ok(())
    }

    pub(crate) fn containers(&self, function: &Function) -> Result<usize> {
        Ok(function.containers()?.len())
    }

    /// Resident memory of the service, in MB.
    pub(crate) fn rss(&self) -> Result<f64> {
        kilobytes(&format!("/proc/{}/status", self.child.id()), "VmRSS:").map(|kb| kb / 1e3)
    }

    /// Private memory of a docker client, where one is attached, and memory of a container, in MB, averaged.
    pub(crate) fn memory_per_instance(&self, function: &Function) -> Result<(f64, f64)> {
        let names = function.containers()?;
        let (mut clients, mut containers) = (0.0, 0.0);
        for name in &names {
            if let Some(client) = client_of(name)? {
                clients += kilobytes(&format!("/proc/{client}/smaps_rollup"), "Private_Dirty:")? / 1e3;
            }
            containers += function.memory_of(name)?;
        }
        let n = names.len().max(1) as f64;
        Ok((clients / n, containers / n))
    }

    /// The sizes that may grow: memory, descriptors, processes, containers.
    pub(crate) fn footprint(&self, function: &Function) -> Result<String> {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count();
        let names = function.containers()?;
        let (client, container) = self.memory_per_instance(function)?;
        let mut processes = 0;
        for name in &names {
            processes += docker(&["top", name])?.lines().count() - 1;
        }
        Ok(format!(
            "service {:.1} MB and {descriptors} descriptors, docker client {client:.1} MB, container {container:.1} \
             MB, {} containers \
             with {processes} processes",
            self.rss()?,
            names.len()
        ))
    }
}

impl Function {
    fn containers(&self) -> Result<Vec<String>> {
        let filter = format!("label=youtube-serverless.function.id={}", self.id);
        let names = docker(&[
            "ps",
            "--all",
            "--filter",
            &filter,
            "--filter",
            "name=youtube-serverless-",
            "--format",
            "{{.Names}}",
        ])?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    pub(crate) async fn wait_for_containers(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.containers()?.len() != count {
            ensure!(Instant::now() < deadline, "there are not {count} containers after a minute");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The memory of a container in MB, without the page cache.
    fn memory_of(&self, container: &str) -> Result<f64> {
        let said = docker(&["stats", "--no-stream", "--format", "{{.MemUsage}}", container])?;
        let used = said.split('/').next().context("memory in use")?.trim();
        let split = used.find(|c: char| c.is_ascii_alphabetic()).context("a unit")?;
        let factor = match &used[split..] {
            "B" => 1e-6,
            "KiB" => 1024e-6,
            "MiB" => 1.048_576,
            unit => anyhow::bail!("an unknown unit {unit}"),
        };
        Ok(used[..split].parse::<f64>()? * factor)
    }
}

/// The docker client that is attached to a container. None where there is none.
fn client_of(container: &str) -> Result<Option<u32>> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.starts_with(b"docker\0run") && String::from_utf8_lossy(&line).contains(container) {
            return entry.file_name().to_string_lossy().parse().map(Some).context("a process id");
        }
    }
    Ok(None)
}

fn kilobytes(file: &str, key: &str) -> Result<f64> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find(|line| line.starts_with(key)).with_context(|| format!("{key} in {file}"))?;
    Ok(line[key.len()..].trim().trim_end_matches(" kB").parse()?)
}

fn docker(args: &[&str]) -> Result<String> {
    let output = Command::new("docker").args(args).output()?;
    ensure!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
