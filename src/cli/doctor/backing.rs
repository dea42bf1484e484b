//! What stands behind the server: Redis, and the database of apps.

use std::time::{Duration, Instant};

use deadpool_redis::redis::Value;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant as Deadline, timeout, timeout_at};

use crate::app::App;
use crate::cli::doctor::report::Finding;
use crate::cluster::script::{Invocation, LAYOUT, Script, Space};
use crate::cluster::servers::{BusEvent, RIGHTS, RunError, Servers};
use crate::config::{Config, Redis, Store};
use crate::store::{Inspection, Tables};

/// Partitions that are tried: enough for every master of a usual Redis Cluster to have some.
const PARTITIONS: u8 = 16;

/// Redis is on the way of every publish.
const SLOW: Duration = Duration::from_millis(50);

static PROBE: Script = Script { name: "doctor", source: include_str!("probe.lua") };

/// What the probe has seen at one server.
struct Probed {
    info: String,
    layout: String,
    refusal: String,
    elapsed: Duration,
}

/// Connects to Redis as a node does, does what a node does, and hears what a node hears. Must run where local tasks can.
pub(super) async fn redis(settings: &Redis, limit: Duration) -> Finding {
    if settings.url.expose().is_empty() {
        return Finding::skipped("redis.url is empty: this node is all there is");
    }
    let (servers, mut events) = match Servers::new(settings) {
        Ok(made) => made,
        Err(error) => return Finding::failed(error.to_string(), "correct the setting"),
    };
    if let Err(finding) = connected(&servers, limit).await {
        return finding;
    }
    let topic = format!("{}:{{0}}:doctor:{:016x}", settings.prefix, rand::random::<u64>());
    servers.listen(topic.clone().into_bytes());
    if !hears(&mut events, limit, |event| matches!(event, BusEvent::Listening(topics) if has(topics, &topic)))
        .await
    {
        return Finding::failed(
            "Redis does not confirm a subscription",
            "see that the user of redis.url may subscribe (+@pubsub and & with redis.prefix), and that nothing between here and \
             Redis holds pub/sub back",
        );
    }
    let mut slowest = Duration::ZERO;
    let mut info = String::new();
    for partition in 0..PARTITIONS {
        let probed = match timeout(limit, probe(&servers, settings, partition, &topic)).await {
            Ok(Ok(probed)) => probed,
            Ok(Err(finding)) => return finding,
            Err(_) => {
                return Finding::failed("no answer to a script in time", "see whether Redis is overloaded");
            }
        };
        if !probed.refusal.is_empty() {
            return refused(&probed.refusal);
        }
        if !probed.layout.is_empty() && probed.layout != LAYOUT.to_string() {
            return Finding::failed(
                format!("the state in Redis has layout {}, this version needs {LAYOUT}", probed.layout),
                "use the version of Fanfare that the other nodes have, or another redis.prefix",
            );
        }
        slowest = slowest.max(probed.elapsed);
        info = probed.info;
    }
    if !hears(
        &mut events,
        limit,
        |event| matches!(event, BusEvent::Message { topic: of, .. } if *of == topic.as_bytes()),
    )
    .await
    {
        return Finding::failed(
            "what is published in Redis is not heard",
            "see that the user of redis.url may publish and subscribe to topics that begin with redis.prefix (&)",
        );
    }
    judged(&info, slowest)
}

async fn connected(servers: &Servers, limit: Duration) -> Result<(), Finding> {
    let deadline = Deadline::now() + limit;
    loop {
        let health = servers.health();
        if health.away_since().is_none() {
            return Ok(());
        }
        let late = timeout_at(deadline.min(Deadline::now() + LOOK), servers.changed()).await.is_err();
        let trouble = servers.health().trouble;
        if servers.health().is_refused {
            let trouble = trouble.unwrap_or_else(|| "it refuses".to_owned());
            let (seen, remedy) = trouble.rsplit_once(": ").unwrap_or((&trouble, "see what it says"));
            return Err(Finding::failed(seen, remedy));
        }
        if late && Deadline::now() >= deadline {
            let trouble = trouble.unwrap_or_else(|| "it does not answer".to_owned());
            return Err(Finding::failed(
                format!("no connection: {trouble}"),
                "see that Redis runs, that redis.url has its address and port, and that nothing between here and there \
                 drops packets; without redis.url this node serves alone",
            ));
        }
    }
}

/// How often troubles are looked at that change nothing about being away.
const LOOK: Duration = Duration::from_millis(100);

fn has(topics: &[Vec<u8>], topic: &str) -> bool {
    topics.iter().any(|it| it == topic.as_bytes())
}

/// Whether an event comes in time.
async fn hears(
    events: &mut UnboundedReceiver<BusEvent>,
    limit: Duration,
    wanted: impl Fn(&BusEvent) -> bool,
) -> bool {
    let deadline = Deadline::now() + limit;
    loop {
        match timeout_at(deadline, events.recv()).await {
            Ok(Some(event)) if wanted(&event) => return true,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return false,
        }
    }
}

/// Does in a partition what nodes do.
async fn probe(servers: &Servers, settings: &Redis, partition: u8, topic: &str) -> Result<Probed, Finding> {
    let own = |what: &str| {
        format!("{}:{{{partition}}}:doctor:{what}:{:016x}", settings.prefix, rand::random::<u64>())
            .into_bytes()
    };
    let mut keys: Vec<Vec<u8>> =
        ["hash", "list", "sorted", "stream", "text", "other"].into_iter().map(own).collect();
    keys.push(Space::new(&settings.prefix).route(partition));
    let publish = if servers.is_sharded() == Some(true) { "SPUBLISH" } else { "PUBLISH" };
    // The topic that is listened to is of the first partition.
    let topic = if partition == 0 { topic.as_bytes().to_vec() } else { own("topic") };
    let args = vec![publish.as_bytes().to_vec(), topic, b"hello".to_vec()];
    let invocation = Invocation { script: &PROBE, keys, args };
    let began = Instant::now();
    let answer = servers.run(&invocation).await.map_err(|error| match error {
        RunError::Refused(text) => {
            let (seen, remedy) = text.rsplit_once(": ").unwrap_or((&text, "see what it says"));
            Finding::failed(seen, remedy)
        }
        RunError::Script(text) | RunError::NotRun(text) | RunError::Unknown(text) => Finding::failed(
            format!("a script cannot be run: {text}"),
            "see the log of Redis; Redis 7 or Valkey is needed",
        ),
    })?;
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::VerbatimString { text, .. } => text.clone(),
        _ => String::new(),
    };
    let Value::Array(parts) = &answer else {
        return Err(Finding::failed(
            "an answer that makes no sense",
            "see what listens there: it is not Redis 7 or Valkey",
        ));
    };
    let part = |at: usize| parts.get(at).map(text).unwrap_or_default();
    Ok(Probed { info: part(0), layout: part(1), refusal: part(2), elapsed: began.elapsed() })
}

/// A command that the user may not use.
fn refused(refusal: &str) -> Finding {
    let command = refusal.split(' ').next().unwrap_or_default();
    if refusal.contains("user executing the script") || refusal.contains("NOPERM") {
        return Finding::failed(
            format!("the user of redis.url may not use {command} on keys of redis.prefix"),
            format!("give it the rights {RIGHTS}"),
        );
    }
    if refusal.contains("OOM") {
        return Finding::failed(
            "Redis has no memory left (OOM)",
            "raise its maxmemory, with maxmemory-policy noeviction",
        );
    }
    Finding::failed(
        format!("Redis refuses {refusal}"),
        "Redis 7 or Valkey is needed, and a master with room to write",
    )
}

/// What Redis says of itself.
fn judged(info: &str, slowest: Duration) -> Finding {
    let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    let name = match (field("valkey_version"), field("redis_version")) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, Some(version)) => format!("Redis {version}"),
        (None, None) => "Redis".to_owned(),
    };
    let detail = format!("{name} does what is needed, within {:.1} ms", slowest.as_secs_f64() * 1e3);
    let policy = field("maxmemory_policy").unwrap_or("noeviction");
    let bounded = field("maxmemory").is_some_and(|bytes| bytes != "0");
    if bounded && policy != "noeviction" {
        return Finding::warning(
            format!("{detail}, but may throw keys away (maxmemory-policy {policy})"),
            "set maxmemory-policy noeviction: what is thrown away is who is subscribed where",
        );
    }
    if slowest > SLOW {
        return Finding::warning(detail, "have Redis nearer to the nodes: every publish waits for it once");
    }
    Finding::ok(detail)
}

/// Looks at the database without changing anything there. Gives the app with this id, if it is wanted and there.
pub(super) async fn database(settings: &Store, wanted: Option<&str>) -> (Finding, Option<App>) {
    if settings.url.expose().is_empty() {
        return (Finding::skipped("store.url is empty: apps are those of the configuration"), None);
    }
    let remedy = "see that the database runs, and that store.url has its address, user, password and name";
    let (finding, inspection) = match Inspection::make(settings).await {
        Ok(inspection) => (tables(&inspection), inspection),
        Err(error) => return (Finding::failed(error.to_string(), remedy), None),
    };
    let Some(store) = &inspection.store else { return (finding, None) };
    let app = match wanted {
        None => None,
        Some(id) => match store.read(&[id.to_owned()], &[]).await {
            Ok(rows) => rows.into_iter().find_map(|row| row.app.ok()),
            Err(error) => return (Finding::failed(error.to_string(), remedy), None),
        },
    };
    let broken: Vec<String> = match store.records().await {
        Ok(records) => records.into_iter().filter_map(Result::err).collect(),
        Err(error) => return (Finding::failed(error.to_string(), remedy), None),
    };
    match broken.first() {
        None => (finding, app),
        Some(first) => {
            let detail = format!("{}; {} row(s) make no app: {first}", finding.detail, broken.len());
            (Finding::warning(detail, "mend or delete these rows (fanfare app list)"), app)
        }
    }
}

fn tables(inspection: &Inspection) -> Finding {
    let url = &inspection.url;
    match inspection.tables {
        Tables::Ready => Finding::ok(format!("{url} answers, and its tables are as this version needs them")),
        Tables::Missing => Finding::warning(
            format!("{url} has no tables yet"),
            "start the server: it makes them, if its user may; fanfare app create fills them",
        ),
        Tables::Older { found, known } => Finding::warning(
            format!("the tables at {url} are of version {found}, this one makes {known} of them"),
            "start the server: it brings them up to date, if its user may change tables; older nodes go on meanwhile",
        ),
    }
}

/// The app of this id, or the first one.
pub(super) fn configured<'a>(config: &'a Config, id: Option<&str>) -> Option<&'a App> {
    match id {
        Some(id) => config.apps.iter().find(|app| &*app.id == id),
        None => config.apps.first(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Status;
    use crate::cluster::script::SCRIPTS;

    #[test]
    fn the_probe_tries_every_command_of_the_cluster() {
        let mut commands = 0;
        for script in SCRIPTS {
            for call in script.source.split("call('").skip(1) {
                let command = call.split('\'').next().expect("a command");
                assert!(PROBE.source.contains(&format!("try('{command}'")), "{command} of {}", script.name);
                commands += 1;
            }
        }
        assert!(commands > 30, "{commands} commands: the scripts were not read");
    }

    #[test]
    fn a_redis_that_forgets_is_warned_of() {
        let quick = Duration::from_millis(1);
        let fine = judged("redis_version:7.0.15\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n", quick);
        assert_eq!(fine, Finding::ok("Redis 7.0.15 does what is needed, within 1.0 ms"));
        let forgets =
            judged("valkey_version:8.0.1\r\nmaxmemory:1000\r\nmaxmemory_policy:allkeys-lru\r\n", quick);
        assert_eq!(forgets.status, Status::Warning);
        assert!(
            forgets.detail.contains("Valkey 8.0.1") && forgets.detail.contains("allkeys-lru"),
            "{forgets:?}"
        );
        assert_eq!(judged("", Duration::from_secs(1)).status, Status::Warning);
    }

    #[test]
    fn a_refused_command_is_named() {
        let finding = refused("XADD ERR The user executing the script can't run this command or subcommand");
        assert!(finding.detail.contains("may not use XADD"), "{finding:?}");
    }
}
