//! Translates a sandbox into the arguments of `docker run`. Pure.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::config::Sandbox;

/// The options of every container, whatever its use. With a raised OOM score, the kernel's OOM killer ends a container
/// before any service of the host, whose score is 0 or less.
pub(super) const HARDENING: [&str; 7] = [
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--ipc=private",
    "--ulimit=core=0:0",
    "--ulimit=nofile=1024:1024",
    "--oom-score-adj=500",
];

/// The options of a container whose output goes to this service only.
pub(super) const ATTACHED: [&str; 3] = ["--interactive", "--sig-proxy=false", "--log-driver=none"];

/// The options of a container without a docker client. Docker keeps the end of what the bootstrap prints, which is
/// nothing as long as all is well.
const DETACHED: [&str; 5] =
    ["--detach", "--log-driver=local", "--log-opt=max-size=64k", "--log-opt=max-file=1", "--log-opt=compress=false"];

/// The folder of a container in which the bootstrap finds the socket. The bootstraps know the folder.
const SOCKET_FOLDER: &str = "/run/youtube-serverless";

/// A container to be run.
#[derive(Debug)]
pub struct RunSpec<'a> {
    /// The container's name.
    pub name: &'a str,
    /// The image's id or name, which must be on this machine.
    pub image: &'a str,
    /// The names and values of the container's labels.
    pub labels: &'a [(&'static str, String)],
    /// The container's limits.
    pub sandbox: &'a Sandbox,
    /// The id of the user, and of the group, that the container runs as.
    pub uid: u32,
    /// The program that the container runs.
    pub program: Program<'a>,
    /// The folders of the host that the container sees, and can't write to.
    pub mounts: &'a [Mount],
    /// The names that lead to loopback addresses in the container, beside `localhost`.
    pub hosts: &'a [(String, Ipv4Addr)],
}

/// A folder of the host, and the folder of the container in which the host's folder appears.
pub type Mount = (PathBuf, &'static str);

/// The program that a container runs.
#[derive(Clone, Copy, Debug)]
pub enum Program<'a> {
    /// The image's own program.
    Own,
    /// The image's own program with this argument.
    OwnWith(&'a str),
    /// A shell with this script.
    Shell(&'a str),
}

impl RunSpec<'_> {
    /// All arguments of `docker` that run the container: detached with the socket in this folder of the host, or
    /// attached to stdin, stdout and stderr.
    pub(super) fn arguments(&self, socket: Option<&Path>) -> Vec<String> {
        let sandbox = self.sandbox;
        let mut args: Vec<String> = ["run", "--pull=never"].map(str::to_owned).into();
        match socket {
            Some(folder) => {
                args.extend(DETACHED.map(str::to_owned));
                args.push(mount(folder, SOCKET_FOLDER));
            }
            None => args.extend(ATTACHED.map(str::to_owned)),
        }
        args.extend(self.mounts.iter().map(|(folder, target)| mount(folder, target)));
        args.push(format!("--name={}", self.name));
        args.extend(self.labels.iter().map(|(name, value)| format!("--label={name}={value}")));
        args.push("--network=none".to_owned());
        args.extend(self.hosts.iter().map(|(name, address)| format!("--add-host={name}:{address}")));
        args.extend(HARDENING.map(str::to_owned));
        args.push(format!("--user={uid}:{uid}", uid = self.uid));
        args.push(format!("--memory={}", sandbox.memory));
        args.push(format!("--memory-swap={}", sandbox.memory));
        args.push(format!("--cpus={}", sandbox.cpus));
        args.push(format!("--pids-limit={}", sandbox.pids));
        args.push(format!("--tmpfs=/tmp:rw,noexec,nosuid,nodev,mode=1777,size={}", sandbox.tmpfs));
        args.extend(sandbox.runtime.iter().map(|runtime| format!("--runtime={runtime}")));
        if matches!(self.program, Program::Shell(_)) {
            args.push("--entrypoint=/bin/sh".to_owned());
        }
        args.extend(["--".to_owned(), self.image.to_owned()]);
        match self.program {
            Program::Own => {}
            Program::OwnWith(argument) => args.push(argument.to_owned()),
            Program::Shell(script) => args.extend(["-c".to_owned(), script.to_owned()]),
        }
        args
    }
}

fn mount(folder: &Path, target: &str) -> String {
    format!("--mount=type=bind,readonly,source={},target={target}", folder.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_sandbox_is_on_the_command_line() {
        let sandbox =
            Sandbox { memory: 128_000_000, cpus: 0.5, pids: 64, tmpfs: 64_000_000, runtime: None, required: false };
        let labels = [("a.label", "with space; $(and more)".to_owned())];
        let spec = RunSpec {
            name: "one",
            image: "sha256:abc",
            labels: &labels,
            sandbox: &sandbox,
            uid: 70_001,
            program: Program::Own,
            mounts: &[],
            hosts: &[],
        };
        let expected = [
            "run",
            "--pull=never",
            "--interactive",
            "--sig-proxy=false",
            "--log-driver=none",
            "--name=one",
            "--label=a.label=with space; $(and more)",
            "--network=none",
            "--read-only",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--ipc=private",
            "--ulimit=core=0:0",
            "--ulimit=nofile=1024:1024",
            "--oom-score-adj=500",
            "--user=70001:70001",
            "--memory=128000000",
            "--memory-swap=128000000",
            "--cpus=0.5",
            "--pids-limit=64",
            "--tmpfs=/tmp:rw,noexec,nosuid,nodev,mode=1777,size=64000000",
            "--",
            "sha256:abc",
        ];
        assert_eq!(spec.arguments(None), expected);
        let detached = spec.arguments(Some(Path::new("/tmp/one/s")));
        assert!(!expected.iter().any(|argument| argument.contains("host")), "a name without a network");
        let mount = "--mount=type=bind,readonly,source=/tmp/one/s,target=/run/youtube-serverless";
        assert_eq!(detached[2..8], [&DETACHED[..], &[mount]].concat());
        assert_eq!(detached[8..], expected[5..]);
    }

    #[test]
    fn a_runtime_is_passed_on() {
        let sandbox =
            Sandbox { memory: 1, cpus: 1.0, pids: 1, tmpfs: 1, runtime: Some("runsc".to_owned()), required: false };
        let mounts = [(PathBuf::from("/tmp/code"), "/app")];
        let program = Program::Own;
        let spec = RunSpec {
            name: "one",
            image: "image",
            labels: &[],
            sandbox: &sandbox,
            uid: 70_001,
            program,
            mounts: &mounts,
            hosts: &[],
        };
        assert!(spec.arguments(None).contains(&"--runtime=runsc".to_owned()));
        let mount = "--mount=type=bind,readonly,source=/tmp/code,target=/app";
        assert!(spec.arguments(None).contains(&mount.to_owned()));
    }

    #[test]
    fn names_lead_to_loopback() {
        let sandbox = Sandbox { memory: 1, cpus: 1.0, pids: 1, tmpfs: 1, runtime: None, required: false };
        let hosts = [("a.example".to_owned(), Ipv4Addr::new(127, 1, 0, 2))];
        let (program, labels, mounts) = (Program::Own, &[], &[]);
        let spec = RunSpec {
            name: "one",
            image: "image",
            labels,
            sandbox: &sandbox,
            uid: 70_001,
            program,
            mounts,
            hosts: &hosts,
        };
        let arguments = spec.arguments(None);
        let place = arguments.iter().position(|argument| argument == "--network=none").unwrap();
        assert_eq!(arguments[place + 1], "--add-host=a.example:127.1.0.2");
    }

    #[test]
    fn another_program_stands_behind_the_image() {
        let sandbox = Sandbox { memory: 1, cpus: 1.0, pids: 1, tmpfs: 1, runtime: None, required: false };
        let program = Program::Shell("echo one");
        let spec = RunSpec {
            name: "one",
            image: "image",
            labels: &[],
            sandbox: &sandbox,
            uid: 70_001,
            program,
            mounts: &[],
            hosts: &[],
        };
        let arguments = spec.arguments(None);
        assert_eq!(arguments[arguments.len() - 5..], ["--entrypoint=/bin/sh", "--", "image", "-c", "echo one"]);
    }
}
