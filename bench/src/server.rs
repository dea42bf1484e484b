//! The servers under test: how each is started, and what it costs while it runs.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::identity::Identity;
use crate::machine;
use crate::pusher::{APP_ID, KEY, SECRET};

/// How long a server may take to accept connections.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long a node may take to join the others.
const JOIN_LIMIT: Duration = Duration::from_secs(10);

/// What to start.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Fanfare(PathBuf),
    /// Fanfare with TLS.
    Secured {
        binary: PathBuf,
        identity: Identity,
    },
    Floor(PathBuf),
    Sockudo {
        binary: PathBuf,
        config: PathBuf,
    },
    Soketi {
        script: PathBuf,
        config: PathBuf,
    },
    /// One of several nodes that a Redis makes one.
    Joined {
        node: Box<Kind>,
        redis: SocketAddr,
        /// Where it tells how it is, if it is Fanfare.
        metrics: SocketAddr,
        lease_s: u64,
    },
}

/// A running server. It ends when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    kind: Kind,
    core: usize,
    child: Child,
    address: SocketAddr,
    /// Where its configuration is, if it has one.
    config: Option<PathBuf>,
}

/// What a process has used up so far, and what it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) cpu: Duration,
    pub(crate) rss_bytes: u64,
    pub(crate) threads: u64,
    pub(crate) files: usize,
    pub(crate) at: Instant,
}

impl Kind {
    pub(crate) fn fanfare(binary: &Path) -> io::Result<Self> {
        found(binary).map(Self::Fanfare)
    }

    /// The same with TLS, for servers that are measured with it.
    pub(crate) fn secured(&self) -> io::Result<Self> {
        match self {
            Self::Fanfare(binary) => Ok(Self::Secured { binary: binary.clone(), identity: Identity::new()? }),
            other => Ok(other.clone()),
        }
    }

    pub(crate) fn floor() -> io::Result<Self> {
        std::env::current_exe().map(Self::Floor)
    }

    pub(crate) fn sockudo(binary: &Path) -> io::Result<Self> {
        Ok(Self::Sockudo { binary: found(binary)?, config: found(Path::new("bench/rivals/sockudo.json"))? })
    }

    pub(crate) fn soketi(script: &Path) -> io::Result<Self> {
        Ok(Self::Soketi { script: found(script)?, config: found(Path::new("bench/rivals/soketi.json"))? })
    }

    /// The same as a node of a cluster.
    pub(crate) fn joined(&self, redis: SocketAddr, lease_s: u64) -> io::Result<Self> {
        let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        Ok(Self::Joined { node: Box::new(self.clone()), redis, metrics, lease_s })
    }

    /// For the report.
    pub(crate) fn command_line(&self) -> String {
        let command = self.command(0, None);
        // Where a file happens to lie says nothing to the reader.
        let name = |text: &OsStr| {
            let text = text.to_string_lossy().into_owned();
            match text.split_once("=/") {
                Some((key, path)) => format!("{key}={}", last_of(path)),
                None if text.starts_with('/') => last_of(&text).to_owned(),
                None => text,
            }
        };
        let environment = command
            .get_envs()
            .filter_map(|(key, value)| Some(format!("{}={}", key.to_string_lossy(), name(value?))));
        let words = std::iter::once(command.get_program()).chain(command.get_args()).map(name);
        environment.chain(words).collect::<Vec<_>>().join(" ")
    }

    fn command(&self, port: u16, config: Option<&Path>) -> Command {
        let on = |binary: &Path| Command::new(binary);
        match self {
            Self::Fanfare(binary) => {
                let mut command = on(binary);
                match config {
                    Some(file) => drop(command.env("FANFARE_CONFIG", file)),
                    None => {
                        command.env("FANFARE_APP_ID", APP_ID).env("FANFARE_APP_KEY", KEY);
                        command.env("FANFARE_APP_SECRET", SECRET).env("FANFARE_APP_CLIENT_EVENTS", "true");
                        command.env("FANFARE_APP_CLIENT_EVENTS_PER_S", "1000000");
                        command.env("FANFARE_APP_PRESENCE_MEMBERS_MAX", "100000");
                    }
                }
                command.args(["serve", "--set", &format!("server.bind=127.0.0.1:{port}")]);
                command.args(["--set", "server.workers=1", "--set", "metrics.bind="]);
                command
            }
            Self::Secured { binary, identity } => {
                let mut command = Self::Fanfare(binary.clone()).command(port, config);
                command.args(["--set", &format!("tls.certificate={}", identity.certificate().display())]);
                command.args(["--set", &format!("tls.key={}", identity.key().display())]);
                command
            }
            Self::Floor(binary) => {
                let mut command = on(binary);
                command.arg("floor").arg(port.to_string());
                command
            }
            Self::Sockudo { binary, config } => {
                let mut command = on(binary);
                command.env("HOST", "127.0.0.1").env("PORT", port.to_string());
                // At any other level it logs each client that goes without a word.
                command.env("TOKIO_WORKER_THREADS", "1").env("RUST_LOG", "off");
                command.arg("--config").arg(config);
                command
            }
            Self::Soketi { script, config } => {
                let mut command = on(Path::new("node"));
                command.env("NODE_ENV", "production").env("UV_THREADPOOL_SIZE", "1");
                command.env("SOKETI_PORT", port.to_string());
                // It listens there even with metrics switched off.
                command.env("SOKETI_METRICS_SERVER_PORT", (port ^ 1).to_string());
                command.arg("--max-old-space-size=8192").arg(script).arg("start");
                command.arg(format!("--config={}", config.display()));
                command
            }
            Self::Joined { node, redis, metrics, lease_s } => {
                let mut command = node.command(port, config);
                if matches!(**node, Self::Sockudo { .. }) {
                    command.env("ADAPTER_DRIVER", "redis").env("ADAPTER_FALLBACK_TO_LOCAL", "false");
                    command.env("DATABASE_REDIS_HOST", redis.ip().to_string());
                    command.env("DATABASE_REDIS_PORT", redis.port().to_string());
                } else {
                    command.args(["--set", &format!("redis.url=redis://{redis}")]);
                    command.args(["--set", &format!("redis.lease_s={lease_s}")]);
                    command.args(["--set", &format!("redis.node=node-{port}")]);
                    command.args(["--set", &format!("metrics.bind={metrics}")]);
                    // The clients of the load answer no pings, and have much to hear here.
                    command.args(["--set", "connection.ping_after_s=86400"]);
                }
                command
            }
        }
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn last_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn found(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

impl Server {
    /// Starts a server on a core of its own and waits until it accepts connections.
    /// With a `config`, it is given that instead of the settings that all scenarios share.
    pub(crate) fn start(kind: &Kind, core: usize, config: Option<&str>) -> io::Result<Self> {
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let file = config.map(|_| std::env::temp_dir().join(format!("fanfare-bench-{port}.toml")));
        if let (Some(file), Some(config)) = (&file, config) {
            fs::write(file, config)?;
        }
        let child = launch(kind, core, port, file.as_deref())?;
        let mut server = Self { kind: kind.clone(), core, child, address, config: file };
        server.wait()?;
        Ok(server)
    }

    /// Kills it and starts it again on the same port, without waiting for it.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        self.kill();
        self.child = launch(&self.kind, self.core, self.address.port(), self.config.as_deref())?;
        Ok(())
    }

    /// Waits until it accepts connections.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("{} has ended: {status}", self.kind.command_line())));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("{} does not listen", self.kind.command_line())));
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        self.wait_for_the_others()
    }

    /// Waits until a node of a cluster says that it is ready.
    fn wait_for_the_others(&self) -> io::Result<()> {
        let Kind::Joined { node, metrics, .. } = &self.kind else { return Ok(()) };
        let (address, path) = match **node {
            Kind::Sockudo { .. } => (self.address, "/up"),
            _ => (*metrics, "/ready"),
        };
        let deadline = Instant::now() + JOIN_LIMIT;
        loop {
            let answer = get(address, path);
            if matches!(answer, Ok((200, _))) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let says = answer.map_or_else(|error| error.to_string(), |(_, body)| body);
                return Err(io::Error::other(format!("a node has not joined the cluster: {says}")));
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// A figure of its metrics page; none if it has none.
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        let Kind::Joined { metrics, .. } = &self.kind else { return None };
        let (_, page) = get(*metrics, "/metrics").ok()?;
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Puts another configuration in the place of the one it was started with.
    pub(crate) fn rewrite(&self, config: &str) -> io::Result<()> {
        self.config.as_ref().map_or(Ok(()), |file| fs::write(file, config))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.ok_or(io::ErrorKind::NotFound)?, signal).map_err(Into::into)
    }

    /// Whom clients must trust, if it speaks TLS.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        match &self.kind {
            Kind::Secured { identity, .. } => Some(identity),
            _ => None,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Looks at the process.
    pub(crate) fn sample(&self) -> Sample {
        let pid = self.child.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        Sample {
            cpu: machine::cpu_of(pid),
            rss_bytes: field("VmRSS:") * 1024,
            threads: field("Threads:"),
            files: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
            at: Instant::now(),
        }
    }

    /// Ends it at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks for a page: its status and its body.
fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut io = TcpStream::connect(address)?;
    io.set_read_timeout(Some(Duration::from_secs(5)))?;
    io.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    io.read_to_string(&mut answer)?;
    let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}

fn launch(kind: &Kind, core: usize, port: u16, config: Option<&Path>) -> io::Result<Child> {
    let wanted = kind.command(port, config);
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(wanted.get_program()).args(wanted.get_args());
    command.envs(wanted.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| io::Error::new(error.kind(), format!("taskset: {error}")))
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if let Some(file) = &self.config {
            let _ = fs::remove_file(file);
        }
    }
}
