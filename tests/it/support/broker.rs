//! The real binary as a child process.

use std::{
    net::SocketAddr,
    ops::Deref,
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::Instant,
};

use tempfile::TempDir;

use super::{Api, DEADLINE, Http, Identity, KEY, SECRET};

/// A running broker. It ends with its story.
pub(crate) struct Broker {
    process: Process,
    api: Api,
    metrics: Option<SocketAddr>,
    plain: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    folder: TempDir,
}

/// A child process whose output is collected line by line.
pub(crate) struct Process {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

/// What a process left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Broker {
    /// A broker with one app, client events on.
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// A broker with settings outside the app, one dotted key a line.
    pub(crate) fn with(settings: &str) -> Self {
        Self::of(settings, "client_events = true")
    }

    /// A broker whose app has these settings besides its id and key.
    pub(crate) fn with_app(app: &str) -> Self {
        Self::of("", app)
    }

    pub(crate) fn of(settings: &str, app: &str) -> Self {
        Self::with_apps(settings, &usual_app(app))
    }

    /// The same, started by another program that is given the command line, on a certain address.
    pub(crate) fn within(starter: &[&str], bind: &str, settings: &str, app: &str) -> Self {
        let mut command = Command::new(starter[0]);
        command.env_clear().args(&starter[1..]).arg(BINARY).args(SERVE);
        Self::launch_by(command, bind, settings, &usual_app(app))
    }

    /// A broker whose apps are written out.
    pub(crate) fn with_apps(settings: &str, apps: &str) -> Self {
        Self::launch("127.0.0.1:0", settings, apps)
    }

    /// A broker with the usual app on a certain address.
    pub(crate) fn at(address: SocketAddr) -> Self {
        let keys = format!("keys = [{{ key = \"{KEY}\", secret = \"{SECRET}\" }}]");
        Self::launch(&address.to_string(), "", &format!("[[apps]]\nid = \"1\"\n{keys}"))
    }

    /// A broker that others than this machine could connect to.
    pub(crate) fn everywhere() -> Self {
        let mut broker = Self::at(SocketAddr::from(([0, 0, 0, 0], 0)));
        let port = broker.api.address().port();
        broker.api = Api::new(SocketAddr::from(([127, 0, 0, 1], port)));
        broker
    }

    /// A broker with one app that speaks TLS. Clients trust its certificate.
    pub(crate) fn secure(identity: &Identity, settings: &str, app: &str) -> Self {
        let mut broker = Self::of(&format!("{}{settings}", identity.settings()), app);
        broker.api = broker.api.over_tls(identity.client());
        broker
    }

    fn launch(bind: &str, settings: &str, apps: &str) -> Self {
        Self::launch_by(fanfare(&SERVE), bind, settings, apps)
    }

    fn launch_by(mut command: Command, bind: &str, settings: &str, apps: &str) -> Self {
        let measured = settings.contains("metrics.bind");
        let metrics = if measured { "" } else { "metrics.bind = \"\"\n" };
        let alone = cluster_of_its_own(settings);
        let config = format!("server.bind = \"{bind}\"\n{metrics}{alone}{settings}\n{apps}\n");
        let folder = tempfile::tempdir().expect("a folder for the configuration");
        let file = folder.path().join("fanfare.toml");
        std::fs::write(&file, config).expect("a configuration file");
        command.arg(&file);
        Self::spawned(command, measured, folder)
    }

    /// A broker that was given all it needs in its environment; its file is `fanfare.toml` in the folder.
    pub(crate) fn spawned(command: Command, measured: bool, folder: TempDir) -> Self {
        let process = Process::spawn(command);
        let metrics = measured.then(|| process.announced("metrics on http://"));
        // A broker that was given all it needs elsewhere has neither.
        let text = std::fs::read_to_string(folder.path().join("fanfare.toml")).unwrap_or_default();
        let has_admin = text.contains("admin.token") && !text.contains("admin.bind = \"\"");
        let admin = has_admin.then(|| process.announced(ADMIN));
        let plain = text.contains("plain_bind").then(|| process.announced("without TLS on http://"));
        let secure = text.contains("tls.certificate");
        let address = if secure { process.announced("listening on https://") } else { process.listening() };
        Self { process, api: Api::new(address), metrics, plain, admin, folder }
    }

    /// Where the configuration and whatever else the broker keeps is.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Puts another configuration in the place of the one it was started with.
    pub(crate) fn rewrite(&self, config: &str) {
        // In one step, as editors and Kubernetes do it.
        let new = self.folder().join("new.toml");
        std::fs::write(&new, config).expect("a new configuration");
        std::fs::rename(new, self.folder().join("fanfare.toml")).expect("in its place");
    }

    /// Waits for a line of the log that holds `mark`.
    #[track_caller]
    pub(crate) fn logs(&self, mark: &str) -> String {
        self.process.error_with(mark)
    }

    /// The same broker on its port without TLS.
    #[track_caller]
    pub(crate) fn plain(&self) -> Api {
        Api::new(self.plain.expect("a broker with a plain port"))
    }

    /// Where the metrics are.
    #[track_caller]
    pub(crate) fn metrics_address(&self) -> SocketAddr {
        self.metrics.expect("a broker with metrics")
    }

    /// The page of the metrics, as it is at this moment.
    #[track_caller]
    pub(crate) fn metrics(&self) -> String {
        let mut http = Http::connect(self.metrics_address());
        http.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let reply = http.reply();
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.body
    }

    /// One figure of it, by its name and labels.
    #[track_caller]
    pub(crate) fn figure(&self, series: &str) -> f64 {
        let page = self.metrics();
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().expect("a number")
    }

    /// Where the admin API is, if it is on.
    pub(crate) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// What threads share of a broker: its address and its app's credentials.
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// How many files the process has open.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("a living process").count()
    }

    /// The memory the process holds, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("a living process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub(crate) fn finish(self) -> Finished {
        self.process.finish()
    }

    /// Stops the broker and gives what it wrote.
    #[track_caller]
    pub(crate) fn stop(self) -> Finished {
        self.signal("TERM");
        self.finish()
    }
}

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_fanfare");

/// How a broker is started; its configuration file follows.
const SERVE: [&str; 2] = ["serve", "--config"];

/// The block of the configuration for the one app of most stories.
fn usual_app(settings: &str) -> String {
    format!("[[apps]]\nid = \"1\"\nkeys = [{{ key = \"{KEY}\", secret = \"{SECRET}\" }}]\n{settings}")
}

/// Settings that make every broker the only node of a cluster, if this process was told where a Redis is. So all that
/// holds for a node of its own is held against the other way, too.
fn cluster_of_its_own(settings: &str) -> String {
    static NUMBERS: AtomicUsize = AtomicUsize::new(0);
    match std::env::var("IT_REDIS_URL") {
        Ok(url) if !settings.contains("redis.") => {
            let (process, number) = (std::process::id(), NUMBERS.fetch_add(1, Ordering::Relaxed));
            format!("redis.url = \"{url}\"\nredis.prefix = \"it-{process}-{number}\"\n")
        }
        _ => String::new(),
    }
}

/// Runs the binary to its end.
#[track_caller]
pub(crate) fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let mut command = fanfare(arguments);
    command.envs(environment.iter().copied());
    Process::spawn(command).finish()
}

/// The binary under test, with nothing of this process's environment.
pub(crate) fn fanfare(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.env_clear().args(arguments);
    command
}

impl Process {
    pub(crate) fn spawn(command: Command) -> Self {
        Self::spawn_on(command, Stdio::null())
    }

    /// A process that is given something on its standard input.
    pub(crate) fn spawn_on(mut command: Command, stdin: impl Into<Stdio>) -> Self {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stdout = lines(child.stdout.take().expect("its output"));
        let stderr = lines(child.stderr.take().expect("its errors"));
        Self { child, stdout, stderr }
    }

    /// The address on the line that says the broker is ready.
    #[track_caller]
    pub(crate) fn listening(&self) -> SocketAddr {
        self.announced(READY)
    }

    /// What is written up to the line that says the broker is ready, and the address on it.
    #[track_caller]
    pub(crate) fn banner(&self) -> (String, SocketAddr) {
        let lines = self.lines_to(READY);
        let address = address_in(lines.last().expect("a line"), READY);
        (lines.join("\n"), address)
    }

    /// The address behind `mark` on the next line that has it.
    #[track_caller]
    pub(crate) fn announced(&self, mark: &str) -> SocketAddr {
        address_in(&self.line_with(mark), mark)
    }

    /// The next line of output that holds `mark`.
    #[track_caller]
    pub(crate) fn line_with(&self, mark: &str) -> String {
        self.lines_to(mark).pop().expect("a line")
    }

    /// The next line of errors that holds `mark`.
    #[track_caller]
    pub(crate) fn error_with(&self, mark: &str) -> String {
        loop {
            match self.stderr.recv_timeout(DEADLINE) {
                Ok(line) if line.contains(mark) => return line,
                Ok(_) => {}
                Err(error) => panic!("no line of errors with {mark:?}: {error}"),
            }
        }
    }

    #[track_caller]
    fn lines_to(&self, mark: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.stdout.recv_timeout(DEADLINE) {
                Ok(line) => {
                    let found = line.contains(mark);
                    lines.push(line);
                    if found {
                        return lines;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("no line with {mark:?} before the end; {}", rest_of(&self.stderr))
                }
                Err(error) => panic!("no line with {mark:?}: {error}"),
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status()
            .expect("kill");
        assert!(status.success());
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let stdout = rest_of(&self.stdout);
        let stderr = rest_of(&self.stderr);
        let code = self.child.wait().expect("an end").code();
        Finished { code, stdout, stderr }
    }

    fn errors(&self) -> String {
        self.stderr.try_iter().collect::<Vec<_>>().join("\n")
    }
}

/// A broker is dealt with through its sockets.
impl Deref for Broker {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("what the broker said:\n{}", self.errors());
        }
    }
}

/// How the line begins that says the broker is ready.
const READY: &str = "listening on http://";

/// What stands on the line that says where the admin API is.
const ADMIN: &str = "admin API on http://";

#[track_caller]
fn address_in(line: &str, mark: &str) -> SocketAddr {
    let (_, rest) = line.split_once(mark).expect("the mark");
    let address = rest.split(['/', ' ']).next().expect("an address");
    address.parse().unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Collects what a child writes, so that it never waits for us.
fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    use std::io::BufRead;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// All lines up to the end of the stream.
#[track_caller]
fn rest_of(receiver: &Receiver<String>) -> String {
    let deadline = Instant::now() + DEADLINE;
    let mut text = String::new();
    loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                text.push_str(&line);
                text.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => return text,
            Err(RecvTimeoutError::Timeout) => panic!("the process did not end; it said:\n{text}"),
        }
    }
}
