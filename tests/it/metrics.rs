//! The Prometheus page: an address of its own, types, gauges that tell the truth.

use crate::support::{Broker, Client, Http, until};

/// Reads the page.
#[track_caller]
fn page(broker: &Broker) -> String {
    let mut http = Http::connect(broker.metrics_address());
    http.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let reply = http.reply();
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    reply.body
}

/// The sum of a gauge of connections over its labels.
#[track_caller]
fn connections(broker: &Broker) -> f64 {
    let page = page(broker);
    let name = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.strip_suffix(" gauge"))
        .find(|name| name.contains("connections"))
        .unwrap_or_else(|| panic!("no gauge of connections in\n{page}"));
    let value = |line: &str| -> f64 {
        let value = line.rsplit(' ').next().expect("a value");
        value.parse().unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    page.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .map(value)
        .sum()
}

fn broker() -> Broker {
    Broker::with("metrics.bind = \"127.0.0.1:0\"")
}

#[test]
fn the_gauge_follows_the_connections() {
    let broker = broker();
    assert!(connections(&broker).abs() < 0.5);
    let mut clients: Vec<Client> = (0..7).map(|_| broker.connect()).collect();
    until("seven connections", || (connections(&broker) - 7.0).abs() < 0.5);
    broker.refused("/app/nobody?protocol=7", 4001);
    clients.drain(..4).for_each(Client::leave);
    until("three connections", || (connections(&broker) - 3.0).abs() < 0.5);
    drop(clients);
    until("no connection", || connections(&broker).abs() < 0.5);
}

#[test]
fn every_line_is_in_the_text_format() {
    let broker = broker();
    broker.expect_healthy();
    for line in page(&broker).lines() {
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
