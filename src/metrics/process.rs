//! What the system says of this process: processor, memory, files (proc(5), cgroups(7)).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::proto::MetricFamily;
use rlimit::Resource;

use crate::metrics::registry::{Definition, Kind};

/// What this process uses. A figure that the system does not tell is 0.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Process {
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// Memory in use.
    pub resident_bytes: u64,
    /// Addresses in use.
    pub virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open files, sockets among them.
    pub open_files: u64,
    /// How many there may be.
    pub open_files_max: u64,
    /// How much memory there may be: of the control group, or the machine.
    pub memory_limit_bytes: u64,
}

impl Process {
    /// Asks the system.
    pub fn read() -> Self {
        let mut process = Self {
            open_files: open_files(),
            open_files_max: Resource::NOFILE.get_soft().unwrap_or_default(),
            memory_limit_bytes: memory_limit_bytes(Path::new("/")),
            ..Self::default()
        };
        process.read_stat(&text("/proc/self/stat"));
        process.resident_bytes = kib_line(&text("/proc/self/status"), "VmRSS:");
        process
    }

    fn read_stat(&mut self, stat: &str) {
        // The name of the command may hold anything, and ends with the last parenthesis. What follows is numbered
        // from 3 in proc(5).
        let fields: Vec<&str> =
            stat.rsplit_once(") ").map_or_else(Vec::new, |(_, rest)| rest.split(' ').collect());
        let field = |number: usize| -> u64 {
            fields.get(number - 3).and_then(|field| field.trim().parse().ok()).unwrap_or_default()
        };
        // A tick is a hundredth of a second on every system that Linux is built for today.
        let ticks = |ticks: u64| Duration::from_millis(ticks * 10);
        (self.user, self.system) = (ticks(field(14)), ticks(field(15)));
        self.threads = field(20);
        self.virtual_bytes = field(23);
    }
}

fn open_files() -> u64 {
    // Since Linux 6.2 that is the size of the folder; before, each has to be looked at.
    match fs::metadata("/proc/self/fd").map(|folder| folder.len()) {
        Ok(count) if count > 0 => count,
        _ => fs::read_dir("/proc/self/fd").map_or(0, |folder| folder.count() as u64),
    }
}

/// The least of all that bounds this process: its control group, those around it, the machine.
fn memory_limit_bytes(root: &Path) -> u64 {
    let total = kib_line(&text(root.join("proc/meminfo")), "MemTotal:");
    let groups = text(root.join("proc/self/cgroup"));
    let limits = groups.lines().flat_map(|line| limits_of_group(root, line));
    limits.chain([total]).filter(|limit| *limit > 0).min().unwrap_or_default()
}

/// The limits along one line of /proc/self/cgroup: `0::/path`, or `4:memory:/path` in version 1.
fn limits_of_group(root: &Path, line: &str) -> Vec<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    let (mount, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    // Inside a container the path may be that of the host, and its own group is the root of what it sees.
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    groups.filter_map(|group| text(root.join(mount).join(group).join(file)).trim().parse().ok()).collect()
}

/// `VmRSS:   1234 kB`, in bytes.
fn kib_line(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.unwrap_or_default() * 1024
}

fn text(path: impl Into<PathBuf>) -> String {
    fs::read_to_string(path.into()).unwrap_or_default()
}

const fn figure(name: &'static str, kind: Kind, help: &'static str) -> Definition {
    Definition { name, kind, labels: &[], help }
}

const CPU: Definition =
    figure("process_cpu_seconds_total", Kind::Counter, "Processor time of the process, in seconds.");
const RESIDENT: Definition =
    figure("process_resident_memory_bytes", Kind::Gauge, "Memory that the process holds.");
const VIRTUAL: Definition =
    figure("process_virtual_memory_bytes", Kind::Gauge, "Addresses that the process has reserved.");
const THREADS: Definition = figure("process_threads", Kind::Gauge, "Threads of the process.");
const OPEN_FILES: Definition =
    figure("process_open_fds", Kind::Gauge, "Open files of the process; each connection is one.");
const OPEN_FILES_MAX: Definition =
    figure("process_max_fds", Kind::Gauge, "Files that the process may have open.");
const STARTED: Definition =
    figure("process_start_time_seconds", Kind::Gauge, "When the process started, in seconds since 1970.");
const MEMORY_LIMIT: Definition = figure(
    "fanfare_memory_limit_bytes",
    Kind::Gauge,
    "Memory that the process may use: the limit of its control group, or the machine's memory.",
);

pub(super) const DEFINITIONS: [Definition; 8] =
    [CPU, RESIDENT, VIRTUAL, THREADS, OPEN_FILES, OPEN_FILES_MAX, STARTED, MEMORY_LIMIT];

impl Process {
    pub(super) fn families(&self, started: SystemTime) -> Vec<MetricFamily> {
        vec![
            CPU.single((self.user + self.system).as_secs_f64()),
            RESIDENT.single(self.resident_bytes as f64),
            VIRTUAL.single(self.virtual_bytes as f64),
            THREADS.single(self.threads as f64),
            OPEN_FILES.single(self.open_files as f64),
            OPEN_FILES_MAX.single(self.open_files_max as f64),
            STARTED.single(seconds(started)),
            MEMORY_LIMIT.single(self.memory_limit_bytes as f64),
        ]
    }
}

pub(super) fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_described_by_its_stat() {
        let mut process = Process::default();
        process.read_stat("7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 31 14 15 16 17 4 19 20 123456 22 23\n");
        assert_eq!(process.user, Duration::from_millis(2500));
        assert_eq!(process.system, Duration::from_millis(310));
        assert_eq!((process.threads, process.virtual_bytes), (4, 123_456));
        process.read_stat("nonsense");
        assert_eq!(process, Process::default());
    }

    #[test]
    fn this_process_can_be_read() {
        let process = Process::read();
        assert!(process.resident_bytes > 100_000 && process.resident_bytes < process.memory_limit_bytes);
        assert!(process.virtual_bytes > process.resident_bytes);
        assert!(process.threads >= 1);
        assert!(process.open_files >= 3 && process.open_files < process.open_files_max);
    }

    /// A root with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
            fs::write(path, text).expect("written");
        }
        root
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 5 kB\n");

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        let root = root(&[
            MACHINE,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", "500000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "700000\n"),
        ]);
        assert_eq!(memory_limit_bytes(root.path()), 500_000);
    }

    #[test]
    fn version_1_has_a_file_of_its_own_and_a_container_sees_only_its_root() {
        let root = root(&[
            MACHINE,
            ("proc/self/cgroup", "9:cpu:/\n4:hugetlb,memory:/docker/0123\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "400000\n"),
        ]);
        assert_eq!(memory_limit_bytes(root.path()), 400_000);
    }

    #[test]
    fn without_a_limit_it_is_the_memory_of_the_machine() {
        let root = root(&[
            MACHINE,
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(memory_limit_bytes(root.path()), 1_024_000);
        assert_eq!(memory_limit_bytes(Path::new("/nowhere")), 0);
    }
}
