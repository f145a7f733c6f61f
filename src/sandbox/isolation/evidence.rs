//! Compares a container's report on itself with the sandbox's limits. Pure.

use std::collections::HashMap;

use crate::config::Sandbox;

/// Prints the report in lines of `KEY VALUE`. The script needs only a shell and `cat`.
pub(super) const SCRIPT: &str = r#"
while read -r line; do echo "status $line"; done < /proc/self/status
while read -r line; do echo "mount $line"; done < /proc/self/mounts
for path in /sys/class/net/*; do echo "net ${path##*/} $(cat "$path/flags")"; done
cd /sys/fs/cgroup && for file in memory.max memory.swap.max pids.max cpu.max memory/memory.limit_in_bytes \
  memory/memory.memsw.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us; do
  if [ -r "$file" ]; then echo "cgroup $file $(cat "$file")"; fi
done
"#;

/// A Python program that prints the report.
pub(super) fn program() -> String {
    format!("import os\nos.execv('/bin/sh', ['sh', '-c', r'''{SCRIPT}'''])\n")
}

/// The mounts of a slot's container, beside those of every container.
pub(super) const OF_SLOT: [&str; 3] = ["/run/youtube-serverless", "/app", "/opt/youtube-serverless/packages"];

/// The factor by which a limit may exceed the configuration: kernels round limits to pages and periods.
const ROUNDING: f64 = 1.02;
/// The flag of a network device that is up, from `linux/if.h`.
const IFF_UP: u32 = 1;

/// The gaps in the isolation of the container that printed this report. Empty when there is no gap. The container must
/// have the mounts `read_only`, beside those of every container.
pub(super) fn missing(said: &str, sandbox: &Sandbox, uid: u32, read_only: &[&str]) -> Vec<String> {
    let lines = |key: &'static str| said.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix(' '));
    let status: HashMap<&str, &str> = lines("status").filter_map(|line| line.split_once(':')).collect();
    let cgroup: HashMap<&str, &str> = lines("cgroup").filter_map(|line| line.split_once(' ')).collect();
    let mut missing = Vec::new();
    let mut check = |holds: bool, what: String| {
        if !holds {
            missing.push(what);
        }
    };
    let field = |name: &str| status.get(name).map_or("", |value| value.trim());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let is_none = u64::from_str_radix(field(set), 16) == Ok(0);
        check(is_none, format!("capabilities are not dropped ({set} is {:?})", field(set)));
    }
    check(field("NoNewPrivs") == "1", "privileges can be gained (NoNewPrivs is not set)".to_owned());
    check(field("Seccomp") == "2", "no seccomp filter limits system calls".to_owned());
    let own = uid.to_string();
    let is_own = |ids: &str| field(ids).split_whitespace().eq(std::iter::repeat_n(own.as_str(), 4));
    let user = format!(
        "the container runs as user {:?}, group {:?}, not as {uid} (INSTANCE_UIDS)",
        field("Uid"),
        field("Gid")
    );
    check(is_own("Uid") && is_own("Gid"), user);

    let limit = |names: [&str; 2]| names.iter().find_map(|name| cgroup.get(name)?.parse::<f64>().ok());
    let keeps = |limit: Option<f64>, asked: f64| limit.is_some_and(|limit| 0.0 < limit && limit <= asked * ROUNDING);
    let memory = limit(["memory.max", "memory/memory.limit_in_bytes"]);
    check(keeps(memory, sandbox.memory as f64), "memory is not limited (DOCKER_MEMORY_LIMIT)".to_owned());
    // The counter of cgroup v1 counts memory and swap together.
    let swap = cgroup.get("memory.swap.max").is_some_and(|limit| *limit == "0");
    let both = cgroup.get("memory/memory.memsw.limit_in_bytes").and_then(|limit| limit.parse().ok());
    check(
        swap || keeps(both, sandbox.memory as f64),
        "swap is not limited: the kernel does not account for swap".to_owned(),
    );
    let pids = limit(["pids.max", "pids/pids.max"]);
    check(keeps(pids, sandbox.pids.into()), "processes are not limited (DOCKER_PIDS_LIMIT)".to_owned());
    check(keeps(processors(&cgroup), sandbox.cpus), "processor time is not limited (DOCKER_CPU_LIMIT)".to_owned());

    let mounts: Vec<[&str; 3]> = lines("mount").filter_map(mount).collect();
    let options = |place: &str| mounts.iter().rev().find(|mount| mount[1] == place).map(|mount| mount[2]);
    let has = |place: &str, wanted: &[&str]| {
        options(place)
            .is_some_and(|options| wanted.iter().all(|wanted| options.split(',').any(|option| option == *wanted)))
    };
    check(has("/", &["ro"]), "the root file system can be written to".to_owned());
    check(has("/tmp", &["nosuid", "nodev", "noexec"]), "/tmp is not a noexec,nosuid,nodev file system".to_owned());
    for place in read_only {
        check(has(place, &["ro"]), format!("{place} is no read-only mount"));
    }
    let size = options("/tmp").and_then(|options| {
        let size = options.split(',').find_map(|option| option.strip_prefix("size="))?;
        // Kernels print the size in KiB.
        size.strip_suffix('k').map_or(size.parse::<f64>(), |size| size.parse::<f64>().map(|size| size * 1024.0)).ok()
    });
    check(keeps(size, sandbox.tmpfs as f64), "the size of /tmp is not limited (DOCKER_TMPFS_SIZE)".to_owned());
    for [source, place, options] in &mounts {
        let is_kernels = ["/sys", "/proc", "/dev"]
            .iter()
            .any(|kernel| place.strip_prefix(kernel).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        let is_known = is_kernels
            || ["/", "/tmp", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].contains(place)
            || read_only.contains(place);
        check(is_known, format!("{source} is mounted at {place} ({options})"));
    }
    check(lines("net").any(|device| device.starts_with("lo ")), "network devices can't be listed".to_owned());
    for device in lines("net") {
        let (name, flags) = device.split_once(' ').unwrap_or((device, ""));
        let is_up = u32::from_str_radix(flags.trim_start_matches("0x"), 16).map_or(true, |flags| flags & IFF_UP != 0);
        check(name == "lo" || !is_up, format!("there is a network device that is up ({name})"));
    }
    missing
}

/// The limit on processor time, in processors, with cgroup v1 or v2.
fn processors(cgroup: &HashMap<&str, &str>) -> Option<f64> {
    let (quota, period) = match cgroup.get("cpu.max") {
        Some(both) => both.split_once(' ')?,
        None => (*cgroup.get("cpu/cpu.cfs_quota_us")?, *cgroup.get("cpu/cpu.cfs_period_us")?),
    };
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

/// The source, the place and the options in a line of `/proc/mounts`.
fn mount(line: &str) -> Option<[&str; 3]> {
    let mut words = line.split(' ');
    let (source, place, _) = (words.next()?, words.next()?, words.next()?);
    Some([source, place, words.next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CGROUP_2: &str =
        "cgroup memory.max 127998976\ncgroup memory.swap.max 0\ncgroup pids.max 64\ncgroup cpu.max 100000 100000\n";
    const CGROUP_1: &str = "cgroup memory/memory.limit_in_bytes 127998976\n\
        cgroup memory/memory.memsw.limit_in_bytes 127998976\n\
        cgroup pids/pids.max 64\ncgroup cpu/cpu.cfs_quota_us 100000\ncgroup cpu/cpu.cfs_period_us 100000\n";
    const REST: &str = "status Name:\tsh\nstatus Uid:\t70999\t70999\t70999\t70999\n\
        status Gid:\t70999\t70999\t70999\t70999\n\
        status CapInh:\t0000000000000000\nstatus CapPrm:\t0000000000000000\nstatus CapEff:\t0000000000000000\n\
        status CapBnd:\t0000000000000000\nstatus CapAmb:\t0000000000000000\nstatus NoNewPrivs:\t1\nstatus Seccomp:\t2\n\
        mount overlay / overlay ro,relatime,lowerdir=/a:/b 0 0\nmount proc /proc proc rw,nosuid 0 0\n\
        mount tmpfs /tmp tmpfs rw,nosuid,nodev,noexec,relatime,size=62500k 0 0\n\
        mount /dev/vda /etc/hosts ext4 ro,relatime 0 0\nnet lo 0x9\nnet tunl0 0x80\n";

    fn missing_of(said: &str) -> Vec<String> {
        let sandbox =
            Sandbox { memory: 128_000_000, cpus: 1.0, pids: 64, tmpfs: 64_000_000, runtime: None, required: false };
        missing(said, &sandbox, 70_999, &[])
    }

    #[track_caller]
    fn check(from: &str, to: &str, expected: &str) {
        let whole = format!("{REST}{CGROUP_1}");
        assert!(whole.contains(from), "{from}");
        let missing = missing_of(&whole.replace(from, to));
        assert!(missing.len() == 1 && missing[0].contains(expected), "{expected}: {missing:?}");
    }

    #[test]
    fn all_is_well_with_either_version_of_cgroups() {
        assert_eq!(missing_of(&format!("{REST}{CGROUP_1}")), [""; 0]);
        assert_eq!(missing_of(&format!("{REST}{CGROUP_2}")), [""; 0]);
    }

    #[test]
    fn each_thing_that_is_missing_is_named() {
        check("CapEff:\t0000000000000000", "CapEff:\t00000000a80425fb", "CapEff is \"00000000a80425fb\"");
        check("NoNewPrivs:\t1", "NoNewPrivs:\t0", "NoNewPrivs");
        check("Seccomp:\t2", "Seccomp:\t0", "seccomp");
        check("Uid:\t70999", "Uid:\t0", "the container runs as user");
        check("Gid:\t70999", "Gid:\t79998", "not as 70999");
        check("memory.limit_in_bytes 127998976", "memory.limit_in_bytes 9223372036854771712", "DOCKER_MEMORY_LIMIT");
        check("cgroup memory/memory.memsw.limit_in_bytes 127998976\n", "", "swap");
        check("cgroup pids/pids.max 64\n", "", "DOCKER_PIDS_LIMIT");
        check("pids.max 64", "pids.max max", "DOCKER_PIDS_LIMIT");
        check("quota_us 100000", "quota_us -1", "DOCKER_CPU_LIMIT");
        check("overlay ro,", "overlay rw,", "root file system");
        check("nodev,noexec,", "nodev,", "noexec");
        check(",size=62500k", "", "DOCKER_TMPFS_SIZE");
        check(",size=62500k", ",size=125000k", "DOCKER_TMPFS_SIZE");
        check("/etc/hosts ext4", "/devices ext4", "mounted at /devices");
        check("net lo 0x9\n", "", "can't be listed");
        check("tunl0 0x80", "tunl0", "tunl0");
        check("/etc/hosts ext4", "/host ext4", "mounted at /host");
        check("tunl0 0x80", "eth0 0x1003", "eth0");
    }

    #[test]
    fn the_mounts_of_a_slot_are_read_only() {
        let sandbox =
            Sandbox { memory: 128_000_000, cpus: 1.0, pids: 64, tmpfs: 64_000_000, runtime: None, required: false };
        let mounts = OF_SLOT.map(|place| format!("mount /dev/vda {place} ext4 ro,relatime 0 0\n")).concat();
        let whole = format!("{REST}{CGROUP_1}{mounts}");
        assert_eq!(missing(&whole, &sandbox, 70_999, &OF_SLOT), [""; 0]);
        let writable = whole.replace("/app ext4 ro,", "/app ext4 rw,");
        assert_eq!(missing(&writable, &sandbox, 70_999, &OF_SLOT), ["/app is no read-only mount"]);
    }

    #[test]
    fn what_says_nothing_has_nothing() {
        assert!(missing_of("").len() > 10);
    }
}
