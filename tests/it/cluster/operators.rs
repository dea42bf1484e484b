//! What a node of a cluster tells its operators, and which rights it asks of them.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::Cluster;
use crate::support::{
    Broker, Fleet, Http, Operator, RedisServer, TOKEN, admin_settings, run, until, user, watcher,
};

const SECRET: &str = "hush-hush";

/// A broker whose Redis is nowhere.
fn broker() -> Broker {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let url = format!("redis.url = \"redis://ann:{SECRET}@{nobody}\"");
    Broker::with(&format!("metrics.bind = \"127.0.0.1:0\"\n{url}\n{}", admin_settings()))
}

#[track_caller]
fn probe(broker: &Broker, path: &str) -> (u16, Value) {
    let mut http = Http::connect(broker.metrics_address());
    http.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let reply = http.reply();
    (reply.status, serde_json::from_str(&reply.body).expect("JSON"))
}

#[test]
fn a_node_that_has_not_reached_redis_is_alive_and_unready() {
    let broker = broker();
    assert_eq!(probe(&broker, "/live").0, 200);
    let (status, body) = probe(&broker, "/ready");
    let redis = body["checks"]["redis"].as_str().expect("a check");
    assert!(status == 503 && redis.starts_with("Redis has been away for "), "{body}");
    assert_eq!(body["checks"]["workers"], "ok", "{body}");
    assert!(!body.to_string().contains(SECRET), "{body}");

    let alone = Broker::with("metrics.bind = \"127.0.0.1:0\"");
    let (status, body) = probe(&alone, "/ready");
    assert!(status == 200 && body["checks"].get("redis").is_none(), "{body}");
}

#[test]
fn the_metrics_and_the_admin_api_tell_that_redis_is_away() {
    let broker = broker();
    assert!(broker.metrics().contains("\nfanfare_cluster_away 1\n"));
    assert!(broker.figure("fanfare_cluster_nodes") < 1.0);
    let operator = Operator::of(&broker);
    until("the reason is known", || operator.get("nodes")["trouble"].is_string());
    let nodes = operator.get("nodes");
    assert_eq!((&nodes["clustered"], &nodes["nodes"]), (&json!(true), &json!([])), "{nodes}");
    assert!(nodes["away_s"].is_u64(), "{nodes}");
    let status = operator.get("status");
    assert!(status["cluster"]["away_s"].is_u64(), "{status}");
    let config = operator.get("config");
    assert_eq!(config["settings"]["redis.url"], "\"********\"");

    let url = format!("http://{}", operator.address());
    let told = run(&["nodes", "--url", &url, "--token", TOKEN], &[]);
    assert!(told.code == Some(0) && told.stdout.contains("Redis has been away for "), "{told:?}");
    broker.signal("INT");
    let log = broker.finish().stderr;
    for text in [nodes.to_string(), status.to_string(), config.to_string(), told.stdout, log] {
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[test]
fn a_node_of_its_own_has_a_list_of_none() {
    let broker = Broker::with(&admin_settings());
    let operator = Operator::of(&broker);
    let nodes = operator.get("nodes");
    assert_eq!((&nodes["clustered"], &nodes["nodes"]), (&json!(false), &json!([])), "{nodes}");
    assert_eq!(operator.get("status")["cluster"], Value::Null);
    let url = format!("http://{}", operator.address());
    let told = run(&["nodes", "--url", &url, "--token", TOKEN], &[]);
    assert!(told.code == Some(0) && told.stdout.starts_with("No cluster"), "{told:?}");
}

#[test]
fn every_node_lists_all_of_them_and_marks_itself() {
    let cluster = Cluster::with(2, &admin_settings(), "");
    let names = |nodes: &Value, own: bool| -> Vec<String> {
        let nodes = nodes["nodes"].as_array().expect("a list").iter();
        let names =
            nodes.filter(|node| node["own"] == own).map(|node| node["node"].as_str().expect("a name"));
        names.map(str::to_owned).collect()
    };
    let (one, other) = (Operator::of(&cluster[0]), Operator::of(&cluster[1]));
    let own = |operator: &Operator| names(&operator.get("nodes"), true);
    let others = |operator: &Operator| names(&operator.get("nodes"), false);
    until("both are listed by both", || others(&one) == own(&other) && others(&other) == own(&one));
    let nodes = one.get("nodes");
    assert_eq!(names(&nodes, true), [nodes["node"].as_str().expect("a name")]);
    assert_eq!((&nodes["away_s"], &nodes["trouble"]), (&Value::Null, &Value::Null), "{nodes}");
    assert!(nodes["renewed_ms"].as_u64().is_some_and(|age| age < 3000), "{nodes}");
    for node in nodes["nodes"].as_array().expect("a list") {
        assert!(node["lease_left_ms"].as_u64().is_some_and(|left| left <= 3000), "{node}");
    }
    assert_eq!(one.get("status")["cluster"]["nodes"], 2);
    cluster.until_counted(0, 2.0);
    let url = format!("http://{}", one.address());
    let told = run(&["nodes", "--url", &url, "--token", TOKEN], &[]).stdout;
    assert!(told.lines().filter(|line| line.contains("this one")).count() == 1, "{told}");
    let told = run(&["status", "--url", &url, "--token", TOKEN], &[]).stdout;
    assert!(told.contains("2 nodes, this one is "), "{told}");
}

#[test]
fn a_dead_node_is_no_longer_listed() {
    let mut cluster = Cluster::with(2, &admin_settings(), "");
    cluster.until_counted(0, 2.0);
    cluster.fleet.kill(1);
    cluster.until_counted(0, 1.0);
    let operator = Operator::of(&cluster[0]);
    let count = || operator.get("nodes")["nodes"].as_array().map(Vec::len);
    until("one is listed", || count() == Some(1));
}

#[test]
fn the_metrics_tell_what_goes_over_the_bus() {
    let cluster = Cluster::of(2);
    let mut client = cluster[0].subscriber("news");
    // Who tells webhooks is woken over the bus: that is over then.
    assert_eq!(cluster.backend().event()["name"], "channel_occupied");
    let figure = |node: usize, series: &str| cluster[node].figure(series);
    let (one, other) =
        (figure(0, "fanfare_cluster_bus_messages_total"), figure(1, "fanfare_cluster_bus_messages_total"));
    for number in 0..5 {
        cluster[1].publish("news", "e", &number.to_string());
        client.expect_event("news", "e", &number.to_string());
    }
    let heard = |node: usize, before: f64| figure(node, "fanfare_cluster_bus_messages_total") - before;
    assert!((heard(0, one) - 5.0).abs() < 0.5, "{}", heard(0, one));
    assert!(heard(1, other).abs() < 0.5, "nobody listens there: {}", heard(1, other));
    assert!(figure(1, "fanfare_cluster_step_items_total{kind=\"publish\"}") > 4.5);
    assert!(figure(0, "fanfare_cluster_topics") > 0.5);
    cluster[0].publish("news", "e", "own");
    client.expect_event("news", "e", "own");
    assert!(figure(0, "fanfare_cluster_bus_lag_seconds_count") > 0.5, "an own event has come back");
    until("the workers add up", || figure(0, "fanfare_fan_out_duration_seconds_count") > 0.5);
}

/// The line of the documentation that makes a user with the rights that it names.
fn documented_user() -> Vec<&'static str> {
    let page = include_str!("../../../docs/clustering.md");
    let line = page.lines().find_map(|line| line.strip_prefix("user fanfare ")).expect("the line");
    line.split(' ').collect()
}

#[test]
fn the_rights_in_the_documentation_are_enough() {
    let redis = RedisServer::start();
    redis.command::<()>(&[&["ACL", "SETUSER", "fanfare"], &documented_user()[..]].concat());
    let url = format!("redis.url = \"redis://fanfare:password@127.0.0.1:{}\"", redis.port());
    let app = "client_events = true\nwatchlist = true";
    let mut fleet = Fleet::with(&url, 2, "", app);

    let mut ann = fleet[0].joined("presence-room", "ann");
    let _bob = fleet[1].joined("presence-room", "bob");
    ann.expect_member_added("presence-room", "bob");
    let mut watching = fleet[0].connect();
    watching.watch(&watcher("eve", &["bob"]));
    let mut signed_in = fleet[1].connect();
    signed_in.sign_in(&user("bob"));
    watching.expect_watched("online", "bob");
    let mut news = fleet[1].subscriber("cache-news");
    news.expect_on("cache-news", "pusher:cache_miss");
    fleet[0].publish("cache-news", "e", "x");
    news.expect_event("cache-news", "e", "x");
    assert!(fleet[0].channels()["presence-room"].is_object());
    assert!(!fleet.backend().events(3).is_empty());
    fleet.kill(1);
    ann.expect_member_removed("presence-room", "bob");

    let refused = redis.command::<Vec<deadpool_redis::redis::Value>>(&["ACL", "LOG"]);
    assert_eq!(refused, [], "nothing was tried that it may not");
}

#[test]
fn a_state_that_is_laid_out_otherwise_is_left_alone_and_said_to_be() {
    let redis = RedisServer::start();
    for partition in 0..64 {
        redis.command::<()>(&["HSET", &format!("fanfare:{{{partition}}}:meta"), "layout", "99", "gen", "1"]);
    }
    let fleet = Fleet::unready(&redis, 1);
    fleet.until_complaint(0, "layout 99, this version needs ");
    assert!(fleet[0].figure("fanfare_cluster_script_failures_total{reason=\"layout\"}") > 0.5);
    let keys = redis.command::<Vec<String>>(&["KEYS", "*"]);
    assert_eq!(keys.len(), 64, "nothing was written: {keys:?}");
}
