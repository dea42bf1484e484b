//! What stands behind the server: Redis and the database, away, forbidden and as they should be.

use std::net::TcpListener;

use super::{Diagnosis, File};
use crate::support::{Database, Kind, PASSWORD, RedisCluster, RedisServer, run};

/// Looks at a node that is not running with these settings.
#[track_caller]
fn look(settings: &str) -> Diagnosis {
    look_for("5", settings)
}

/// The same, with so many seconds for each step.
#[track_caller]
fn look_for(seconds: &str, settings: &str) -> Diagnosis {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    File::new(&format!("server.bind = \"{free}\"\n{settings}")).diagnosis(&["--timeout-s", seconds])
}

#[test]
fn redis_that_does_what_is_needed_is_left_as_it_was() {
    let redis = RedisServer::with_password(&[]);
    let diagnosis = look(&format!("redis.url = \"{}\"\n", redis.url()));
    diagnosis.expect("redis", "ok", &["Redis 7", "does what is needed"]);
    assert_eq!(redis.command::<Vec<String>>(&["KEYS", "*"]), Vec::<String>::new());
}

#[test]
fn every_master_of_a_redis_cluster_is_tried() {
    let cluster = RedisCluster::start();
    let settings = format!("redis.url = \"{}\"\n", cluster.url());
    look(&settings).expect("redis", "ok", &["does what is needed"]);
    for redis in &cluster.nodes {
        assert_eq!(redis.command::<Vec<String>>(&["KEYS", "*"]), Vec::<String>::new());
    }
    // One of them alone is enough to be in the way.
    cluster.nodes[2].command::<()>(&["ACL", "SETUSER", "default", "-xadd"]);
    look(&settings).expect_failure("redis", &["may not use XADD"]);
}

#[test]
fn redis_that_is_away_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let diagnosis = look_for("1", &format!("redis.url = \"redis://:{PASSWORD}@{closed}\"\n"));
    diagnosis.expect_failure("redis", &[&closed.to_string(), "refused", "redis.url"]);
}

#[test]
fn a_wrong_password_of_redis_is_named() {
    let redis = RedisServer::with_password(&[]);
    let diagnosis = look(&format!("redis.url = \"redis://:wrong-secret@127.0.0.1:{}\"\n", redis.port()));
    diagnosis.expect_failure("redis", &["WRONGPASS", "password of redis.url are wrong"]);
    let diagnosis = look(&format!("redis.url = \"redis://127.0.0.1:{}\"\n", redis.port()));
    diagnosis.expect_failure("redis", &["a password is missing in redis.url"]);
}

#[test]
fn rights_that_the_user_of_redis_lacks_are_named() {
    let redis = RedisServer::start();
    let all = [
        "~fanfare:*",
        "&fanfare:*",
        "+@read",
        "+@write",
        "-@dangerous",
        "+@pubsub",
        "+eval",
        "+evalsha",
        "+time",
    ];
    let rights = [&all[..], &["+info", "+cluster|slots"]].concat();
    let password = format!(">{PASSWORD}");
    let user = |name: &str, rights: &[&str]| {
        redis.command::<()>(&[&["ACL", "SETUSER", name, "on", "resetchannels", &password], rights].concat());
        format!("redis.url = \"redis://{name}:{PASSWORD}@127.0.0.1:{}\"\n", redis.port())
    };
    look(&user("fine", &rights)).expect("redis", "ok", &[]);
    let no_streams = [&rights[..], &["-xadd"]].concat();
    look(&user("streamless", &no_streams)).expect_failure("redis", &["may not use XADD", "+@write"]);
    let elsewhere: Vec<&str> =
        rights.iter().map(|it| if *it == "~fanfare:*" { "~other:*" } else { it }).collect();
    look(&user("elsewhere", &elsewhere)).expect_failure("redis", &["lacks rights", "~fanfare:*"]);
    let mute: Vec<&str> = rights.iter().map(|it| if *it == "&fanfare:*" { "&other:*" } else { it }).collect();
    look_for("1", &user("mute", &mute)).expect_failure("redis", &["redis.url"]);
    let scriptless: Vec<&str> = rights.iter().copied().filter(|it| !it.starts_with("+eval")).collect();
    look(&user("scriptless", &scriptless)).expect_failure("redis", &["lacks rights"]);
}

#[test]
fn redis_that_may_forget_is_warned_of() {
    let redis = RedisServer::with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let diagnosis = look(&format!("redis.url = \"{}\"\n", redis.url()));
    diagnosis.expect("redis", "warning", &["allkeys-lru", "noeviction"]);
}

#[test]
fn settings_of_redis_that_make_no_sense_are_the_configuration_s_fault() {
    let diagnosis = look("redis.url = \"redis://h\"\nredis.tls_ca_file = \"/ca.pem\"\n");
    assert_eq!(diagnosis.code, Some(3), "{diagnosis}");
    diagnosis.expect("configuration", "failed", &["rediss:// is TLS"]);
}

#[test]
fn a_database_file_is_not_made_by_looking_at_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("apps.db");
    let settings = format!("store.url = \"sqlite:{}\"\n", file.display());
    look(&settings).expect("database", "warning", &["has no tables yet", "start the server"]);
    assert!(!file.exists());
    let created = File::exactly(&settings);
    let app = run(&["app", "create", "--config", created.path(), "--json"], &[]);
    assert_eq!(app.code, Some(0), "{app:?}");
    let diagnosis = look(&settings);
    diagnosis.expect("database", "ok", &["tables are as this version needs them"]);
    let gone = format!("store.url = \"sqlite:{}\"\n", folder.path().join("no/such/apps.db").display());
    look(&gone).expect_failure("database", &["cannot be used", "store.url"]);
}

#[test]
fn a_database_that_is_away_is_named_without_its_password() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    for scheme in ["postgres", "mysql"] {
        let diagnosis = look(&format!("store.url = \"{scheme}://ann:{PASSWORD}@{closed}/apps\"\n"));
        diagnosis.expect_failure("database", &["ann:********@", "refused", "store.url"]);
    }
}

#[test]
fn databases_are_looked_at_and_lend_their_apps() {
    for kind in [Kind::Sqlite, Kind::Postgres, Kind::MariaDb] {
        let Some(database) = Database::start(kind) else { continue };
        let settings = format!("store.url = \"{}\"\n", database.url());
        look(&settings).expect("database", "warning", &["no tables yet"]);
        let file = File::exactly(&settings);
        let create = ["app", "create", "--config", file.path(), "--id", "77"];
        assert_eq!(run(&create, &[]).code, Some(0));
        look(&settings).expect("database", "ok", &["needs them"]);
        let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let file = File::exactly(&format!("server.bind = \"{free}\"\nmetrics.bind = \"\"\n{settings}"));
        let lent = file.diagnosis(&["--app", "77"]);
        lent.expect("credentials", "ok", &["app 77"]);
        file.diagnosis(&["--app", "78"]).expect_failure("credentials", &["there is no app 78"]);
        // What a row of somebody else's, a newer version and another schema leave there.
        database.sql("UPDATE apps SET settings = 'no settings'");
        look(&settings).expect("database", "warning", &["1 row(s) make no app", "77"]);
        database.sql("UPDATE apps_migrations SET version = 99");
        look(&settings).expect_failure("database", &["newer fanfare (version 99"]);
        let soketi = format!("{settings}store.schema = \"soketi\"\n");
        look(&soketi).expect_failure("database", &["is not soketi's", "store.schema"]);
    }
}
