//! The Redis that makes servers under test one: started for a run, on loopback, without a disk.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::machine;

/// How long it may take to answer for the first time.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A running Redis. It ends when dropped.
#[derive(Debug)]
pub(crate) struct Redis {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

/// What it has done so far, by its own account.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    /// Calls by command; what a script calls is counted too.
    calls: BTreeMap<String, u64>,
    received_bytes: u64,
    sent_bytes: u64,
    pub(crate) cpu: Duration,
}

impl Redis {
    /// Where `redis-server` is; none if it is not installed.
    pub(crate) fn program() -> Option<PathBuf> {
        let path = env::var_os("PATH")?;
        env::split_paths(&path).map(|folder| folder.join("redis-server")).find(|program| program.is_file())
    }

    /// Starts it on a core and waits until it answers.
    pub(crate) fn start(core: usize) -> io::Result<Self> {
        let program = Self::program().ok_or_else(|| io::Error::other("there is no redis-server in PATH"))?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("taskset");
        command.arg("-c").arg(core.to_string()).arg(program);
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args(["--maxmemory-policy", "noeviction"]).arg("--dir").arg(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let redis = Self {
            child: command.spawn()?,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            _folder: folder,
        };
        let deadline = Instant::now() + START_LIMIT;
        while redis.ask(&["PING"]).is_err() {
            if Instant::now() > deadline {
                return Err(io::Error::other("redis-server does not answer"));
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Ok(redis)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has done so far.
    pub(crate) fn work(&self) -> io::Result<Work> {
        let stats = self.ask(&["INFO", "stats"])?;
        let commands = self.ask(&["INFO", "commandstats"])?;
        Ok(Work { cpu: machine::cpu_of(self.child.id()), ..Work::read(&stats, &commands) })
    }

    /// The answer to a command, if it is one text.
    fn ask(&self, words: &[&str]) -> io::Result<String> {
        let mut io = TcpStream::connect(self.address)?;
        io.set_read_timeout(Some(Duration::from_secs(5)))?;
        let words_sent: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        io.write_all(format!("*{}\r\n{words_sent}", words.len()).as_bytes())?;
        let mut io = BufReader::new(io);
        let mut line = String::new();
        io.read_line(&mut line)?;
        let line = line.trim_end();
        match line.split_at_checked(1) {
            Some(("+" | ":", text)) => Ok(text.to_owned()),
            Some(("$", length)) => {
                let mut text = vec![0; length.parse().map_err(io::Error::other)?];
                io.read_exact(&mut text)?;
                String::from_utf8(text).map_err(io::Error::other)
            }
            _ => Err(io::Error::other(format!("Redis answers {line}"))),
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Work {
    /// From two sections of `INFO`.
    fn read(stats: &str, commands: &str) -> Self {
        let field = |name: &str| {
            let line = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
        };
        let call = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let calls = rest.split(',').next()?.trim().parse().ok()?;
            Some((name.to_owned(), calls))
        };
        Self {
            calls: commands.lines().filter_map(call).collect(),
            received_bytes: field("total_net_input_bytes"),
            sent_bytes: field("total_net_output_bytes"),
            cpu: Duration::ZERO,
        }
    }

    /// What has been done since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let calls = self.calls.iter().map(|(name, calls)| {
            (name.clone(), calls.saturating_sub(before.calls.get(name).copied().unwrap_or_default()))
        });
        Self {
            calls: calls.collect(),
            received_bytes: self.received_bytes.saturating_sub(before.received_bytes),
            sent_bytes: self.sent_bytes.saturating_sub(before.sent_bytes),
            cpu: self.cpu.saturating_sub(before.cpu),
        }
    }

    /// Scripts that were run.
    pub(crate) fn scripts(&self) -> u64 {
        ["eval", "evalsha", "fcall"].iter().filter_map(|name| self.calls.get(*name)).sum()
    }

    /// Commands of clients and of scripts together; the questions of this program are left out.
    pub(crate) fn commands(&self) -> u64 {
        self.calls
            .iter()
            .filter(|(name, _)| !matches!(&***name, "info" | "ping"))
            .map(|(_, calls)| calls)
            .sum()
    }

    /// Bytes that came and went.
    pub(crate) fn bytes(&self) -> u64 {
        self.received_bytes + self.sent_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_has_done_is_read_from_its_info() {
        let stats = "# Stats\r\ntotal_net_input_bytes:100\r\ntotal_net_output_bytes:20\r\n";
        let commands = "# Commandstats\r\ncmdstat_evalsha:calls=3,usec=9,usec_per_call=3.00\r\n\
                        cmdstat_info:calls=7,usec=1\r\ncmdstat_client|list:calls=2,usec=1\r\n";
        let work = Work::read(stats, commands);
        assert_eq!((work.scripts(), work.commands(), work.bytes()), (3, 5, 120));
        let later = Work::read("total_net_input_bytes:150\r\n", "cmdstat_evalsha:calls=5,usec=9\r\n");
        let since = later.since(&work);
        assert_eq!((since.scripts(), since.commands(), since.bytes()), (2, 2, 50));
    }
}
