//! A host that a program reaches through a door, against the same program on this machine; and what doors cost
//! functions that do not use the doors.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::by_hand;
use crate::report::{Report, median};
use crate::service::{Function, Service};

/// The bytes of a download.
const SIZE: usize = 100_000_000;
const ROUNDS: usize = 10;
/// A function opens no more than a hundred connections a second for long.
const REST: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);
const BLOCKS: usize = 20;
const WARM_REQUESTS: usize = 100;

/// Connects and asks a hundred times, then downloads. Prints the p50 of a request and the time of the download, in
/// seconds.
const PYTHON: &str = r#"
import os, socket, time
where = os.environ["HOST"], int(os.environ["PORT"])
times = []
for _ in range(100):
    began = time.perf_counter()
    with socket.create_connection(where) as server:
        server.sendall(b"p")
        assert server.recv(1) == b"p"
    times.append(time.perf_counter() - began)
began, size, memory = time.perf_counter(), 0, bytearray(1 << 18)
with socket.create_connection(where) as server:
    server.sendall(b"d")
    while count := server.recv_into(memory):
        size += count
assert size == 100_000_000
print(sorted(times)[50], time.perf_counter() - began)
"#;
const GO: &str = r#"package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"time"
)

func ask(what string) net.Conn {
	server, err := net.Dial("tcp", net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")))
	if err != nil {
		panic(err)
	}
	server.Write([]byte(what))
	return server
}

func main() {
	var times []float64
	for i := 0; i < 100; i++ {
		began := time.Now()
		server := ask("p")
		if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
			panic(err)
		}
		server.Close()
		times = append(times, time.Since(began).Seconds())
	}
	sort.Float64s(times)
	began, size, memory := time.Now(), 0, make([]byte, 1<<18)
	server := ask("d")
	for {
		count, err := server.Read(memory)
		size += count
		if err == io.EOF {
			break
		}
	}
	if size != 100_000_000 {
		panic(size)
	}
	fmt.Println(times[50], time.Since(began).Seconds())
}
"#;

/// A request and a download, by one program.
#[derive(Default)]
struct Times {
    request: Vec<Duration>,
    download: Vec<Duration>,
}

pub(crate) async fn measure(report: &mut Report, dir: &Path) -> Result<()> {
    let dir = dir.join("doors");
    std::fs::create_dir_all(&dir)?;
    let port = serve()?;
    let hosts = dir.join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost one.bench two.bench three.bench\n")?;
    let allow = format!("*.bench:{port}");
    let settings = [("EGRESS_ALLOW", allow.as_str()), ("EGRESS_PRIVATE", "127.0.0.0/8")];
    let service = Service::start_with_hosts(&dir, &settings, &hosts).await?;
    for (language, name, program) in [("python", "main.py", PYTHON), ("go", "main.go", GO)] {
        through_a_door(report, (&service, &dir), port, (language, name, program)).await?;
        unused(report, &service, port, language, name).await?;
    }
    service.stop()
}

/// Serves for as long as this process lives. Returns the port.
fn serve() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || answer(client));
        }
    });
    Ok(port)
}

/// Answers a byte with the byte, or with the download.
fn answer(mut client: TcpStream) -> std::io::Result<()> {
    let mut asked = [0];
    client.read_exact(&mut asked)?;
    if asked == *b"p" {
        return client.write_all(&asked);
    }
    let bytes = vec![0; SIZE / 1000];
    (0..1000).try_for_each(|_| client.write_all(&bytes))
}

async fn through_a_door(
    report: &mut Report,
    (service, dir): (&Service, &Path),
    port: u16,
    (language, name, program): (&str, &str, &str),
) -> Result<()> {
    let network = json!({"allow": [format!("one.bench:{port}")]}).to_string();
    let function = service.deploy(&[(name, program)], &[("network", network)]).await?;
    let mut by_hand = on_this_machine(language, name, program, &function, dir)?;
    by_hand.env("HOST", "127.0.0.1").env("PORT", port.to_string());
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    let (mut least, mut most) = (f64::MAX, 0_f64);
    for _ in 0..ROUNDS {
        theirs.add(&String::from_utf8(by_hand.output()?.stdout)?)?;
        tokio::time::sleep(REST).await;
        let output = service.output(&function, json!({"HOST": "one.bench", "PORT": port.to_string()}));
        tokio::pin!(output);
        least = least.min(service.rss()?);
        ours.add(&loop {
            tokio::select! {
                output = &mut output => break output?,
                () = tokio::time::sleep(LOOK) => most = most.max(service.rss()?),
            }
        })?;
    }
    let [ours, theirs] = [ours, theirs].map(|mut times| (median(&mut times.request), median(&mut times.download)));
    report.note(format!(
        "{language}: a request with a connection through a door {:.2?}, on this machine {:.2?}; 100 MB through a door \
         {:.0?}, on this machine {:.0?}: {:.2} of the speed; while {ROUNDS} downloads went through, \
         the service took up to {:.1} MB more",
        ours.0,
        theirs.0,
        ours.1,
        theirs.1,
        theirs.1.as_secs_f64() / ours.1.as_secs_f64(),
        most - least,
    ));
    service.delete(&function).await
}

/// The program without a container.
fn on_this_machine(language: &str, name: &str, program: &str, function: &Function, dir: &Path) -> Result<Command> {
    if language == "python" {
        let file = dir.join(name);
        std::fs::write(&file, program)?;
        let mut command = Command::new(by_hand::python());
        command.arg(file);
        return Ok(command);
    }
    Ok(Command::new(by_hand::binary(function, dir)?))
}

/// Warm calls of two functions by turns: the function of one has three doors, and connects to none.
async fn unused(report: &mut Report, service: &Service, port: u16, language: &str, name: &str) -> Result<()> {
    let program = std::fs::read_to_string(format!("examples/{language}-hello/{name}"))?;
    let allow = ["one", "two", "three"].map(|host| format!("{host}.bench:{port}"));
    let network = ("network", json!({"allow": allow}).to_string());
    let functions =
        [service.deploy(&[(name, &program)], &[]).await?, service.deploy(&[(name, &program)], &[network]).await?];
    let mut times: [Vec<Duration>; 2] = Default::default();
    for block in 0..BLOCKS {
        for index in [block % 2, 1 - block % 2] {
            for number in 0..WARM_REQUESTS + 10 {
                let time = service.execute(&functions[index]).await?;
                if number >= 10 {
                    times[index].push(time);
                }
            }
        }
    }
    let [without, with] = times.each_mut().map(|times| median(times).as_secs_f64() * 1e3);
    report.note(format!(
        "{language}: warm p50 {with:.3} ms with three doors that the function does not use, {without:.3} ms without a \
         network: {:.3}",
        with / without
    ));
    for function in &functions {
        service.delete(function).await?;
    }
    Ok(())
}

impl Times {
    /// Adds what a program has printed.
    fn add(&mut self, printed: &str) -> Result<()> {
        let mut seconds = printed.split_whitespace().map(str::parse).map(|time| time.map(Duration::from_secs_f64));
        self.request.push(seconds.next().context("the time of a request")??);
        self.download.push(seconds.next().context("the time of a download")??);
        Ok(())
    }
}
