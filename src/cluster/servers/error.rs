//! What can go wrong, what it means for a script, and what somebody can do about it.
//!
//! Texts here are read by operators. They name the setting that is to blame and never what it contains.

use std::fmt::Display;

use deadpool_redis::redis::{RedisError, ServerError};
use thiserror::Error;

use crate::cluster::servers::topology::{Address, Redirect};

/// Why a script could not be run.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum RunError {
    /// Nothing was done for certain, and it may work in a moment: no connection, a slot on the move, a replica that is
    /// just being promoted, a server that loads.
    #[error("{0}")]
    NotRun(String),
    /// The answer is lost: it may have been done or not.
    #[error("{0}")]
    Unknown(String),
    /// The script has said so: a word of [`crate::cluster::script::Fault`], or an error of Lua.
    #[error("{0}")]
    Script(String),
    /// Redis will not: wrong password, missing rights, wrong version. Trying again is no use before somebody mends it.
    #[error("{0}")]
    Refused(String),
}

/// Why the settings of Redis cannot be used.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

/// Why there is no connection.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(super) enum Trouble {
    /// That may pass.
    #[error("{0}")]
    Away(String),
    /// Somebody has to mend it.
    #[error("{0}")]
    Refused(String),
}

/// What the answer to a script comes to, if it is an error.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// The text of the script has to come along.
    NoScript,
    /// The slot has gone there.
    Moved(Redirect),
    /// The slot is going there, and what was asked for is there already.
    Asked(Redirect),
    /// The server is no master any more.
    Demoted(String),
    /// The server has not heard enough of the others of its Redis Cluster.
    Alone(String),
    /// That is for the caller.
    Error(RunError),
}

/// What a user needs, besides keys and topics that begin with the prefix. `HELLO` and `AUTH` need no right.
pub const RIGHTS: &str = "~fanfare:* &fanfare:* +@read +@write -@dangerous +@pubsub +eval +evalsha +time +info \
                      +cluster|slots, with redis.prefix for fanfare";

impl Trouble {
    /// Of a network, or of what lies between.
    pub(super) fn away(at: &Address, why: impl Display) -> Self {
        let text = why.to_string();
        match mistake(&text) {
            Some(remedy) => Self::Refused(format!("{at}: {text}: {remedy}")),
            None => Self::Away(format!("{at}: {text}")),
        }
    }

    /// Of somebody at the other end.
    pub(super) fn closed(at: &Address) -> Self {
        Self::away(at, "the connection was closed")
    }

    /// Of somebody at the other end, who has not said a word.
    pub(super) fn closed_at_once(at: &Address, setting: &str, is_secure: bool) -> Self {
        let scheme = if is_secure { "redis:// if no TLS is" } else { "rediss:// if TLS is" };
        Self::away(
            at,
            format!("the connection was closed at once ({setting} begins with {scheme} spoken there)"),
        )
    }

    /// Of an error that a server answers with while a connection is made, or to a command of ours. `setting` has its
    /// user and its password.
    pub(super) fn answered(at: &Address, setting: &str, code: &str, detail: &str) -> Self {
        let said = format!("{at}: {}", sentence(code, detail.trim_end_matches('.')));
        match remedy(setting, code, detail) {
            Some(remedy) => Self::Refused(format!("{said}: {remedy}")),
            None => Self::Away(said),
        }
    }

    /// Of the library.
    pub(super) fn of(at: &Address, setting: &str, error: &RedisError) -> Self {
        match error.code() {
            Some(code) => Self::answered(at, setting, code, error.detail().unwrap_or_default()),
            None if is_closed(error) => Self::closed(at),
            None => Self::away(at, error),
        }
    }

    /// What that means for a script that should have been run.
    pub(super) fn of_run(&self) -> RunError {
        match self {
            Self::Away(text) => RunError::NotRun(text.clone()),
            Self::Refused(text) => RunError::Refused(text.clone()),
        }
    }
}

impl Answer {
    /// What the server at `at` means.
    pub(super) fn of(at: &Address, error: &ServerError) -> Self {
        Self::read(at, error.code(), error.details().unwrap_or_default())
    }

    fn read(at: &Address, code: &str, detail: &str) -> Self {
        let said = || format!("{at}: {}", sentence(code, detail));
        match code {
            "NOSCRIPT" => return Self::NoScript,
            "MOVED" | "ASK" => {
                let redirect = Redirect::parse(detail, at);
                return match redirect {
                    Some(redirect) if code == "ASK" => Self::Asked(redirect),
                    Some(redirect) => Self::Moved(redirect),
                    None => Self::Error(RunError::NotRun(said())),
                };
            }
            "READONLY" => return Self::Demoted(said()),
            "CLUSTERDOWN" => return Self::Alone(said()),
            // None of these comes after a script has written something.
            "TRYAGAIN" | "LOADING" | "MASTERDOWN" | "BUSY" | "OOM" | "MISCONF" | "NOREPLICAS" => {
                return Self::Error(RunError::NotRun(said()));
            }
            _ => {}
        }
        Self::Error(match remedy(SERVERS, code, detail) {
            Some(remedy) => RunError::Refused(format!("{}: {remedy}", said())),
            None => RunError::Script(sentence(code, detail)),
        })
    }
}

/// Whether somebody has closed the connection.
pub(super) fn is_closed(error: &RedisError) -> bool {
    error.is_connection_dropped() && !error.is_connection_refusal()
}

/// The setting that has user and password of the servers.
pub(super) const SERVERS: &str = "redis.url";

/// The setting that has those of the Sentinels.
pub(super) const SENTINELS: &str = "redis.sentinels";

fn sentence(code: &str, detail: &str) -> String {
    if detail.is_empty() { code.to_owned() } else { format!("{code} {detail}") }
}

/// What to do about an error of a server, if somebody has to.
fn remedy(setting: &str, code: &str, detail: &str) -> Option<String> {
    Some(match code {
        "WRONGPASS" => {
            format!(
                "user or password of {setting} are wrong (a password without a user is redis://:password@host)"
            )
        }
        "NOAUTH" => format!("a password is missing in {setting}: redis://user:password@host:6379"),
        "NOPERM" if setting == SENTINELS => {
            format!("the user of {setting} lacks rights: +sentinel|get-master-addr-by-name")
        }
        "NOPERM" => format!("the user of {setting} lacks rights: {RIGHTS}"),
        // That is how a script is told.
        "ERR" if detail.starts_with("The user executing the script can't") => {
            format!("the user of {setting} lacks rights: {RIGHTS}")
        }
        "DENIED" => "protected mode lets nobody in from elsewhere: give Redis a password, or a bind address"
            .to_owned(),
        "NOPROTO" => "Redis 7 or Valkey is needed".to_owned(),
        "ERR" if detail.starts_with("unknown command") => "Redis 7 or Valkey is needed".to_owned(),
        "ERR" if detail.starts_with("DB index") => format!("Redis has fewer databases than {setting} says"),
        "ERR" if detail.starts_with("SELECT is not allowed") => {
            format!("a Redis Cluster has no numbered databases: leave the number out of {setting}")
        }
        _ => return None,
    })
}

/// What to do about an error below Redis, if somebody has to.
fn mistake(text: &str) -> Option<&'static str> {
    let has = |part: &str| text.contains(part);
    if has("UnknownIssuer") || has("CaUsedAsEndEntity") {
        Some("name a file with its authority in redis.tls_ca_file")
    } else if has("invalid peer certificate") {
        Some("the certificate of Redis has to be valid for the name that it is reached by")
    } else if has("CertificateRequired") || has("UnknownCA") {
        Some("Redis wants a certificate that it knows: redis.tls_cert_file and redis.tls_key_file")
    } else if has("InvalidContentType") {
        Some("no TLS is spoken there: redis:// is without, rediss:// with it")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Address {
        Address { host: "redis".into(), port: 6379 }
    }

    fn run(code: &str, detail: &str) -> Answer {
        Answer::read(&at(), code, detail)
    }

    #[test]
    fn what_was_not_run_for_certain_may_be_tried_again() {
        for code in ["TRYAGAIN", "LOADING", "MASTERDOWN", "BUSY", "OOM", "MISCONF", "NOREPLICAS"] {
            let expected = RunError::NotRun(format!("redis:6379: {code} why"));
            assert_eq!(run(code, "why"), Answer::Error(expected));
        }
        let expected = RunError::NotRun("redis:6379: MOVED 1 ?:7000".into());
        assert_eq!(run("MOVED", "1 ?:7000"), Answer::Error(expected));
        assert_eq!(run("READONLY", "why"), Answer::Demoted("redis:6379: READONLY why".into()));
        assert_eq!(run("CLUSTERDOWN", ""), Answer::Alone("redis:6379: CLUSTERDOWN".into()));
    }

    #[test]
    fn a_script_speaks_for_itself() {
        let check = |code: &str, detail: &str, text: &str| {
            assert_eq!(run(code, detail), Answer::Error(RunError::Script(text.into())));
        };
        check("FENCED", "", "FENCED");
        check("BEHIND", "7", "BEHIND 7");
        check(
            "ERR",
            "user_script:1: x script: sha, on @user_script:1.",
            "ERR user_script:1: x script: sha, on @user_script:1.",
        );
        check(
            "CROSSSLOT",
            "Keys in request don't hash to the same slot",
            "CROSSSLOT Keys in request don't hash to the same slot",
        );
    }

    #[test]
    fn refusals_name_a_remedy() {
        let check = |code: &str, detail: &str, part: &str| match run(code, detail) {
            Answer::Error(RunError::Refused(text)) => assert!(text.contains(part), "{text}"),
            answer => panic!("{answer:?}"),
        };
        check(
            "NOPERM",
            "this user has no permissions to run the 'evalsha' command",
            "the user of redis.url lacks rights: ~",
        );
        check("ERR", "The user executing the script can't run this command or subcommand", "lacks rights");
        check("NOAUTH", "Authentication required.", "a password is missing in redis.url");
        check("ERR", "unknown command 'EVALSHA'", "Redis 7 or Valkey is needed");
    }

    #[test]
    fn troubles_that_pass_are_told_from_those_that_do_not() {
        let refused = |code: &str, detail: &str| {
            matches!(Trouble::answered(&at(), SENTINELS, code, detail), Trouble::Refused(_))
        };
        assert!(refused("WRONGPASS", "invalid username-password pair"));
        assert!(refused("ERR", "DB index is out of range"));
        assert!(!refused("ERR", "max number of clients reached"));
        assert!(!refused("LOADING", "Redis is loading the dataset in memory"));
        let refused = |text: &str| matches!(Trouble::away(&at(), text), Trouble::Refused(_));
        assert!(refused("invalid peer certificate: UnknownIssuer"));
        assert!(!refused("Connection refused (os error 111)"));
    }
}
