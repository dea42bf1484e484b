//! Connections on which something is asked and answered: many at once, on one connection.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::aio::{MultiplexedConnection, SendError};
use deadpool_redis::redis::{
    AsyncConnectionConfig, Cmd, Pipeline, PushInfo, PushKind, RedisError, Value, cmd, from_redis_value,
};
use deadpool_redis::{Connection, Manager, Pool, PoolError};
use tokio::sync::Notify;

use crate::cluster::script::Invocation;
use crate::cluster::servers::error::{Answer, RunError, Trouble, is_closed};
use crate::cluster::servers::resp::Greeting;
use crate::cluster::servers::settings::Access;
use crate::cluster::servers::topology::Address;

/// A connection.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    connection: MultiplexedConnection,
    at: Address,
    /// The setting that says who we are there.
    setting: &'static str,
    /// Told when the connection has ended, or is of no more use.
    broken: Arc<Notify>,
    run: u64,
    /// The same as the server says it, for scripts; empty if it does not: nodes must not take it for another one each.
    run_name: Arc<str>,
}

/// Commands that may wait to be written. More wait outside.
const QUEUE_MAX: usize = 1024;

impl Requests {
    /// Connects.
    pub(super) async fn open(access: &Access, at: &Address, timeout: Duration) -> Result<Self, Trouble> {
        let broken = Arc::new(Notify::new());
        let signal = Arc::clone(&broken);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout))
            .set_pipeline_buffer_size(QUEUE_MAX)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    signal.notify_one();
                }
                Ok::<(), SendError>(())
            });
        let trouble = |error: RedisError| Trouble::of(at, access.setting, &error);
        let manager = Manager::new_with_config(access.info(at).map_err(trouble)?, config).map_err(trouble)?;
        // The pool's part ends here. It gives a connection to one at a time, and asks before each time whether it is still
        // there; this one is shared by all, and watched.
        let pool = Pool::builder(manager).max_size(1).build();
        let pool = pool.map_err(|error| Trouble::away(at, error))?;
        let connection = pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) if is_closed(&error) => {
                Trouble::closed_at_once(at, access.setting, access.tls().is_some())
            }
            PoolError::Backend(error) => trouble(error),
            error => Trouble::away(at, error),
        })?;
        Ok(Self {
            connection: Connection::take(connection),
            at: at.clone(),
            setting: access.setting,
            broken,
            run: 0,
            run_name: Arc::default(),
        })
    }

    /// Where it leads.
    pub(super) fn at(&self) -> &Address {
        &self.at
    }

    /// Waits until the connection has ended, or is of no more use.
    pub(super) async fn broken(&self) {
        self.broken.notified().await;
    }

    /// Gives the connection up.
    pub(super) fn give_up(&self) {
        self.broken.notify_one();
    }

    /// Asks the server what it is.
    pub(super) async fn greet(&mut self) -> Result<Greeting, Trouble> {
        // Everybody may, and while it loads or runs a long script, too.
        let answer = self.ask(&cmd("HELLO")).await?;
        Greeting::of(&answer).ok_or_else(|| Trouble::away(&self.at, "an answer that is not of Redis"))
    }

    /// Which run of the server it leads to; 0 if that was not asked.
    pub(super) fn run_id(&self) -> u64 {
        self.run
    }

    /// Asks which run of the server this is: after a restart it is another one.
    pub(super) async fn find_run(&mut self) -> Result<(), Trouble> {
        let text: String = match self.ask(cmd("INFO").arg("server")).await {
            Ok(answer) => from_redis_value(answer).unwrap_or_default(),
            Err(Trouble::Refused(_)) => String::new(),
            Err(trouble) => return Err(trouble),
        };
        let run = text.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default();
        let digits = run.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        if digits.is_some() {
            self.run_name = run.into();
        }
        // A server that keeps it to itself is another one with every connection.
        self.run = digits.unwrap_or_else(rand::random).max(1);
        Ok(())
    }

    /// Asks something of ours.
    pub(super) async fn ask(&mut self, command: &Cmd) -> Result<Value, Trouble> {
        match self.connection.send_packed_command(command).await {
            Ok(Value::ServerError(error)) => {
                let detail = error.details().unwrap_or_default();
                Err(Trouble::answered(&self.at, self.setting, error.code(), detail))
            }
            Ok(answer) => Ok(answer),
            Err(error) => Err(Trouble::of(&self.at, self.setting, &error)),
        }
    }

    /// Runs a script, by its hash as long as the server knows it. It learns which run of the server does it. With `asking`, a slot that is on its way there counts as
    /// being there.
    pub(super) async fn run(
        &mut self,
        invocation: &Invocation,
        hash: &str,
        asking: bool,
    ) -> Result<Value, Answer> {
        let run = Arc::clone(&self.run_name);
        match self.send(&command("EVALSHA", hash, invocation, &run), asking).await {
            Err(Answer::NoScript) => {
                self.send(&command("EVAL", invocation.script.source, invocation, &run), asking).await
            }
            answer => answer,
        }
    }

    async fn send(&mut self, command: &Cmd, asking: bool) -> Result<Value, Answer> {
        let answer = if asking {
            // The word holds for the next command of the connection, so nobody else's may come between.
            let mut pair = Pipeline::with_capacity(2);
            pair.cmd("ASKING").add_command(command.clone());
            self.connection.send_packed_commands(&pair, 0, 2).await.map(|mut answers| answers.pop())
        } else {
            self.connection.send_packed_command(command).await.map(Some)
        };
        match answer {
            Ok(Some(Value::ServerError(error))) => Err(Answer::of(&self.at, &error)),
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(self.unknown("no answer")),
            Err(error) => Err(self.unknown(error)),
        }
    }

    /// It may have been written, and then it may have been done.
    fn unknown(&self, why: impl std::fmt::Display) -> Answer {
        Answer::Error(RunError::Unknown(format!("{}: {why}", self.at)))
    }
}

fn command(name: &str, script: &str, invocation: &Invocation, run: &str) -> Cmd {
    let Invocation { keys, args, .. } = invocation;
    let size = keys.iter().chain(args).map(Vec::len).sum::<usize>() + script.len() + run.len() + 16;
    let mut command = Cmd::with_capacity(keys.len() + args.len() + 4, size);
    command.arg(name).arg(script).arg(keys.len());
    for word in keys.iter().chain(args) {
        command.arg(word.as_slice());
    }
    command.arg(run);
    command
}
