//! How much memory a container has, by the kernel's own count.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the control groups of this machine are.
const CGROUPS: &str = "/sys/fs/cgroup";
/// The length of a container's id in the name of its control group.
const ID_LENGTH: usize = 64;

/// The memory of a container.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// A process of the container, as this process sees it.
    pid: u32,
}

impl Memory {
    /// The memory of the container that this process is in.
    pub(super) fn of(pid: u32) -> Self {
        Self { pid }
    }

    /// The memory that the container's end would give back, in bytes: without files that the kernel keeps for speed.
    /// None where this process does not see the container's counters.
    pub fn read(&self) -> Option<u64> {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).ok()?;
        read(&folder(&groups)?)
    }
}

/// The folder of the counters in a list of a process's control groups, of version 1 or 2.
fn folder(groups: &str) -> Option<PathBuf> {
    let entries = groups.lines().filter_map(|line| {
        let (_, entry) = line.split_once(':')?;
        entry.split_once(':')
    });
    let (mut first, mut second) = (None, None);
    for (controllers, path) in entries {
        if controllers.split(',').any(|controller| controller == "memory") {
            first = Some(Path::new(CGROUPS).join("memory").join(path.trim_start_matches('/')));
        } else if controllers.is_empty() {
            second = Some(Path::new(CGROUPS).join(path.trim_start_matches('/')));
        }
    }
    first.or(second).filter(|folder| is_of_container(folder))
}

/// Whether the group is a container's, and not this service's own.
fn is_of_container(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut words = name.split(|letter: char| !letter.is_ascii_hexdigit());
    words.any(|word| word.len() == ID_LENGTH)
}

fn read(folder: &Path) -> Option<u64> {
    let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let used: u64 = text("memory.usage_in_bytes").or_else(|| text("memory.current"))?.trim().parse().ok()?;
    let stat = text("memory.stat")?;
    let count = |name: &str| {
        let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse::<u64>().ok())
    };
    // Version 1 has the groups below apart.
    let files = |kind: &str| count(&format!("total_{kind}")).or_else(|| count(kind)).unwrap_or(0);
    Some(used.saturating_sub(files("inactive_file") + files("active_file")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_containers_own_group_counts() {
        let id = "a1".repeat(32);
        let first = folder(&format!("9:name=systemd:/\n4:memory:/docker/{id}\n0::/\n"));
        assert_eq!(first, Some(format!("/sys/fs/cgroup/memory/docker/{id}").into()));
        let second = folder(&format!("0::/system.slice/docker-{id}.scope\n"));
        assert_eq!(second, Some(format!("/sys/fs/cgroup/system.slice/docker-{id}.scope").into()));
        assert_eq!(folder("4:memory:/user.slice\n0::/\n"), None);
        assert_eq!(folder(""), None);
    }

    #[test]
    fn files_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(read(folder.path()), None);
        write("memory.current", "5000\n");
        write("memory.stat", "anon 1\ninactive_file 1000\nactive_file 500\n");
        assert_eq!(read(folder.path()), Some(3500));
        write("memory.usage_in_bytes", "9000\n");
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 1000\ntotal_active_file 2000\n");
        assert_eq!(read(folder.path()), Some(6000));
    }
}
