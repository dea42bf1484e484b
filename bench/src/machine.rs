//! The machine: which core for whom, and what it is.

use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

/// What the load generator has set up for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// The core of the server under test.
    pub(crate) server_core: usize,
    /// Cores beside the one of the load.
    others: usize,
}

impl Machine {
    /// Takes the last core for the load, and as many open files as the system allows.
    pub(crate) fn prepare() -> io::Result<Self> {
        rlimit::increase_nofile_limit(u64::MAX)?;
        let cores = std::thread::available_parallelism()?.get();
        if cores < 2 {
            return Err(io::Error::other("the server and the load need a core each, and there is only one"));
        }
        let mut cpus = CpuSet::new();
        cpus.set(cores - 1);
        sched_setaffinity(None, &cpus)?;
        Ok(Self { server_core: 0, others: cores - 1 })
    }

    /// A core for one of several processes under test. Where there are fewer cores than processes they share them.
    pub(crate) fn core_of(&self, process: usize) -> usize {
        process % self.others
    }

    pub(crate) fn describe(&self) -> String {
        let field = |file: &str, key: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
        let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cores = fs::read_to_string("/proc/cpuinfo").unwrap_or_default().matches("processor\t").count();
        format!("{model}, {cores} cores, {memory}, Linux {}; server and load on a core each", kernel.trim())
    }
}

/// The CPU time of this process so far.
pub(crate) fn own_cpu() -> Duration {
    cpu_of(std::process::id())
}

/// The CPU time of all threads of a process that are there now. In nanoseconds, unlike `/proc/PID/stat`.
pub(crate) fn cpu_of(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanos = |thread: fs::DirEntry| -> Option<u64> {
        fs::read_to_string(thread.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(threads.filter_map(nanos).sum())
}

/// UTC, to the second.
pub(crate) fn now() -> String {
    said_by("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"])
}

/// The commit of the working directory, with `+` for changes on top.
pub(crate) fn commit() -> String {
    let commit = said_by("git", &["rev-parse", "--short", "HEAD"]);
    let changes =
        said_by("git", &["status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results"]);
    if changes.is_empty() { commit } else { commit + "+" }
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
