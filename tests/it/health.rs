//! Probes: what the port of operators answers, and the command that asks it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Instant;

use rlimit::Resource;
use serde_json::{Value, json};

use crate::support::{Broker, Http, Reply, run, until};

/// A broker with a port of operators.
fn broker(settings: &str) -> Broker {
    Broker::with(&format!("metrics.bind = \"127.0.0.1:0\"\n{settings}"))
}

#[track_caller]
fn get(address: SocketAddr, path: &str) -> Reply {
    let mut http = Http::connect(address);
    http.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    http.reply()
}

/// The status of a probe and what it says.
#[track_caller]
fn probe(broker: &Broker, path: &str) -> (u16, Value) {
    let reply = get(broker.metrics_address(), path);
    assert_eq!(reply.header("content-type"), Some("application/json"), "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply:?}");
    (reply.status, serde_json::from_str(&reply.body).expect("JSON"))
}

const ALIVE: &str = r#"{"status":"ok","checks":{"workers":"ok"}}"#;

#[track_caller]
fn expect_alive(broker: &Broker) {
    assert_eq!(probe(broker, "/live"), (200, serde_json::from_str(ALIVE).expect("JSON")));
}

/// Runs `healthcheck` against a broker: its exit code and what it complains of.
#[track_caller]
fn healthcheck(address: &str, flags: &[&str]) -> (Option<i32>, String) {
    let url = format!("http://{address}");
    let finished = run(&[&["healthcheck", "--url", &url], flags].concat(), &[]);
    assert_eq!(finished.stdout, "");
    assert!(finished.stderr.lines().count() <= 1, "{finished:?}");
    (finished.code, finished.stderr)
}

#[test]
fn a_broker_that_serves_is_alive_and_ready() {
    let broker = broker("");
    expect_alive(&broker);
    let checks = json!({ "draining": "ok", "store": "ok", "webhooks": "ok", "workers": "ok", "open_files": "ok", "memory": "ok" });
    let (status, body) = probe(&broker, "/ready");
    assert_eq!((status, &body["status"]), (200, &json!("ok")));
    for (name, outcome) in checks.as_object().expect("checks") {
        assert_eq!(&body["checks"][name], outcome, "{body}");
    }
    let mut http = Http::connect(broker.metrics_address());
    http.send("POST /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(http.reply().status, 405);
    assert_eq!(get(broker.metrics_address(), "/elsewhere").status, 404);
    assert_eq!(get(broker.address(), "/live").status, 404, "not for the public");
}

#[test]
fn a_broker_that_leaves_is_unready_at_once_and_alive_to_the_end() {
    let broker = broker("drain.delay_s = 3600");
    let address = broker.metrics_address().to_string();
    broker.signal("TERM");
    broker.logs("stopping");
    let (status, body) = probe(&broker, "/ready");
    assert_eq!((status, &body["status"]), (503, &json!("failed")));
    assert_eq!(body["checks"]["draining"], "the node is about to stop");
    assert_eq!(body["checks"]["memory"], "ok");
    expect_alive(&broker);
    assert!(get(broker.metrics_address(), "/metrics").body.contains("\nfanfare_draining 1\n"));
    let (code, complaint) = healthcheck(&address, &["--ready"]);
    assert_eq!(code, Some(1));
    assert!(complaint.contains("answered 503") && complaint.contains("about to stop"), "{complaint}");
    assert_eq!(healthcheck(&address, &["--live"]), (Some(0), String::new()));
}

#[test]
fn probes_and_metrics_are_answered_while_connections_are_closed() {
    let broker = broker("server.shutdown_timeout_s = 3600\nconnection.close_timeout_s = 3600");
    let deaf = broker.raw();
    broker.signal("TERM");
    broker.logs("closing connections");
    expect_alive(&broker);
    assert_eq!(probe(&broker, "/ready").0, 503);
    assert_eq!(get(broker.metrics_address(), "/metrics").status, 200);
    drop(deaf);
    assert_eq!(broker.finish().code, Some(0));
}

#[test]
fn a_broker_with_few_files_left_is_not_ready_until_it_has_more() {
    let broker = broker("health.open_files_percent_max = 50");
    assert_eq!(probe(&broker, "/ready").0, 200);
    let (pid, mut limit) = (broker.pid().cast_signed(), (0, 0));
    rlimit::prlimit(pid, Resource::NOFILE, None, Some((&mut limit.0, &mut limit.1))).expect("its limit");
    let few = broker.open_files() as u64 * 3 / 2;
    rlimit::prlimit(pid, Resource::NOFILE, Some((few, limit.1)), None).expect("another limit");
    let (status, body) = probe(&broker, "/ready");
    assert_eq!(status, 503);
    let complaint = body["checks"]["open_files"].as_str().expect("a complaint");
    assert!(complaint.ends_with(&format!("of {few} are in use, more than 50 per cent")), "{complaint}");
    expect_alive(&broker);
    rlimit::prlimit(pid, Resource::NOFILE, Some(limit), None).expect("the limit it had");
    assert_eq!(probe(&broker, "/ready").0, 200);
}

#[test]
fn the_command_says_by_its_exit_code_whether_the_broker_is_well() {
    let broker = broker("");
    let address = broker.metrics_address().to_string();
    for flags in [&[][..], &["--ready"], &["--live"]] {
        assert_eq!(healthcheck(&address, flags), (Some(0), String::new()), "{flags:?}");
    }
    let (code, complaint) = healthcheck(&format!("{address}/elsewhere"), &[]);
    assert_eq!(code, Some(1));
    assert!(complaint.contains("/elsewhere answered 404"), "{complaint}");
    broker.stop();
    let (code, complaint) = healthcheck(&address, &[]);
    assert_eq!(code, Some(1));
    assert!(complaint.contains(&format!("{address} did not answer")), "{complaint}");
}

#[test]
fn the_command_finds_the_broker_of_its_configuration() {
    let broker = broker("");
    let port = broker.metrics_address().port();
    let file = broker.folder().join("other.toml");
    let check = |bind: &str| {
        std::fs::write(&file, format!("metrics.bind = \"{bind}\"")).expect("written");
        run(&["healthcheck", "--config", file.to_str().expect("UTF-8")], &[])
    };
    for bind in [format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}")] {
        assert_eq!(check(&bind).code, Some(0), "{bind}");
    }
    let by_environment = run(&["healthcheck"], &[("FANFARE_METRICS_BIND", &format!("0.0.0.0:{port}"))]);
    assert_eq!(by_environment.code, Some(0), "{by_environment:?}");
    let off = check("");
    assert_eq!(off.code, Some(1));
    assert!(off.stderr.contains("metrics.bind"), "{off:?}");
    assert_eq!(check("nonsense").code, Some(3));
}

#[test]
fn the_command_does_not_wait_for_ever() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let started = Instant::now();
    let (code, complaint) = healthcheck(&silent.local_addr().expect("an address").to_string(), &[]);
    assert_eq!(code, Some(1));
    assert!(complaint.contains("did not answer"), "{complaint}");
    assert!((2..60).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[test]
fn the_command_believes_nobody_who_speaks_no_http() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("an address").to_string();
    let answering = thread::spawn(move || {
        let (mut stream, _) = other.accept().expect("a question");
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n");
    });
    let (code, complaint) = healthcheck(&address, &[]);
    assert_eq!(code, Some(1), "{complaint}");
    answering.join().expect("answered");
}

#[test]
fn probes_made_for_soketi_are_answered_where_they_ask() {
    let broker =
        Broker::with("server.soketi_endpoints = true\ndrain.delay_s = 3600\nmetrics.bind = \"127.0.0.1:0\"");
    let memory = |address: SocketAddr, path: &str, fields: [&str; 3]| {
        let reply = get(address, path).ok();
        let figures = fields.map(|field| reply["memory"][field].as_f64().expect("a number"));
        assert!(figures.iter().all(|figure| *figure > 0.0), "{reply}");
    };
    for path in ["/", "/ready"] {
        let reply = get(broker.address(), path);
        assert_eq!((reply.status, reply.body.as_str()), (200, "OK"), "{path}");
    }
    memory(broker.address(), "/accept-traffic", ["usedSize", "totalSize", "percentUsage"]);
    for address in [broker.address(), broker.metrics_address()] {
        memory(address, "/usage", ["free", "used", "total"]);
    }
    broker.signal("TERM");
    until("the end has begun", || get(broker.address(), "/ready").status == 500);
    for path in ["/ready", "/accept-traffic"] {
        let reply = get(broker.address(), path);
        let error = "The server is closing. Choose another server. :)";
        assert_eq!(reply.status, 500, "{path}");
        let body: Value = serde_json::from_str(&reply.body).expect("JSON");
        assert_eq!(body, json!({ "error": error, "code": 500 }), "{path}");
    }
    assert_eq!(get(broker.address(), "/").status, 200);
}

#[test]
fn soketis_pages_are_not_there_unless_they_are_wanted() {
    let broker = broker("");
    for path in ["/", "/ready", "/accept-traffic", "/usage"] {
        assert_eq!(get(broker.address(), path).status, 404, "{path}");
    }
    assert_eq!(get(broker.metrics_address(), "/usage").status, 404);
}
