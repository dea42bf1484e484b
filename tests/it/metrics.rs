//! The Prometheus page: an address of its own, exact figures, labels that nobody else chooses.

use std::collections::{BTreeMap, BTreeSet};

use fanfare::metrics::{Definition, Metrics};
use serde_json::json;

use crate::support::{Broker, Client, Http, Opcode, until};

/// The page, as it was at one moment.
struct Page(String);

impl Page {
    #[track_caller]
    fn of(broker: &Broker) -> Self {
        let mut http = Http::connect(broker.metrics_address());
        http.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let reply = http.reply();
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(
            reply.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4"))
        );
        Self(reply.body)
    }

    /// Every figure by its name and labels, as they stand there.
    fn figures(&self) -> BTreeMap<&str, f64> {
        let lines = self.0.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
                (name, value.parse().unwrap_or_else(|error| panic!("{error}: {line}")))
            })
            .collect()
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        let figures = self.figures();
        *figures.get(series).unwrap_or_else(|| panic!("no {series} in\n{}", self.0))
    }

    /// The metrics on the page with their types.
    fn types(&self) -> BTreeMap<&str, &str> {
        self.0.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
    }
}

fn broker() -> Broker {
    Broker::with("metrics.bind = \"127.0.0.1:0\"")
}

/// Waits until all of these figures stand there, and says which do not.
#[track_caller]
fn expect(broker: &Broker, expected: &[(&str, f64)]) {
    let differing = || {
        let page = Page::of(broker);
        let figures = page.figures();
        let differs = |(name, value): &&(&str, f64)| figures.get(name) != Some(value);
        let show = |(name, value): &(&str, f64)| format!("{name}: {:?}, not {value}", figures.get(name));
        expected.iter().filter(differs).map(show).collect::<Vec<_>>()
    };
    let deadline = std::time::Instant::now() + crate::support::DEADLINE;
    while !differing().is_empty() {
        assert!(std::time::Instant::now() < deadline, "{:#?}", differing());
        std::thread::park_timeout(std::time::Duration::from_millis(20)); // a worker adds up ten times a second
    }
}

#[test]
fn the_gauge_follows_the_connections() {
    let broker = broker();
    let open = |count: f64| [("fanfare_connections{app=\"1\"}", count)];
    expect(&broker, &open(0.0));
    let mut clients: Vec<Client> = (0..7).map(|_| broker.connect()).collect();
    expect(&broker, &open(7.0));
    broker.refused("/app/nobody?protocol=7", 4001);
    clients.drain(..4).for_each(Client::leave);
    expect(&broker, &open(3.0));
    drop(clients);
    expect(&broker, &open(0.0));
}

#[test]
fn a_known_day_is_counted_exactly() {
    let broker = Broker::with("server.workers = 1\nmetrics.bind = \"127.0.0.1:0\"");
    let (mut ann, mut bob, mut cid) = (broker.connect(), broker.connect(), broker.connect());
    ann.subscribe("news");
    bob.subscribe("private-room");
    cid.subscribe("private-room");
    cid.join("presence-room", r#"{"user_id":"cid"}"#);
    ann.sign_in(r#"{"id":"ann"}"#);
    ann.ask(&json!({ "channel": "private-x", "auth": "app-key:0123" }));
    ann.expect_any_refusal("private-x", "AuthError");
    ann.ask(&json!({ "channel": "private-y" }));
    ann.expect_any_refusal("private-y", "AuthError");
    ann.unsubscribe("nothing");
    ann.expect_error_with("No current subscription");
    bob.say("private-room", "client-hi", &json!("x"));
    cid.expect_event("private-room", "client-hi", "x");
    bob.ping();
    assert_eq!(bob.next()["event"], "pusher:pong");
    bob.send_text("nonsense");
    bob.expect_error_with("invalid JSON");
    bob.send(&json!({ "event": "unheard-of" }));
    bob.expect_error_with("Unsupported event");

    broker.publish("news", "e", "one");
    broker.trigger(&json!({ "name": "e", "channels": ["news", "private-room"], "data": "two" })).ok();
    let event = json!({ "name": "e", "channel": "news", "data": "three" });
    broker.post("/batch_events", &json!({ "batch": [event, event] })).send().ok();
    broker.channels();
    broker.channel("news", "");
    broker.users("presence-room");
    broker.terminate("nobody");
    assert_eq!(broker.get("/channels/news/stats").send().status, 200);
    assert_eq!(broker.get("/events").send().status, 405);
    assert_eq!(broker.trigger(&json!({ "name": "e" })).status, 400);
    assert_eq!(broker.of_app("1", "app-key", "wrong").get("/channels").send().status, 401);
    assert_eq!(broker.of_app("9", "app-key", "wrong").get("/channels").send().status, 404);
    assert_eq!(broker.get("/channels").at(1).send().status, 401);
    assert_eq!(broker.request("GET", "/nowhere", "").send().status, 404);
    broker.refused("/app/nobody?protocol=7", 4001);
    cid.leave();

    expect(
        &broker,
        &[
            ("fanfare_connections{app=\"1\"}", 2.0),
            ("fanfare_connections_opened_total", 3.0),
            ("fanfare_connections_closed_total{code=\"client\"}", 1.0),
            ("fanfare_connections_closed_total{code=\"4100\"}", 0.0),
            ("fanfare_connections_refused_total{code=\"4001\",reason=\"unknown_app\"}", 1.0),
            ("fanfare_channels{app=\"1\",kind=\"public\"}", 1.0),
            ("fanfare_channels{app=\"1\",kind=\"private\"}", 1.0),
            ("fanfare_subscriptions{app=\"1\",kind=\"public\"}", 1.0),
            ("fanfare_subscriptions{app=\"1\",kind=\"private\"}", 1.0),
            ("fanfare_presence_members{app=\"1\"}", 0.0),
            ("fanfare_users_online{app=\"1\"}", 1.0),
            ("fanfare_messages_received_total{type=\"subscribe\"}", 6.0),
            ("fanfare_messages_received_total{type=\"unsubscribe\"}", 1.0),
            ("fanfare_messages_received_total{type=\"signin\"}", 1.0),
            ("fanfare_messages_received_total{type=\"client_event\"}", 1.0),
            ("fanfare_messages_received_total{type=\"ping\"}", 1.0),
            ("fanfare_messages_received_total{type=\"pong\"}", 0.0),
            ("fanfare_messages_received_total{type=\"other\"}", 1.0),
            ("fanfare_messages_received_total{type=\"invalid\"}", 1.0),
            ("fanfare_message_errors_total", 5.0),
            ("fanfare_events_accepted_total{source=\"api\"}", 5.0),
            ("fanfare_events_accepted_total{source=\"client\"}", 1.0),
            ("fanfare_deliveries_total", 7.0),
            ("fanfare_replies_total", 16.0),
            ("fanfare_auth_failures_total{door=\"subscribe\",reason=\"invalid_signature\"}", 1.0),
            ("fanfare_auth_failures_total{door=\"subscribe\",reason=\"missing\"}", 1.0),
            ("fanfare_auth_failures_total{door=\"signin\",reason=\"missing\"}", 0.0),
            ("fanfare_auth_failures_total{door=\"api\",reason=\"invalid_signature\"}", 1.0),
            ("fanfare_auth_failures_total{door=\"api\",reason=\"unknown_app\"}", 1.0),
            ("fanfare_auth_failures_total{door=\"api\",reason=\"expired_timestamp\"}", 1.0),
            ("fanfare_api_responses_total{endpoint=\"events\",status=\"200\"}", 2.0),
            ("fanfare_api_responses_total{endpoint=\"events\",status=\"400\"}", 1.0),
            ("fanfare_api_responses_total{endpoint=\"events\",status=\"405\"}", 1.0),
            ("fanfare_api_responses_total{endpoint=\"batch_events\",status=\"200\"}", 1.0),
            ("fanfare_api_responses_total{endpoint=\"channels\",status=\"200\"}", 1.0),
            ("fanfare_api_responses_total{endpoint=\"channels\",status=\"401\"}", 2.0),
            ("fanfare_api_responses_total{endpoint=\"channels\",status=\"404\"}", 1.0),
            ("fanfare_api_responses_total{endpoint=\"channel\",status=\"200\"}", 1.0),
            ("fanfare_api_responses_total{endpoint=\"users\",status=\"200\"}", 1.0),
            ("fanfare_api_responses_total{endpoint=\"terminate\",status=\"200\"}", 1.0),
            ("fanfare_api_responses_total{endpoint=\"deprecated\",status=\"200\"}", 1.0),
            ("fanfare_api_responses_total{endpoint=\"none\",status=\"404\"}", 1.0),
            ("fanfare_api_duration_seconds_count{endpoint=\"events\"}", 4.0),
            ("fanfare_outbox_frames{worker=\"0\"}", 0.0),
            ("fanfare_outbox_bytes{worker=\"0\"}", 0.0),
            ("fanfare_worker_mailbox_letters{worker=\"0\"}", 0.0),
            ("fanfare_worker_mailbox_bytes{worker=\"0\"}", 0.0),
            ("fanfare_slow_clients_closed_total", 0.0),
            ("fanfare_draining", 0.0),
        ],
    );
    // Six events; the two of the batch may have been written together.
    let fan_outs = Page::of(&broker).value("fanfare_fan_out_duration_seconds_count");
    assert!((5.0..=6.0).contains(&fan_outs), "{fan_outs}");
}

#[test]
fn bytes_and_ping_frames_are_counted() {
    let broker = Broker::with("server.workers = 1\nmetrics.bind = \"127.0.0.1:0\"");
    let mut client = broker.raw();
    let (received, sent) = ("fanfare_websocket_received_bytes_total", "fanfare_websocket_sent_bytes_total");
    // All that went before has been added up once it is more than the greeting alone.
    until("the greeting is counted", || Page::of(&broker).value(sent) > 0.0);
    let before = Page::of(&broker);
    client.send(Opcode::PING, b"1234");
    client.expect(Opcode::PONG);
    expect(
        &broker,
        &[
            ("fanfare_websocket_pings_received_total", 1.0),
            (received, before.value(received) + 2.0 + 4.0 + 4.0),
            (sent, before.value(sent) + 2.0 + 4.0),
        ],
    );
}

#[test]
fn what_waits_for_a_client_is_counted_until_the_client_is_let_go() {
    // More than can be published before the figures are told anew.
    let broker = Broker::with(
        "server.workers = 1\nmetrics.bind = \"127.0.0.1:0\"\nconnection.outbox_bytes_max = 20000000",
    );
    let mut deaf = broker.raw();
    deaf.send_text(r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#);
    deaf.expect_succeeded("news");
    let pad = "x".repeat(10_000);
    let bytes = "fanfare_outbox_bytes{worker=\"0\"}";
    let mut number = 0;
    while Page::of(&broker).value(bytes) < 100_000.0 {
        (0..20).for_each(|_| broker.publish("news", "e", &pad));
        number += 1;
        assert!(number < 200, "40 MB are in no outbox");
    }
    assert!(Page::of(&broker).value("fanfare_outbox_frames{worker=\"0\"}") >= 10.0);
    while Page::of(&broker).value("fanfare_slow_clients_closed_total") < 1.0 {
        (0..20).for_each(|_| broker.publish("news", "e", &pad));
    }
    drop(deaf);
    expect(&broker, &[(bytes, 0.0), ("fanfare_outbox_frames{worker=\"0\"}", 0.0)]);
    let page = Page::of(&broker);
    assert!((page.value("fanfare_connections_closed_total{code=\"4100\"}") - 1.0).abs() < 0.5);
}

#[test]
fn every_kind_of_channel_is_counted_and_a_thousand_of_them_are_no_burden() {
    let broker = broker();
    let mut client = broker.connect();
    for number in 0..1000 {
        client.ask(&json!({ "channel": format!("room-{number}") }));
    }
    for number in 0..1000 {
        client.expect_succeeded(&format!("room-{number}"));
    }
    client.subscribe("private-encrypted-a");
    client.subscribe("cache-a");
    client.next();
    let mut others = [broker.joined("presence-room", "ann"), broker.joined("presence-room", "bob")];
    let mut tab = broker.joined("presence-room", "bob");
    expect(
        &broker,
        &[
            ("fanfare_channels{app=\"1\",kind=\"public\"}", 1000.0),
            ("fanfare_subscriptions{app=\"1\",kind=\"public\"}", 1000.0),
            ("fanfare_channels{app=\"1\",kind=\"private-encrypted\"}", 1.0),
            ("fanfare_channels{app=\"1\",kind=\"cache\"}", 1.0),
            ("fanfare_channels{app=\"1\",kind=\"presence\"}", 1.0),
            ("fanfare_subscriptions{app=\"1\",kind=\"presence\"}", 3.0),
            ("fanfare_presence_members{app=\"1\"}", 2.0),
        ],
    );
    let page = Page::of(&broker);
    assert!(page.0.len() < 60_000, "{} bytes", page.0.len());
    assert!(!page.0.contains("room-"), "a channel's name is no label");
    others[0].expect_member_added("presence-room", "bob");
    broker.publish("room-7", "e", "still served");
    client.expect_event("room-7", "e", "still served");
    tab.ping();
    assert_eq!(tab.next()["event"], "pusher:pong");
}

/// Apps with these ids, and a connection to each.
fn with_apps(settings: &str, ids: &[&str]) -> (Broker, Vec<Client>) {
    let app = |id: &&str| {
        let id = id.replace('\\', "\\\\").replace('"', "\\\"");
        format!("[[apps]]\nid = \"{id}\"\nkeys = [{{ key = \"k{}\", secret = \"s\" }}]\n", id.len())
    };
    let text: String = ids.iter().map(app).collect();
    let broker = Broker::with_apps(&format!("metrics.bind = \"127.0.0.1:0\"\n{settings}"), &text);
    let connect = |id: &&str| {
        let length = id.replace('\\', "\\\\").replace('"', "\\\"").len();
        Client::connect(broker.api(), &format!("/app/k{length}?protocol=7"))
    };
    let clients = ids.iter().map(connect).collect();
    (broker, clients)
}

#[test]
fn apps_beyond_the_limit_are_counted_together() {
    let ids = ["a", "bb", "ccc", "dddd", "eeeee"];
    let (broker, mut clients) = with_apps("metrics.apps_max = 2", &ids);
    clients.iter_mut().for_each(|client| client.subscribe("news"));
    expect(
        &broker,
        &[
            ("fanfare_connections{app=\"a\"}", 1.0),
            ("fanfare_connections{app=\"bb\"}", 1.0),
            ("fanfare_connections{app=\"other\"}", 3.0),
            ("fanfare_channels{app=\"other\",kind=\"public\"}", 3.0),
        ],
    );
    let page = Page::of(&broker);
    assert!(ids[2..].iter().all(|id| !page.0.contains(&format!("\"{id}\""))), "{}", page.0);
}

#[test]
fn nobody_writes_lines_of_his_own() {
    let (broker, mut clients) = with_apps("", &[r#"1"} evil\"#]);
    let client = &mut clients[0];
    for name in ["evil\"} 1", "evil\n# TYPE evil counter", "evil{a=\"b\"} 1"] {
        client.ask(&json!({ "channel": name }));
        client.next();
        client.next();
        client.send(&json!({ "event": name }));
        client.next();
        client.ask(&json!({ "channel": "private-a", "auth": format!("{name}:x") }));
        client.next();
        client.next();
    }
    broker.refused("/app/evil%22%7D%201?protocol=7", 4001);
    for path in ["/evil%22%7D", "/apps/evil%22/events", "/apps/1/channels/evil%0A1/users"] {
        broker.request("GET", path, "").send();
    }
    expect(&broker, &[("fanfare_messages_received_total{type=\"other\"}", 3.0)]);
    let page = Page::of(&broker);
    let marked: Vec<&str> = page.0.lines().filter(|line| line.contains("evil")).collect();
    assert!(!marked.is_empty(), "the app's id is a label");
    for line in marked {
        assert!(line.contains(r#"{app="1\"} evil\\""#), "{line}");
    }
}

#[test]
fn soketis_names_are_there_when_they_are_wanted() {
    let broker =
        Broker::with("server.workers = 2\nmetrics.bind = \"127.0.0.1:0\"\nmetrics.soketi_names = true");
    let (mut client, leaver) = (broker.subscriber("news"), broker.connect());
    leaver.leave();
    client.ping();
    client.next();
    broker.publish("news", "e", "data");
    client.expect_event("news", "e", "data");
    let of_app = |name: &str| format!("soketi_{name}{{app_id=\"1\",port=\"0\"}}");
    let expected = [
        ("connected", 1.0),
        ("new_connections_total", 2.0),
        ("new_disconnections_total", 1.0),
        ("ws_messages_received_total", 2.0),
        // Two greetings, a confirmation, a pong, an event.
        ("ws_messages_sent_total", 5.0),
        ("http_calls_received_total", 1.0),
        ("http_transmitted_bytes", 2.0),
    ];
    let expected = expected.map(|(name, value)| (of_app(name), value));
    expect(&broker, &expected.each_ref().map(|(name, value)| (name.as_str(), *value)));
    let page = Page::of(&broker);
    for name in ["socket_received_bytes", "socket_transmitted_bytes", "http_received_bytes"] {
        assert!(page.value(&of_app(name)) > 20.0, "{name}");
    }
    assert_eq!(page.types()["soketi_connected"], "gauge");
    assert_eq!(page.types()["soketi_socket_received_bytes"], "counter");
    assert!(page.value("soketi_process_resident_memory_bytes{port=\"0\"}") > 1e6);
}

#[test]
fn the_process_is_described() {
    let broker = broker();
    let page = Page::of(&broker);
    let open = broker.open_files() as f64;
    assert!((page.value("process_open_fds") - open).abs() < 5.0, "{open}");
    assert!(page.value("process_max_fds") > page.value("process_open_fds"));
    let resident = page.value("process_resident_memory_bytes");
    assert!(resident > 1e6 && resident < page.value("fanfare_memory_limit_bytes"), "{resident}");
    assert!(page.value("process_threads") >= 2.0);
    assert!(page.value("process_start_time_seconds") > 1.7e9);
    assert!(page.value("process_cpu_seconds_total") >= 0.0);
    let build = format!("fanfare_build_info{{version=\"{}\",features=", env!("CARGO_PKG_VERSION"));
    assert!(page.0.contains(&build), "{}", page.0);
}

#[test]
fn every_line_is_in_the_text_format() {
    let broker = broker();
    broker.expect_healthy();
    let page = Page::of(&broker);
    for line in page.0.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            assert!(comment.starts_with("HELP ") || comment.starts_with("TYPE "), "{line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        assert!(name.starts_with("fanfare_") || name.starts_with("process_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn the_page_is_not_on_the_port_of_the_clients() {
    let broker = broker();
    let mut http = Http::connect(broker.address());
    http.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(http.reply().status, 404);
}

/// Every metric that the code names.
fn definitions() -> Vec<Definition> {
    Metrics::new().definitions()
}

#[test]
fn the_page_has_every_metric_with_its_type_and_labels_and_no_other() {
    let broker = Broker::with("metrics.bind = \"127.0.0.1:0\"\nmetrics.soketi_names = true");
    broker.expect_healthy();
    let page = Page::of(&broker);
    let defined = definitions();
    let types: BTreeMap<&str, &str> = defined.iter().map(|each| (each.name, each.kind.as_str())).collect();
    assert_eq!(page.types(), types);
    for series in page.figures().keys() {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|name| types.get(name) == Some(&"histogram"))
            .unwrap_or(name);
        let definition = defined.iter().find(|each| each.name == name).expect("a definition");
        let pairs = labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
        let labels: BTreeSet<&str> = pairs.map(|(label, _)| label).filter(|label| *label != "le").collect();
        assert_eq!(labels, definition.labels.iter().copied().collect(), "{series}");
    }
}

#[test]
fn the_documentation_lists_every_metric_and_no_other() {
    let page = include_str!("../../docs/metrics.md");
    let documented: BTreeSet<(String, String, String)> = page
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().replace('`', ""));
            Some((cells.next()?, cells.next()?, cells.next()?))
        })
        // Other tables have something else in their second column.
        .filter(|(_, kind, _)| ["counter", "gauge", "histogram"].contains(&kind.as_str()))
        .collect();
    let defined = definitions()
        .into_iter()
        .map(|each| (each.name.to_owned(), each.kind.as_str().to_owned(), each.labels.join(", ")));
    let defined: BTreeSet<_> = defined.collect();
    let missing: Vec<_> = defined.difference(&documented).collect();
    let outdated: Vec<_> = documented.difference(&defined).collect();
    assert!(missing.is_empty() && outdated.is_empty(), "missing: {missing:#?}\noutdated: {outdated:#?}");
}
