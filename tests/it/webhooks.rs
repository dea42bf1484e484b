//! Webhooks: what happens on channels is told to the app's backend.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Answer, Backend, Broker, Client, Finished, Hook, Http, KEY, SECRET, run, unix_now, until,
};

/// Backends of stories are on this machine, which is not allowed by default.
const LOCAL: &str = "webhooks.allowed_networks = [\"127.0.0.0/8\"]\nmetrics.bind = \"127.0.0.1:0\"\nserver.shutdown_timeout_s = 2\n";

/// A block of the configuration for a receiver.
fn to(url: &str) -> String {
    format!("[[apps.webhooks]]\nurl = \"{url}\"\n")
}

/// A broker whose app has client events and subscription counts, and whose webhooks go to a backend.
fn broker(settings: &str, backend: &Backend) -> Broker {
    broker_with(settings, &to(&backend.url()))
}

fn broker_with(settings: &str, webhooks: &str) -> Broker {
    Broker::of(&format!("{LOCAL}{settings}"), &format!("client_events = true\n{webhooks}"))
}

/// A figure of the metrics page; 0 if it is not there.
#[track_caller]
fn metric(broker: &Broker, name: &str) -> f64 {
    let mut http = Http::connect(broker.metrics_address());
    http.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let page = http.reply().body;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or("0");
    value.parse().expect("a number")
}

#[track_caller]
fn until_metric(broker: &Broker, name: &str, least: f64) {
    until(name, || metric(broker, name) >= least);
}

fn occupied(channel: &str) -> Value {
    json!({ "name": "channel_occupied", "channel": channel })
}

fn vacated(channel: &str) -> Value {
    json!({ "name": "channel_vacated", "channel": channel })
}

fn member(event: &str, channel: &str, user_id: &str) -> Value {
    json!({ "name": event, "channel": channel, "user_id": user_id })
}

// What is sent.

#[test]
fn p90_a_request_has_the_headers_that_receivers_look_for() {
    let backend = Backend::start();
    let headers = "headers = { Authorization = \"Bearer abc\", X-Shop = \"7\" }\n";
    let broker = broker_with("", &format!("{}{headers}", to(&backend.url())));
    let _client = broker.subscriber("news");
    let hook = backend.next();
    assert!(hook.head.starts_with("POST /hook HTTP/1.1\r\n"), "{}", hook.head);
    assert_eq!(hook.header("Content-Type"), "application/json");
    hook.expect_signed(KEY, SECRET);
    assert_eq!(hook.header("Authorization"), "Bearer abc");
    assert_eq!(hook.header("X-Shop"), "7");
    assert_eq!(hook.header("X-Fanfare-Attempt"), "1");
    assert!(hook.header("User-Agent").starts_with("fanfare/"));
    assert_eq!(hook.header("X-Fanfare-Delivery").len(), 32);
    assert!(!hook.head.contains("Transfer-Encoding"), "{}", hook.head);
    let time_ms = hook.json()["time_ms"].as_u64().expect("an integer");
    let now_ms = u64::try_from(unix_now()).expect("a time after 1970") * 1000;
    assert!(time_ms.abs_diff(now_ms) < 60_000, "{time_ms}");
    let wanted =
        format!(r#"{{"time_ms":{time_ms},"events":[{{"name":"channel_occupied","channel":"news"}}]}}"#);
    assert_eq!(hook.body, wanted);
}

#[test]
fn p90_the_oldest_key_signs() {
    let backend = Backend::start();
    let keys =
        "keys = [{ key = \"old\", secret = \"old-secret\" }, { key = \"new\", secret = \"new-secret\" }]";
    let apps = format!("[[apps]]\nid = \"1\"\n{keys}\n{}", to(&backend.url()));
    let broker = Broker::with_apps(LOCAL, &apps);
    let mut client = Client::connect(broker.api(), "/app/new?protocol=7");
    client.subscribe("news");
    backend.next().expect_signed("old", "old-secret");
}

#[test]
fn credentials_of_a_url_become_a_header() {
    let backend = Backend::start();
    let broker = broker_with("", &to(&backend.url().replace("http://", "http://me:pass@")));
    let _client = broker.subscriber("news");
    assert_eq!(backend.next().header("Authorization"), "Basic bWU6cGFzcw==");
}

#[test]
fn p91_without_batching_each_event_has_a_request() {
    let backend = Backend::start();
    let broker = broker("", &backend);
    let channels: Vec<String> = (0..20).map(|number| format!("room-{number}")).collect();
    let mut client = broker.connect();
    channels.iter().for_each(|channel| client.subscribe(channel));
    let mut seen: Vec<Value> = channels.iter().map(|_| backend.event()).collect();
    let mut wanted: Vec<Value> = channels.iter().map(|channel| occupied(channel)).collect();
    seen.sort_by_key(ToString::to_string);
    wanted.sort_by_key(ToString::to_string);
    assert_eq!(seen, wanted);
}

#[test]
fn p91_with_batching_events_of_one_app_travel_together() {
    let backend = Backend::start();
    let app = |id: &str| {
        let keys = format!("keys = [{{ key = \"key-{id}\", secret = \"secret-{id}\" }}]");
        format!("[[apps]]\nid = \"{id}\"\n{keys}\nwebhook_batching = true\n{}", to(&backend.url()))
    };
    let settings = format!("{LOCAL}webhooks.batch_wait_ms = 1000\nwebhooks.batch_events_max = 8\n");
    let broker = Broker::with_apps(&settings, &[app("1"), app("2")].join("\n"));
    let channels: Vec<String> = (0..12).map(|number| format!("room-{number}")).collect();
    for id in ["1", "2"] {
        let mut client = Client::connect(broker.api(), &format!("/app/key-{id}?protocol=7"));
        channels.iter().for_each(|channel| client.subscribe(channel));
        client.close_without_waiting();
    }
    let mut seen: HashMap<String, Vec<Value>> = HashMap::new();
    let mut requests = 0;
    while seen.values().map(Vec::len).sum::<usize>() < 2 * channels.len() {
        let hook = backend.next();
        let key = hook.header("X-Pusher-Key").to_owned();
        hook.expect_signed(&key, &key.replace("key", "secret"));
        assert!(hook.events().len() <= 8, "{hook:?}");
        seen.entry(key).or_default().extend(hook.events());
        requests += 1;
    }
    let wanted: Vec<Value> = channels.iter().map(|channel| occupied(channel)).collect();
    assert_eq!(seen["key-1"], wanted, "in order");
    assert_eq!(seen["key-2"], wanted);
    assert!(requests < channels.len(), "{requests} requests");
}

#[test]
fn p92_all_seven_events_with_their_fields() {
    let backend = Backend::start();
    let counted = format!("subscription_counts = true\n{}", to(&backend.url()));
    let broker = broker_with("webhooks.debounce_s = 1", &counted);
    let counts = |channel: &str, count: u64| json!({ "name": "subscription_count", "channel": channel, "subscription_count": count });

    let mut ann = broker.connect();
    ann.subscribe("cache-news");
    let mut wanted = vec![
        occupied("cache-news"),
        counts("cache-news", 1),
        json!({ "name": "cache_miss", "channel": "cache-news" }),
    ];
    wanted.sort_by_key(ToString::to_string);
    assert_eq!(backend.events(3), wanted);

    let mut bob = broker.joined("presence-room", "bob");
    let wanted = vec![occupied("presence-room"), member("member_added", "presence-room", "bob")];
    assert_eq!(backend.events(2), wanted);

    let mut eve = broker.joined("presence-room", "eve");
    assert_eq!(backend.event(), member("member_added", "presence-room", "eve"));
    bob.say("presence-room", "client-typing", &json!({ "keys": [1, "é"] }));
    let mut said = json!({
        "name": "client_event", "channel": "presence-room", "event": "client-typing",
        "data": "{\"keys\":[1,\"é\"]}", "socket_id": bob.id(), "user_id": "bob",
    });
    assert_eq!(backend.event(), said);
    assert_eq!(eve.next()["event"], "client-typing");

    eve.subscribe("private-room");
    assert_eq!(backend.events(2), [occupied("private-room"), counts("private-room", 1)]);
    eve.say("private-room", "client-typing", &json!("to the byte \" \\"));
    said = json!({
        "name": "client_event", "channel": "private-room", "event": "client-typing",
        "data": "to the byte \" \\", "socket_id": eve.id(),
    });
    assert_eq!(backend.event(), said);

    bob.unsubscribe("presence-room");
    assert_eq!(backend.event(), member("member_removed", "presence-room", "bob"));
    eve.leave();
    let wanted =
        [vacated("presence-room"), member("member_removed", "presence-room", "eve"), vacated("private-room")];
    assert_eq!(backend.events(3), wanted);
}

#[test]
fn p92_users_own_channels_raise_none() {
    let backend = Backend::start();
    let broker = broker("webhooks.debounce_s = 0", &backend);
    broker.signed_in("ann").leave();
    let _client = broker.subscriber("marker");
    assert_eq!(backend.event(), occupied("marker"));
}

#[test]
fn a_client_event_that_is_refused_is_not_told() {
    let backend = Backend::start();
    let broker = broker("", &backend);
    let mut client = broker.connect();
    client.subscribe("private-room");
    assert_eq!(backend.event(), occupied("private-room"));
    client.say("public", "client-x", &json!(1));
    client.next();
    client.say("private-elsewhere", "client-x", &json!(1));
    client.next();
    client.say("private-room", "client-y", &json!(2));
    assert_eq!(backend.event()["event"], "client-y");
}

#[test]
fn each_endpoint_is_told_what_it_wants() {
    let (all, some) = (Backend::start(), Backend::start());
    let picky = "events = [\"member_added\", \"channel_occupied\"]\nchannel_prefixes = [\"presence-\"]\n";
    let broker = broker_with("", &format!("{}{}{picky}", to(&all.url()), to(&some.url())));
    let _ann = broker.subscriber("news");
    let _bob = broker.joined("presence-room", "bob");
    let wanted = [occupied("presence-room"), member("member_added", "presence-room", "bob")];
    assert_eq!(some.events(2), wanted);
    assert_eq!(all.events(3)[..2], [occupied("news"), occupied("presence-room")]);
    assert!(some.so_far().is_empty());
}

#[test]
fn p96_several_connections_occupy_a_channel_once() {
    let backend = Backend::start();
    let broker = broker("", &backend);
    let mut clients: Vec<_> = (0..10).map(|_| broker.subscriber("news")).collect();
    clients.push(broker.subscriber("marker"));
    assert_eq!(backend.events(2), [occupied("marker"), occupied("news")]);
}

// Leaves wait for a return.

#[test]
fn p94_who_is_back_in_time_has_never_been_away() {
    let backend = Backend::start();
    let broker = broker("", &backend);
    broker.joined("presence-room", "ann").leave();
    assert_eq!(backend.events(2).len(), 2);
    let _ann = broker.joined("presence-room", "ann");
    // Whatever the leave led to would be told before this one.
    broker.subscriber("marker").leave();
    assert_eq!(backend.event(), occupied("marker"));
    assert_eq!(backend.event(), vacated("marker"));
}

#[test]
fn p95_who_is_not_back_has_left_once() {
    let backend = Backend::start();
    let broker = broker("", &backend);
    let (ann, tab) = (broker.joined("presence-room", "ann"), broker.joined("presence-room", "ann"));
    assert_eq!(backend.events(2).len(), 2);
    tab.leave();
    let left = Instant::now();
    ann.leave();
    let wanted = [vacated("presence-room"), member("member_removed", "presence-room", "ann")];
    assert_eq!(backend.events(2), wanted);
    assert!(left.elapsed() > Duration::from_millis(2900), "{:?}", left.elapsed());
    broker.subscriber("marker").leave();
    assert_eq!(backend.event(), occupied("marker"));
}

// Retries.

/// Answers the first requests with these, all others with 200.
fn first(answers: Vec<Answer>) -> impl Fn(&Hook) -> Answer + Send + Sync {
    let count = AtomicUsize::new(0);
    move |_| answers.get(count.fetch_add(1, Ordering::SeqCst)).cloned().unwrap_or(Answer::Status(200))
}

/// Expects so many attempts at one delivery, alike but for their number, with growing pauses.
#[track_caller]
fn expect_attempts(backend: &Backend, count: usize) -> Hook {
    let first = backend.next();
    let mut at = first.at;
    for number in 2..=count {
        let again = backend.next();
        assert_eq!(again.body, first.body);
        for header in ["X-Pusher-Signature", "X-Fanfare-Delivery", "X-Pusher-Key", "Content-Type"] {
            assert_eq!(again.header(header), first.header(header));
        }
        assert_eq!(again.header("X-Fanfare-Attempt"), number.to_string());
        let pause = Duration::from_millis((1000 << (number - 2)) - 100);
        assert!(again.at - at > pause, "attempt {number} after {:?}", again.at - at);
        at = again.at;
    }
    first
}

#[test]
fn p93_everything_but_2xx_is_tried_again() {
    let elsewhere = Backend::start();
    let answers = vec![Answer::Redirect(elsewhere.url()), Answer::Status(404), Answer::Status(500)];
    let backend = Backend::with(first(answers));
    let broker = broker("", &backend);
    let _client = broker.subscriber("news");
    expect_attempts(&backend, 4);
    until_metric(&broker, "fanfare_webhook_attempts_total{outcome=\"delivered\"}", 1.0);
    for outcome in ["3xx", "4xx", "5xx"] {
        let name = format!("fanfare_webhook_attempts_total{{outcome=\"{outcome}\"}}");
        assert!((metric(&broker, &name) - 1.0).abs() < 0.5, "{outcome}");
    }
    until("an empty queue", || metric(&broker, "fanfare_webhook_deliveries") < 0.5);
    assert!(elsewhere.so_far().is_empty(), "a redirect was followed");
}

#[test]
fn p93_a_receiver_that_hangs_or_resets_is_asked_again() {
    let backend = Backend::with(first(vec![Answer::Hang, Answer::Reset]));
    let broker = broker("webhooks.timeout_s = 1", &backend);
    let _client = broker.subscriber("news");
    expect_attempts(&backend, 3);
    until_metric(&broker, "fanfare_webhook_attempts_total{outcome=\"timeout\"}", 1.0);
    until_metric(&broker, "fanfare_webhook_attempts_total{outcome=\"connection\"}", 1.0);
}

#[test]
fn p93_a_receiver_that_was_away_gets_what_it_missed() {
    let address = Backend::nowhere();
    let broker = broker_with("", &to(&format!("http://{address}/hook")));
    let _client = broker.subscriber("news");
    until_metric(&broker, "fanfare_webhook_attempts_total{outcome=\"connection\"}", 2.0);
    let backend = Backend::listen(address, |_| Answer::Status(204));
    let hook = backend.next();
    assert_eq!(hook.events(), [occupied("news")]);
    assert_ne!(hook.header("X-Fanfare-Attempt"), "1");
}

#[test]
fn a_long_answer_is_a_success_and_the_connection_goes_on() {
    let backend = Backend::with(|_| Answer::Long(1 << 20));
    let broker = broker("", &backend);
    let _first = broker.subscriber("one");
    backend.next();
    let _second = broker.subscriber("two");
    assert_eq!(backend.event(), occupied("two"));
}

#[test]
fn what_nobody_takes_in_its_time_becomes_a_dead_letter() {
    let backend = Backend::with(|_| Answer::Status(503));
    let broker = broker("webhooks.retry_s = 2", &backend);
    let _client = broker.subscriber("news");
    expect_attempts(&backend, 2);
    until_metric(&broker, "fanfare_webhook_dead_letters", 1.0);
    assert!((metric(&broker, "fanfare_webhook_given_up_total") - 1.0).abs() < 0.5);
    let finished = broker.stop();
    let line = line_with(&finished, "webhooks were given up");
    assert!(line.contains("WARN") && line.contains("status 503") && line.contains("deliveries="), "{line}");
}

/// The line of the log with this text.
#[track_caller]
fn line_with(finished: &Finished, text: &str) -> String {
    let line = finished.stderr.lines().find(|line| line.contains(text));
    line.unwrap_or_else(|| panic!("no {text:?} in\n{}", finished.stderr)).to_owned()
}

// Order and isolation.

#[test]
fn events_of_a_channel_come_in_order_and_one_at_a_time() {
    let overlaps = Arc::new(AtomicBool::new(false));
    let busy: Arc<[AtomicBool; 3]> = Arc::default();
    let seen = overlaps.clone();
    let backend = Backend::with(move |hook| {
        let event = hook.events().remove(0);
        let Some(room) = event["channel"].as_str().and_then(|name| name.strip_prefix("private-")) else {
            return Answer::Status(200);
        };
        let room: usize = room.parse().expect("a number");
        if busy[room].swap(true, Ordering::SeqCst) {
            seen.store(true, Ordering::SeqCst);
        }
        std::thread::park_timeout(Duration::from_millis(3)); // so that others had time to come
        busy[room].store(false, Ordering::SeqCst);
        Answer::Status(200)
    });
    let per_s = "client_events_per_s = 1000\n";
    let broker = broker_with("", &format!("{per_s}{}", to(&backend.url())));
    let mut client = broker.connect();
    for room in 0..3 {
        client.subscribe(&format!("private-{room}"));
    }
    assert_eq!(backend.events(3).len(), 3);
    for number in 0..60 {
        client.say(&format!("private-{}", number % 3), "client-count", &json!(number.to_string()));
    }
    let mut last: HashMap<String, u64> = HashMap::new();
    for _ in 0..60 {
        let event = backend.event();
        let number = event["data"].as_str().expect("a string").parse().expect("a number");
        let before = last.insert(event["channel"].to_string(), number);
        assert!(before < Some(number), "{event} after {before:?}");
    }
    assert!(!overlaps.load(Ordering::SeqCst), "requests of one channel overlap");
}

#[test]
fn receivers_that_hang_or_fail_delay_no_other() {
    let (hanging, failing, healthy) =
        (Backend::with(|_| Answer::Hang), Backend::with(|_| Answer::Status(500)), Backend::start());
    let webhooks = [&hanging, &failing, &healthy].map(|backend| to(&backend.url())).concat();
    let broker = broker_with("webhooks.timeout_s = 300\nwebhooks.concurrency = 2", &webhooks);
    let mut client = broker.connect();
    for number in 0..50 {
        client.subscribe(&format!("room-{number}"));
    }
    assert_eq!(healthy.events(50).len(), 50);
    until_metric(&broker, "fanfare_webhook_receivers_down", 1.0);
    assert!(hanging.so_far().len() <= 2);
}

#[test]
fn a_failed_delivery_does_not_delay_other_channels() {
    let backend = Backend::with(|hook| match &hook.events()[0]["channel"] {
        channel if channel == "poison" => Answer::Status(500),
        _ => Answer::Status(200),
    });
    let broker = broker("", &backend);
    let mut client = broker.connect();
    client.subscribe("poison");
    assert_eq!(backend.event(), occupied("poison"));
    for number in 0..20 {
        client.subscribe(&format!("room-{number}"));
    }
    let mut seen = 0;
    while seen < 20 {
        seen += usize::from(backend.event() != occupied("poison"));
    }
}

#[test]
fn a_full_queue_drops_counts_and_says_so() {
    let backend = Backend::with(|_| Answer::Hang);
    let settings = "webhooks.queue_bytes_max = 65536\nwebhooks.timeout_s = 300";
    let broker = broker(settings, &backend);
    let mut client = broker.connect();
    for number in 0..200 {
        client.subscribe(&format!("room-{number}"));
    }
    until_metric(&broker, "fanfare_webhook_events_dropped_total{reason=\"queue_full\"}", 1.0);
    assert!(metric(&broker, "fanfare_webhook_queue_bytes") <= 32_768.0);
    broker.expect_healthy();
    let finished = broker.stop();
    assert!(line_with(&finished, "events for webhooks were dropped").contains("WARN"));
    assert!(line_with(&finished, "webhooks were lost by stopping").contains("webhooks.state_file"));
}

// Addresses.

#[test]
fn an_inner_address_is_refused_with_the_setting_that_allows_it() {
    let backend = Backend::start();
    let port = backend.url().rsplit(':').next().expect("a port").to_owned();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f.1"] {
        let webhook = format!("client_events = true\n{}", to(&format!("http://{host}:{port}")));
        let broker = Broker::of("metrics.bind = \"127.0.0.1:0\"\nwebhooks.retry_s = 0", &webhook);
        let _client = broker.subscriber("news");
        until_metric(&broker, "fanfare_webhook_attempts_total{outcome=\"address\"}", 1.0);
        until_metric(&broker, "fanfare_webhook_dead_letters", 1.0);
        let finished = broker.stop();
        let line = line_with(&finished, "a receiver of webhooks fails");
        assert!(line.contains("webhooks.allowed_networks"), "{line}");
    }
    assert!(backend.so_far().is_empty());
}

#[test]
fn a_name_of_an_allowed_network_is_reached() {
    let backend = Backend::start();
    let broker = broker_with("", &to(&backend.url().replace("127.0.0.1", "localhost")));
    let _client = broker.subscriber("news");
    assert_eq!(backend.event(), occupied("news"));
}

// Stopping and starting again.

fn with_state(folder: &Path) -> String {
    format!("webhooks.state_file = \"{}\"", folder.join("state.json").display())
}

#[test]
fn without_a_state_file_leaves_are_told_before_the_end() {
    let backend = Backend::start();
    let broker = broker("", &backend);
    let _ann = broker.joined("presence-room", "ann");
    assert_eq!(backend.events(2).len(), 2);
    assert_eq!(broker.stop().code, Some(0));
    let wanted = [vacated("presence-room"), member("member_removed", "presence-room", "ann")];
    assert_eq!(backend.events(2), wanted);
}

#[test]
fn p94_over_a_restart_who_is_back_in_time_has_never_been_away() {
    let (backend, folder) = (Backend::start(), tempfile::tempdir().expect("a folder"));
    let before = broker(&with_state(folder.path()), &backend);
    let _old = (before.joined("presence-room", "ann"), before.joined("presence-room", "bob"));
    assert_eq!(backend.events(3).len(), 3);
    assert_eq!(before.stop().code, Some(0));
    let kept = std::fs::metadata(folder.path().join("state.json")).expect("a state file");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&kept.permissions()) & 0o777, 0o600);

    let after = broker(&with_state(folder.path()), &backend);
    assert!(!folder.path().join("state.json").exists(), "it is taken over once");
    let _ann = after.joined("presence-room", "ann");
    assert_eq!(backend.event(), member("member_removed", "presence-room", "bob"));
    let _marker = after.subscriber("marker");
    assert_eq!(backend.event(), occupied("marker"));
}

#[test]
fn p95_over_a_restart_who_is_not_back_has_left() {
    let (backend, folder) = (Backend::start(), tempfile::tempdir().expect("a folder"));
    let before = broker(&with_state(folder.path()), &backend);
    let _ann = before.joined("presence-room", "ann");
    assert_eq!(backend.events(2).len(), 2);
    before.stop();
    assert!(backend.so_far().is_empty());
    let _after = broker(&with_state(folder.path()), &backend);
    let wanted = [vacated("presence-room"), member("member_removed", "presence-room", "ann")];
    assert_eq!(backend.events(2), wanted);
}

#[test]
fn p95_an_end_in_haste_keeps_who_was_there() {
    let (backend, folder) = (Backend::start(), tempfile::tempdir().expect("a folder"));
    let before = broker(&format!("{}\ndrain.delay_s = 3600", with_state(folder.path())), &backend);
    let _ann = before.joined("presence-room", "ann");
    assert_eq!(backend.events(2).len(), 2);
    before.signal("TERM");
    before.logs("stopping");
    before.signal("TERM");
    assert_eq!(before.finish().code, Some(1));
    let _after = broker(&with_state(folder.path()), &backend);
    let wanted = [vacated("presence-room"), member("member_removed", "presence-room", "ann")];
    assert_eq!(backend.events(2), wanted);
}

#[test]
fn undelivered_webhooks_and_dead_letters_survive_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = Arc::new(AtomicBool::new(false));
    let is_up = up.clone();
    let backend =
        Backend::with(move |_| Answer::Status(if is_up.load(Ordering::SeqCst) { 200 } else { 500 }));
    let dead = Backend::nowhere();
    let webhooks =
        format!("{}{}channel_prefixes = [\"dead\"]\n", to(&backend.url()), to(&format!("http://{dead}/")));
    // Leaves are another story.
    let settings = format!("{}\nwebhooks.debounce_s = 3600", with_state(folder.path()));
    let hopeless = broker_with(&format!("{settings}\nwebhooks.retry_s = 0"), &webhooks);
    hopeless.subscriber("dead-end").leave();
    until_metric(&hopeless, "fanfare_webhook_dead_letters", 2.0);
    hopeless.stop();
    assert_eq!(backend.event(), occupied("dead-end"));

    let before = broker_with(&settings, &webhooks);
    until_metric(&before, "fanfare_webhook_dead_letters", 2.0);
    before.subscriber("news").leave();
    let first = backend.next();
    before.stop();
    backend.so_far();

    up.store(true, Ordering::SeqCst);
    let after = broker_with(&settings, &webhooks);
    let again = backend.next();
    assert_eq!((&again.body, again.events()), (&first.body, vec![occupied("news")]));
    assert_eq!(again.header("X-Fanfare-Delivery"), first.header("X-Fanfare-Delivery"));
    assert_ne!(again.header("X-Fanfare-Attempt"), "1");
    again.expect_signed(KEY, SECRET);
    until_metric(&after, "fanfare_webhook_dead_letters", 2.0);
}

#[test]
fn a_state_file_that_cannot_be_used_stops_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.json");
    let start = |path: &Path| {
        let set = format!("webhooks.state_file={}", path.display());
        let flags = ["serve", "--bind", "127.0.0.1:0", "--set", "metrics.bind=", "--set", &set];
        let finished = run(&flags, &[]);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains("webhooks.state_file"), "{finished:?}");
        finished.stderr
    };
    std::fs::write(&path, "{\"hello\":").expect("a file");
    assert!(start(&path).contains("move it away"));
    std::fs::write(&path, "{\"format\":\"something else\",\"version\":1}").expect("a file");
    assert!(start(&path).contains("holds no state of webhooks"));
    std::fs::write(&path, "{\"format\":\"fanfare webhooks\",\"version\":99}").expect("a file");
    assert!(start(&path).contains("version 99"));
    assert!(path.exists(), "nothing was taken away");
    assert!(start(&folder.path().join("missing/state.json")).contains("cannot be written"));
}

#[test]
fn a_start_that_fails_takes_nothing_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.json");
    let kept = r#"{"format":"fanfare webhooks","version":1,"leavers":[],"deliveries":[],"dead_letters":[]}"#;
    std::fs::write(&path, kept).expect("a file");
    let state = format!("webhooks.state_file={}", path.display());
    let sets = [&state, "metrics.bind=", "tls.certificate=/nowhere.pem", "tls.key=/nowhere.pem"];
    let flags =
        ["serve", "--bind", "127.0.0.1:0"].into_iter().chain(sets.into_iter().flat_map(|set| ["--set", set]));
    let finished = run(&flags.collect::<Vec<_>>(), &[]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("nowhere.pem"), "{finished:?}");
    assert_eq!(std::fs::read_to_string(&path).ok().as_deref(), Some(kept));
}

// What is not said.

#[test]
fn urls_headers_signatures_and_payloads_are_never_logged() {
    let answered = AtomicUsize::new(0);
    let backend = Backend::with(move |_| match answered.fetch_add(1, Ordering::SeqCst) {
        0 | 2 => Answer::Status(500),
        _ => Answer::Status(200),
    });
    let secrets =
        ["hush-user", "hush-password", "hush-query", "hush-path", "hush-header", "hush-said", SECRET];
    let url = backend.url().replace("http://", "http://hush-user:hush-password@");
    let good = format!(
        "{}headers = {{ X-Token = \"hush-header\" }}\n",
        to(&format!("{url}/hush-path?key=hush-query"))
    );
    let nowhere = format!("http://hush-user:hush-password@{}/hush-path?key=hush-query", Backend::nowhere());
    let inner = "http://hush-user:hush-password@10.0.0.1/hush-path?key=hush-query";
    let unknown = "http://hush-user:hush-password@nowhere.invalid/hush-path?key=hush-query";
    let webhooks = [good, to(&nowhere), to(inner), to(unknown)].concat();
    let broker = broker_with("log.level = \"trace\"\nwebhooks.retry_s = 2", &webhooks);
    let mut client = broker.connect();
    client.subscribe("private-room");
    client.say("private-room", "client-x", &json!("hush-said"));
    let mut signatures = Vec::new();
    while signatures.len() < 3 {
        signatures.push(backend.next().header("X-Pusher-Signature").to_owned());
    }
    until_metric(&broker, "fanfare_webhook_attempts_total{outcome=\"address\"}", 1.0);
    until_metric(&broker, "fanfare_webhook_attempts_total{outcome=\"connection\"}", 2.0);
    let finished = broker.stop();
    for secret in secrets.into_iter().chain(signatures.iter().map(String::as_str)) {
        let line = finished.stderr.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} was logged");
    }
    assert!(finished.stderr.contains("a receiver of webhooks fails"));
}
