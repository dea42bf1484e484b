//! The admin API: who may ask, what is told, what is closed, and that nothing leaks.

use std::collections::BTreeSet;
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::{
    Broker, Client, KEY, Operator, SECRET, TOKEN, admin_settings, member, until, user, watcher,
};

fn broker() -> Broker {
    Broker::with(&admin_settings())
}

fn ids(items: &[Value], name: &str) -> Vec<String> {
    items.iter().map(|item| item[name].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn without_a_token_nothing_listens() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let broker = Broker::with(&format!("admin.bind = \"{address}\""));
    broker.expect_healthy();
    assert_eq!(broker.admin_address(), None);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn without_the_token_everything_is_refused() {
    let broker = broker();
    let operator = Operator::of(&broker);
    let check = |headers: &str, path: &str| {
        let reply = operator.send_with("GET", path, headers, "");
        assert_eq!(reply.status, 401, "{headers:?} {path}: {reply:?}");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert!(reply.body.contains("\"error\""), "{reply:?}");
    };
    check("", "status");
    check("", "nowhere");
    check("", "openapi.json");
    for wrong in ["", "x", &TOKEN[1..], &format!("{TOKEN}x"), &TOKEN.to_uppercase()] {
        check(&format!("Authorization: Bearer {wrong}\r\n"), "status");
    }
    check(&format!("Authorization: Basic {TOKEN}\r\n"), "status");
    check("", &format!("status?token={TOKEN}"));
    let reply = operator.send_with("POST", "drain", "", "");
    assert_eq!(reply.status, 401, "{reply:?}");
    let line = broker.logs("refused by the admin api");
    assert!(line.contains("peer") && line.contains("127.0.0.1"), "{line}");
    broker.expect_healthy();
    operator.get("status");
}

#[test]
fn wrong_tokens_are_counted() {
    let broker = Broker::with(&format!("{}\nmetrics.bind = \"127.0.0.1:0\"", admin_settings()));
    let operator = Operator::of(&broker);
    operator.send_with("GET", "status", "", "");
    operator.get("status");
    let mut http = crate::support::Http::connect(broker.metrics_address());
    http.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let page = http.reply().body;
    for line in
        ["fanfare_admin_responses_total{status=\"401\"} 1", "fanfare_admin_responses_total{status=\"200\"} 1"]
    {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}

#[test]
fn no_page_of_another_site_is_let_in() {
    let broker = broker();
    let operator = Operator::of(&broker);
    let headers = format!("Origin: https://evil.example\r\nAuthorization: Bearer {TOKEN}\r\n");
    let reply = operator.send_with("GET", "status", &headers, "");
    let allows = |name: &String| name.to_lowercase().starts_with("access-control");
    assert!(!reply.headers.iter().any(|(name, _)| allows(name)), "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    operator.expect_refusal("OPTIONS", "status", "", 405, "GET");
}

#[test]
fn mistakes_are_told_with_what_would_be_right() {
    let broker = broker();
    let operator = Operator::of(&broker);
    let check = |method, path, body, status, part| operator.expect_refusal(method, path, body, status, part);
    check("GET", "nowhere", "", 404, "openapi.json");
    check("POST", "connections/1.2", "", 405, "this path takes GET, DELETE");
    check("GET", "connections?limit=0", "", 400, "from 1 to 1000");
    check("GET", "connections?limit=1001", "", 400, "from 1 to 1000");
    check("GET", "connections?after=x", "", 400, "socket id");
    check("GET", "connections?filter=x", "", 400, "expected app, user, channel, after, limit");
    check("GET", "connections?user=ann", "", 400, "app");
    check("GET", "connections?app=9", "", 404, "no app has the id 9");
    check("GET", "connections?app=1&app=1", "", 400, "Duplicate");
    check("GET", "connections?app=1&channel=%20", "", 400, "channel name");
    check("GET", "connections/x", "", 400, "two decimal numbers");
    check("GET", "connections/1.2", "", 404, "no connection");
    check("DELETE", "connections/1.2", "", 404, "no connection");
    check("DELETE", "connections/1.2?final=maybe", "", 400, "true or false");
    check("GET", "apps/1/channels/%23server-to-user-ann", "", 400, "channel name");
    check("DELETE", "apps/1/users/%20", "", 400, "user id");
    check("POST", "webhooks/dead-letters/replay", "{}", 400, "\"all\": true");
    check("POST", "webhooks/dead-letters/replay", "nonsense", 400, "\"all\": true");
    check("POST", "webhooks/dead-letters/replay", &" ".repeat(70_000), 413, "65536");
}

#[test]
fn the_status_tells_how_the_node_is() {
    let broker = Broker::with(&format!("{}\nserver.workers = 2", admin_settings()));
    let operator = Operator::of(&broker);
    let _ann = broker.joined("presence-room", "ann");
    let _bob = broker.subscriber("news");
    let status = operator.get("status");
    let count = |name: &str| status[name].as_u64().expect("a number");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["state"], "serving");
    assert_eq!(status["listening"]["clients"], broker.address().to_string());
    assert_eq!(status["listening"]["metrics"], Value::Null);
    let names = ["connections", "channels", "subscriptions", "apps"];
    assert_eq!(names.map(count), [2, 2, 2, 1]);
    let workers = status["workers"].as_array().expect("workers");
    assert_eq!(workers.iter().map(|worker| worker["worker"].clone()).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(workers.iter().map(|worker| worker["sockets"].as_u64().expect("answered")).sum::<u64>(), 2);
    assert!(count("resident_bytes") > 1_000_000, "{status}");
    assert!(count("open_files") > 4 && count("open_files") < count("open_files_max"), "{status}");
}

#[test]
fn apps_show_their_settings_and_no_secret() {
    let webhook = "[[apps.webhooks]]\nurl = \"https://ann:hush-password@a.example/hook?key=hush-query\"\n\
                   headers = { Authorization = \"hush-header\" }";
    let broker = Broker::with_apps(
        &admin_settings(),
        &format!(
            "[[apps]]\nid = \"1\"\nkeys = [{{ key = \"{KEY}\", secret = \"{SECRET}\" }}]\nconnections_max = 7\n{webhook}\n\
             [[apps]]\nid = \"2\"\nkeys = [{{ key = \"k2\", secret = \"hush-second\" }}]\nenabled = false"
        ),
    );
    let operator = Operator::of(&broker);
    let _client = broker.subscriber("news");
    let apps = operator.pages("apps", "apps", 1, || {});
    assert_eq!(ids(&apps, "id"), ["1", "2"]);
    let first = json!({
        "id": "1", "enabled": true, "keys": [KEY], "connections": 1, "channels": 1, "subscriptions": 1,
    });
    assert_eq!(apps[0], first);
    assert_eq!(apps[1]["enabled"], false);
    let app = operator.get("apps/1");
    assert_eq!(app["settings"]["connections_max"], 7);
    let receiver = json!({
        "url": "https://********@a.example/hook?********", "events": [], "channel_prefixes": [], "headers": ["Authorization"],
    });
    assert_eq!(app["settings"]["webhooks"], json!([receiver]));
    for text in [app.to_string(), operator.get("config").to_string(), json!(apps).to_string()] {
        assert!(!text.contains("hush") && !text.contains(SECRET) && !text.contains(TOKEN), "{text}");
    }
    operator.expect_refusal("GET", "apps/3", "", 404, "no app has the id 3");
}

#[test]
fn channels_are_told_with_who_is_there() {
    let broker = broker();
    let operator = Operator::of(&broker);
    let mut ann = broker.joined("presence-room", "ann");
    let _bob = broker.joined("presence-room", "bob");
    ann.expect_member_added("presence-room", "bob");
    ann.subscribe("cache-news");
    ann.expect_on("cache-news", "pusher:cache_miss");
    ann.sign_in(&user("ann"));
    broker.publish("cache-news", "e", "kept");
    let room = json!({
        "name": "presence-room", "kind": "presence", "subscriptions": 2, "users": 2, "cached": false,
    });
    let news = json!({
        "name": "cache-news", "kind": "public", "subscriptions": 1, "users": null, "cached": true,
    });
    assert_eq!(operator.get("apps/1/channels"), json!({ "channels": [news, room], "next": null }));
    assert_eq!(operator.get("apps/1/channels?prefix=pres")["channels"], json!([room]));
    let shown = operator.get("apps/1/channels/presence-room");
    assert_eq!(shown["user_ids"], json!(["ann", "bob"]));
    let first = operator.get("apps/1/channels/presence-room?limit=1");
    assert_eq!((&first["user_ids"], &first["next"]), (&json!(["ann"]), &json!("ann")));
    let second = operator.get("apps/1/channels/presence-room?limit=1&after=ann");
    assert_eq!((&second["user_ids"], &second["next"]), (&json!(["bob"]), &Value::Null));
    let empty = operator.get("apps/1/channels/private-encrypted-x");
    assert_eq!((&empty["kind"], &empty["subscriptions"]), (&json!("encrypted"), &json!(0)));
}

#[test]
fn who_stays_is_on_exactly_one_page_whoever_comes_and_goes() {
    let broker = Broker::with(&format!("{}\nserver.workers = 2", admin_settings()));
    let operator = Operator::of(&broker);
    let subscriber = |number: usize| broker.subscriber(&format!("c{number:03}"));
    let stay: Vec<Client> = (0..300).map(subscriber).collect();
    let mut go: Vec<Client> = (300..400).map(subscriber).collect();
    let mut come: Vec<Client> = Vec::new();
    let staying: BTreeSet<String> = stay.iter().map(|client| client.id().to_owned()).collect();

    let listed = operator.pages("connections", "connections", 17, || {
        go.drain(..2).for_each(Client::leave);
        come.push(subscriber(500 + come.len()));
    });
    let listed = ids(&listed, "socket_id");
    let once: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(once.len(), listed.len(), "somebody was listed twice");
    assert!(once.is_superset(&staying), "{:?} are missing", staying.difference(&once));

    let names: BTreeSet<String> = (0..300).map(|number| format!("c{number:03}")).collect();
    let listed = operator.pages("apps/1/channels?prefix=c", "channels", 17, || {
        go.drain(..2).for_each(Client::leave);
        come.push(subscriber(500 + come.len()));
    });
    let listed = ids(&listed, "name");
    assert!(listed.is_sorted() && listed.windows(2).all(|pair| pair[0] != pair[1]), "{listed:?}");
    let once: BTreeSet<String> = listed.into_iter().collect();
    assert!(once.is_superset(&names), "{:?} are missing", names.difference(&once));
    drop(stay);
}

#[test]
fn connections_are_found_by_app_user_and_channel() {
    let broker = broker();
    let operator = Operator::of(&broker);
    let mut ann = broker.signed_in("ann");
    ann.subscribe("news");
    let bob = broker.subscriber("news");
    let tab = broker.signed_in("ann");
    let list = |query: &str| {
        let found = operator.get(&format!("connections{query}"));
        ids(found["connections"].as_array().expect("a list"), "socket_id")
            .into_iter()
            .collect::<BTreeSet<_>>()
    };
    let set = |clients: &[&Client]| clients.iter().map(|client| client.id().to_owned()).collect();
    assert_eq!(list("?app=1"), set(&[&ann, &bob, &tab]));
    assert_eq!(list("?app=1&channel=news"), set(&[&ann, &bob]));
    assert_eq!(list("?app=1&user=ann"), set(&[&ann, &tab]));
    assert_eq!(list("?app=1&user=ann&channel=news"), set(&[&ann]));
    assert_eq!(list("?app=1&user=nobody"), set(&[]));
    assert_eq!(list("?app=1&channel=nowhere"), set(&[]));
}

#[test]
fn everything_about_a_presence_member_is_told() {
    let broker = broker();
    let operator = Operator::of(&broker);
    let mut ann = broker.connect();
    ann.watch(&watcher("ann", &["bob", "cid"]));
    ann.join("presence-room", &member("ann"));
    ann.subscribe("news");
    let mut shown = operator.get(&format!("connections/{}", ann.id()));
    for name in ["connected_s", "last_heard_s", "worker"] {
        assert!(shown[name].take().is_u64(), "{name} of {shown}");
    }
    let expected = json!({
        "socket_id": ann.id(), "app": "1", "user": "ann", "worker": null, "connected_s": null, "last_heard_s": null,
        "remote_address": "127.0.0.1", "authorized": true, "subscriptions": 2, "watching": 2, "outbox_bytes": 0, "outbox_frames": 0,
        "channels": [{ "name": "news", "user_id": null }, { "name": "presence-room", "user_id": "ann" }],
    });
    assert_eq!(shown, expected);
    let plain = broker.connect();
    let shown = operator.get(&format!("connections/{}", plain.id()));
    assert_eq!((&shown["user"], &shown["authorized"]), (&Value::Null, &json!(false)));
}

#[test]
fn a_closed_connection_sees_the_code_and_is_gone() {
    let broker = broker();
    let operator = Operator::of(&broker);
    for (query, code) in [("", 4200), ("?final=false", 4200), ("?final=true", 4009)] {
        let mut other = broker.subscriber("news");
        let client = broker.subscriber("news");
        let path = format!("connections/{}", client.id());
        let closed = operator.send("DELETE", &format!("{path}{query}"), "").ok();
        assert_eq!(closed, json!({ "socket_id": client.id(), "code": code }));
        operator.expect_refusal("GET", &path, "", 404, "no connection");
        client.expect_end_with(code);
        other.expect_silence();
        other.leave();
    }
}

#[test]
fn a_users_connections_are_ended_for_good() {
    let broker = broker();
    let operator = Operator::of(&broker);
    let anns = [broker.signed_in("ann"), broker.signed_in("ann")];
    let mut bob = broker.signed_in("bob");
    let reply = operator.send("DELETE", "apps/1/users/ann", "");
    assert_eq!((reply.status, &*reply.body), (202, r#"{"connections":2}"#));
    for ann in anns {
        ann.expect_end_with(4009);
    }
    bob.expect_silence();
    let reply = operator.send("DELETE", "apps/1/users/ann", "");
    assert_eq!((reply.status, &*reply.body), (202, r#"{"connections":0}"#));
}

#[test]
fn a_drain_that_is_ordered_ends_with_success() {
    let broker = broker();
    let operator = Operator::of(&broker);
    let client = broker.subscriber("news");
    let reply = operator.send("POST", "drain", "");
    assert_eq!((reply.status, &*reply.body), (202, r#"{"state":"leaving"}"#));
    client.expect_end_with(4200);
    assert_eq!(broker.finish().code, Some(0));
}

#[test]
fn while_the_node_leaves_it_says_so_and_takes_no_reload() {
    let broker = Broker::with(&format!("{}\ndrain.delay_s = 60", admin_settings()));
    let operator = Operator::of(&broker);
    for _ in 0..2 {
        assert_eq!(operator.send("POST", "drain", "").status, 202);
        assert_eq!(operator.get("status")["state"], "leaving");
    }
    operator.expect_refusal("POST", "reload", "", 503, "stopping");
    broker.signal("INT");
    broker.finish();
}

#[test]
fn a_reload_that_is_ordered_is_answered() {
    let broker = Broker::with(&format!("{}\nserver.watch_config = false", admin_settings()));
    let operator = Operator::of(&broker);
    assert_eq!(operator.send("POST", "reload", "").ok(), json!({ "apps": 1, "needs_restart": [] }));
    let config = std::fs::read_to_string(broker.folder().join("fanfare.toml")).expect("a file");
    broker.rewrite(&format!("{config}\nclient_event = true"));
    let reply = operator.send("POST", "reload", "");
    assert_eq!(reply.status, 409, "{reply:?}");
    let answer: Value = serde_json::from_str(&reply.body).expect("JSON");
    let problem = answer["problems"][0].as_str().expect("a problem");
    assert!(problem.contains("did you mean client_events?"), "{problem}");
    let second = "[[apps]]\nid = \"2\"\nkeys = [{ key = \"k2\", secret = \"s2\" }]";
    broker.rewrite(&format!("{config}\n{second}"));
    assert_eq!(operator.send("POST", "reload", "").ok()["apps"], 2);
    assert_eq!(operator.get("apps/2")["keys"], json!(["k2"]));
}

#[test]
fn a_slow_readers_outbox_is_told() {
    let broker = broker();
    let operator = Operator::of(&broker);
    let mut slow = broker.connect();
    slow.subscribe("news");
    let path = format!("connections/{}", slow.id());
    let event = "x".repeat(10_000);
    until("something waits", || {
        broker.publish("news", "e", &event);
        let shown = operator.get(&path);
        shown["outbox_bytes"].as_u64().expect("bytes") > 0
            && shown["outbox_frames"].as_u64().expect("frames") > 0
    });
}

#[test]
fn neither_token_nor_secrets_are_logged() {
    let broker = Broker::with(&format!("{}\nlog.level = \"trace\"", admin_settings()));
    let operator = Operator::of(&broker);
    let client = broker.subscriber("news");
    let wrong = "a-token-that-is-wrong-and-hushed";
    operator.send_with("GET", "status", &format!("Authorization: Bearer {wrong}\r\n"), "");
    operator.send_with("GET", &format!("status?token={wrong}"), "", "");
    for path in ["status", "config", "apps", "apps/1", "connections", "openapi.json", "apps/1/channels"] {
        let answer = operator.get(path).to_string();
        assert!(!answer.contains(TOKEN) && !answer.contains(SECRET), "{answer}");
    }
    operator.send("POST", "reload", "").ok();
    operator.send("DELETE", &format!("connections/{}", client.id()), "").ok();
    let finished = broker.stop();
    let said = format!("{}{}", finished.stdout, finished.stderr);
    assert!(said.contains("closed by an operator") && said.contains("refused by the admin api"), "{said}");
    for secret in [TOKEN, wrong, SECRET] {
        assert!(!said.contains(secret), "{secret} in\n{said}");
    }
}
