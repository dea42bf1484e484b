//! Databases that a story starts for itself: in a folder of its own, on a socket of its own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection, SqliteConnection};
use tempfile::TempDir;

use super::until_within;

/// The password of every database; it must be seen nowhere.
pub(crate) const PASSWORD: &str = "hush-hush-9";

/// Making a database takes a busy machine its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whose database it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
    MariaDb,
}

/// A database of one story.
pub(crate) struct Database {
    kind: Kind,
    folder: TempDir,
    server: Option<Child>,
    program: PathBuf,
}

impl Database {
    /// Starts one, or says aloud why that cannot be.
    pub(crate) fn start(kind: Kind) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let program = match kind {
            Kind::Sqlite => PathBuf::new(),
            Kind::Postgres => match postgres_folder() {
                Some(folder) => folder.join("postgres"),
                None => {
                    return skipped("PostgreSQL", "/usr/lib/postgresql has no initdb: install postgresql");
                }
            },
            Kind::MariaDb => match found("mariadbd") {
                Some(program) => program,
                None => return skipped("MariaDB", "there is no mariadbd: install mariadb-server"),
            },
        };
        let mut database = Self { kind, folder, server: None, program };
        database.prepare();
        database.serve();
        Some(database)
    }

    fn prepare(&self) {
        let folder = self.folder.path();
        if is_root() {
            chown(folder, Some(NOBODY), Some(NOGROUP)).expect("a folder of nobody's");
        }
        match self.kind {
            Kind::Sqlite => {}
            Kind::Postgres => {
                let secret = self.file("password", PASSWORD);
                let initdb = self.program.with_file_name("initdb");
                let mut command = as_nobody(&initdb, folder);
                command.args([
                    "--username=ann",
                    "--auth=scram-sha-256",
                    "--no-sync",
                    "--encoding=UTF8",
                    "--locale=C",
                ]);
                command.arg("--pwfile").arg(secret).arg("--pgdata").arg(folder.join("data"));
                succeed(command);
            }
            Kind::MariaDb => {
                let install = found("mariadb-install-db").expect("it comes with mariadbd");
                let mut command = as_nobody(&install, folder);
                command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
                command.arg(format!("--datadir={}", folder.join("data").display()));
                succeed(command);
                let sql = format!(
                    "CREATE DATABASE IF NOT EXISTS apps CHARACTER SET utf8mb4;\n\
                     CREATE USER IF NOT EXISTS 'ann'@'localhost' IDENTIFIED BY '{PASSWORD}';\n\
                     GRANT ALL ON apps.* TO 'ann'@'localhost';\n"
                );
                self.file("init.sql", &sql);
            }
        }
    }

    /// Starts the server, also after it was killed, and waits until it answers.
    pub(crate) fn serve(&mut self) {
        let folder = self.folder.path();
        let mut command = as_nobody(&self.program, folder);
        match self.kind {
            Kind::Sqlite => return,
            Kind::Postgres => {
                command.arg("-D").arg(folder.join("data")).arg("-k").arg(folder);
                command.args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB"]);
            }
            Kind::MariaDb => {
                command.args(["--no-defaults", "--skip-networking", "--innodb-flush-log-at-trx-commit=2"]);
                command.arg("--innodb-buffer-pool-size=8M");
                for (flag, name) in [
                    ("datadir", "data"),
                    ("socket", "socket"),
                    ("init-file", "init.sql"),
                    ("pid-file", "pid"),
                ] {
                    command.arg(format!("--{flag}={}", folder.join(name).display()));
                }
            }
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let mut server = command.spawn().expect("the database starts");
        until_within(PATIENCE, "a database that answers", || {
            // After a crash it may find processes of the one before, and give up until they are gone.
            if let Some(status) = server.try_wait().expect("a child") {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                assert!(log.contains("still in use"), "{status}: {log}");
                server = command.spawn().expect("the database starts");
            }
            self.try_sql("SELECT 1").is_ok()
        });
        self.server = Some(server);
    }

    /// Ends the server as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill(); // it may have gone already
            server.wait().expect("an end");
        }
        if self.kind == Kind::Postgres {
            // Its children see that they are alone only by and by.
            let _ = fs::remove_file(self.folder.path().join(".s.PGSQL.5432"));
        }
    }

    /// Where it is, password included.
    pub(crate) fn url(&self) -> String {
        let folder = self.folder.path().display();
        match self.kind {
            Kind::Sqlite => format!("sqlite:{folder}/apps.db"),
            Kind::Postgres => format!("postgres://ann:{PASSWORD}@localhost/postgres?host={folder}"),
            Kind::MariaDb => format!("mysql://ann:{PASSWORD}@localhost/apps?socket={folder}/socket"),
        }
    }

    /// Runs statements.
    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    fn try_sql(&self, sql: &str) -> Result<(), sqlx::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        macro_rules! run {
            ($connection:ty, $url:expr) => {{
                let mut connection = <$connection>::connect($url).await?;
                connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
                connection.close().await
            }};
        }
        runtime.block_on(async {
            match self.kind {
                Kind::Sqlite => run!(SqliteConnection, &format!("{}?mode=rwc", self.url())),
                Kind::Postgres => run!(PgConnection, &self.url()),
                Kind::MariaDb => run!(MySqlConnection, &self.url()),
            }
        })
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    }
}

impl Database {
    /// Sends the server a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let server = self.server.as_ref().expect("a server");
        let status = Command::new("kill").args([format!("-{name}"), server.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // PostgreSQL cleans up what it shares with its children unless it is killed.
        if let Some(server) = &mut self.server
            && self.kind == Kind::Postgres
            && Command::new("kill")
                .args(["-QUIT", &server.id().to_string()])
                .status()
                .is_ok_and(|it| it.success())
        {
            let _ = server.wait();
        }
        self.kill();
    }
}

const NOBODY: u32 = 65534;
const NOGROUP: u32 = 65534;

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Database servers do not run as root.
fn as_nobody(program: &Path, folder: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    // A place for temporary files, too: MariaDB's are in each other's way.
    command.current_dir(folder).env("HOME", folder).env("TMPDIR", folder);
    command
}

#[track_caller]
fn succeed(mut command: Command) {
    let output = command.output().expect("a program");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
}

fn found(program: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
}

/// The newest version there is.
fn postgres_folder() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    versions.retain(|folder| folder.join("initdb").exists());
    versions.sort();
    versions.pop()
}

/// Says that a story cannot be told here. Not by a macro, whose output nobody would see.
fn skipped(name: &str, why: &str) -> Option<Database> {
    let _ = writeln!(std::io::stderr(), "!!! {name} skipped: {why} !!!");
    None
}
