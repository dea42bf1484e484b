//! The way to the server: names, ports, proxies; and what a proxy makes of WebSockets.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::proxy::{by_path, is_upgrade};
use super::{Diagnosis, File, Proxy, Rule, url};
use crate::support::{Broker, RedisServer};

#[test]
fn a_name_that_nobody_knows_fails_at_dns() {
    let diagnosis = Diagnosis::of("http://no-such-host.invalid", &[]);
    diagnosis.expect_failure("dns", &["no-such-host.invalid", "A or AAAA record"]);
    for name in ["tcp", "http", "upgrade", "delivery", "long_connection"] {
        diagnosis.expect(name, "skipped", &[]);
    }
}

#[test]
fn a_port_where_nobody_listens_fails_at_tcp() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    Diagnosis::of(&url(closed), &[]).expect_failure("tcp", &["nothing listens at", "server.bind"]);
}

#[test]
fn what_is_no_http_fails_at_http() {
    let ssh = Proxy::alone(|_| Rule::Answer("SSH-2.0-OpenSSH_9.2\r\n"));
    Diagnosis::of(&url(ssh.address()), &[]).expect_failure("http", &["no answer in HTTP"]);
    let silent = Proxy::alone(|_| Rule::Keep);
    let diagnosis = Diagnosis::of(&url(silent.address()), &["--timeout-s", "1"]);
    diagnosis.expect_failure("http", &["no answer in time", "proxy reaches Fanfare"]);
}

/// What a proxy answers in the place of Fanfare, and what is said of it.
#[test]
fn a_proxy_that_does_not_reach_the_server_fails_at_http() {
    for (answer, parts) in [
        ("HTTP/1.1 502 Bad Gateway\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n", ["nginx", "server.bind"]),
        (
            "HTTP/1.1 503 Service Unavailable\r\nServer: haproxy\r\nContent-Length: 0\r\n\r\n",
            ["haproxy", "/ready"],
        ),
        (
            "HTTP/1.1 504 Gateway Timeout\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n",
            ["waited in vain", "firewall"],
        ),
        (
            "HTTP/1.1 301 Moved\r\nServer: nginx\r\nLocation: https://h/x?auth_key=1\r\nContent-Length: 0\r\n\r\n",
            ["redirect (301) to https://h/x", "forceTLS"],
        ),
        (
            "HTTP/1.1 308 Moved\r\nLocation: http://h/\r\nContent-Length: 0\r\n\r\n",
            ["redirect (308)", "no SDK follows"],
        ),
        (
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 48\r\n\r\nThe plain HTTP request was sent to HTTPS port   ",
            ["TLS is spoken at this port", "https://"],
        ),
    ] {
        let proxy = Proxy::alone(move |_| Rule::Answer(answer));
        Diagnosis::of(&url(proxy.address()), &[]).expect_failure("http", &parts);
    }
}

/// What a proxy makes of an upgrade, and what is said of it. Everything else it passes on.
#[test]
fn a_proxy_that_passes_no_upgrades_fails_at_the_upgrade() {
    type Judge = fn(&str) -> Rule;
    let broker = Broker::start();
    let cases: [(Judge, &[&str]); 10] = [
        (
            |head| without(head, "upgrade"),
            &["without its Upgrade or Connection header", "proxy_http_version 1.1"],
        ),
        (|head| without(head, "connection"), &["without its Upgrade or Connection header"]),
        (
            |head| {
                Rule::Pass(
                    head.replace("HTTP/1.1", "HTTP/1.0").replace("Connection: Upgrade", "Connection: close"),
                )
            },
            &["without its Upgrade or Connection header"],
        ),
        (
            |_| Rule::Answer("HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n"),
            &["a page instead"],
        ),
        (|_| Rule::Answer("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), &["with 400", "Upgrade"]),
        (
            |_| Rule::Answer("HTTP/1.1 403 Forbidden\r\nServer: waf\r\nContent-Length: 0\r\n\r\n"),
            &["waf", "bot check"],
        ),
        (
            |_| Rule::Answer("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            &["nothing is known at /app/"],
        ),
        (|_| Rule::Answer("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n"), &["with 426"]),
        (
            |_| Rule::Answer("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
            &["with 502", "does not reach"],
        ),
        (|_| Rule::Answer("HTTP/1.0 500 Oh\r\n\r\n"), &["HTTP/1.0, which has no upgrades"]),
    ];
    for (judge, parts) in cases {
        let proxy = in_front_of(&broker, judge);
        let diagnosis = Diagnosis::of(&url(proxy.address()), &[]);
        diagnosis.expect_failure("upgrade", parts);
        diagnosis.expect("app_key", "skipped", &[]);
        // That the API is fine is worth knowing.
        diagnosis.expect("publish", "ok", &[]);
        diagnosis.expect("delivery", "skipped", &[]);
    }
}

/// A proxy that does to upgrades what `judge` says.
fn in_front_of(broker: &Broker, judge: fn(&str) -> Rule) -> Proxy {
    let passed = |head: &str| Rule::Pass(head.to_owned());
    Proxy::to(&[broker.address()], move |head| if is_upgrade(head) { judge(head) } else { passed(head) })
}

fn without(head: &str, header: &str) -> Rule {
    let is_it = |line: &&str| line.to_lowercase().starts_with(&format!("{header}:"));
    Rule::Pass(head.split("\r\n").filter(|line| !is_it(line)).collect::<Vec<_>>().join("\r\n"))
}

#[test]
fn an_upgrade_that_is_kept_waiting_or_answered_falsely_is_named() {
    let broker = Broker::start();
    let keeps = in_front_of(&broker, |_| Rule::Keep);
    let diagnosis = Diagnosis::of(&url(keeps.address()), &["--timeout-s", "1"]);
    diagnosis.expect_failure("upgrade", &["no answer to the upgrade within 1 s"]);
    let lies = in_front_of(&broker, |_| {
        Rule::Change(|head| head.replace("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x"))
    });
    Diagnosis::of(&url(lies.address()), &[])
        .expect_failure("upgrade", &["without a right Sec-WebSocket-Accept"]);
}

#[test]
fn a_proxy_that_holds_back_what_the_server_says_is_named() {
    let broker = Broker::start();
    let buffers = in_front_of(&broker, |_| Rule::Hold(0));
    let diagnosis = Diagnosis::of(&url(buffers.address()), &["--timeout-s", "1"]);
    diagnosis.expect_failure("app_key", &["nothing comes within 1 s", "proxy_buffering off"]);
    // Enough for small events.
    let limits = in_front_of(&broker, |_| Rule::Hold(6000));
    let diagnosis = Diagnosis::of(&url(limits.address()), &["--timeout-s", "2"]);
    diagnosis.expect("delivery", "ok", &[]);
    diagnosis.expect_failure("large_event", &["one of 10000 bytes does not"]);
}

#[test]
fn a_proxy_that_changes_paths_is_named() {
    let broker = Broker::start();
    let sockets = in_front_of(&broker, |head| Rule::Pass(head.replacen("/app/", "/live/", 1)));
    Diagnosis::of(&url(sockets.address()), &[]).expect_failure("app_key", &["(4005)", "in front of /app"]);
    let queries = in_front_of(&broker, |head| Rule::Pass(head.replacen("protocol=7", "p=7", 1)));
    Diagnosis::of(&url(queries.address()), &[]).expect_failure("app_key", &["query has changed"]);
    let calls = |judge: fn(&str) -> Rule| {
        Proxy::to(&[broker.address()], move |head| {
            if is_upgrade(head) { Rule::Pass(head.to_owned()) } else { judge(head) }
        })
    };
    let rewrites = calls(|head| Rule::Pass(head.replacen("/channels/private-", "/channels/Private-", 1)));
    Diagnosis::of(&url(rewrites.address()), &[]).expect_failure("api", &[]);
    let elsewhere = calls(|head| Rule::Pass(head.replacen(" /apps/", " /api/", 1)));
    Diagnosis::of(&url(elsewhere.address()), &[]).expect_failure("api", &["Not found", "/apps"]);
    let page =
        calls(|_| Rule::Answer("HTTP/1.1 404 Not Found\r\nServer: nginx\r\nContent-Length: 6\r\n\r\n<html>"));
    Diagnosis::of(&url(page.address()), &[])
        .expect_failure("api", &["nginx answers the API with 404", "/apps/"]);
}

#[test]
fn a_header_of_the_proxy_protocol_that_nobody_waits_for_is_named() {
    let broker = Broker::start();
    let proxy = Proxy::to(&[broker.address()], |head| {
        Rule::Pass(format!("PROXY TCP4 192.0.2.1 127.0.0.1 40000 80\r\n{head}"))
    });
    let diagnosis = Diagnosis::of(&url(proxy.address()), &[]);
    diagnosis.expect_failure("http", &["no request of HTTP (400)", "server.proxy_protocol"]);
}

#[test]
fn a_proxy_that_limits_bodies_is_named() {
    let broker = Broker::start();
    let proxy = Proxy::to(&[broker.address()], |head| {
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        match length {
            Some(1000_usize..) => Rule::Answer(
                "HTTP/1.1 413 Too Large\r\nServer: nginx\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            ),
            _ => Rule::Pass(head.to_owned()),
        }
    });
    let diagnosis = Diagnosis::of(&url(proxy.address()), &[]);
    diagnosis.expect("delivery", "ok", &[]);
    diagnosis.expect_failure("large_event", &["413", "client_max_body_size"]);
}

#[test]
fn a_proxy_that_cuts_silent_connections_is_found_by_staying() {
    let broker = Broker::start();
    let proxy = in_front_of(&broker, |_| Rule::Impatient(Duration::from_secs(2)));
    let began = Instant::now();
    let diagnosis = Diagnosis::of(&url(proxy.address()), &["--hold-s", "60"]);
    diagnosis.expect("delivery", "ok", &[]);
    diagnosis.expect_failure(
        "long_connection",
        &["was cut after", "above 60 s", "proxy_read_timeout", "ping_after_s"],
    );
    assert!(began.elapsed() < Duration::from_secs(60), "it waits no longer than the connection lives");
    Diagnosis::of(&url(broker.address()), &["--hold-s", "1"]).expect_good();
}

#[test]
fn pings_of_the_server_are_answered_while_staying() {
    let broker = Broker::with("connection.ping_after_s = 1\nconnection.pong_timeout_s = 1");
    Diagnosis::of(&url(broker.address()), &["--hold-s", "4"]).expect_good();
}

#[test]
fn clocks_that_differ_are_found_by_the_date_of_an_answer() {
    let broker = Broker::start();
    let with = |change: fn(&str) -> String| {
        Proxy::to(&[broker.address()], move |head| {
            if is_upgrade(head) { Rule::Pass(head.to_owned()) } else { Rule::Change(change) }
        })
    };
    let far = with(|head| dated(head, "Sat, 01 Jan 2000 00:00:00 GMT"));
    let diagnosis = Diagnosis::of(&url(far.address()), &[]);
    diagnosis.expect_failure("clock", &["ahead of the server", "600 s are tolerated", "NTP"]);
    let without = with(|head| dated(head, "soon"));
    let diagnosis = Diagnosis::of(&url(without.address()), &[]);
    diagnosis.expect("clock", "skipped", &[]);
    diagnosis.expect_good();
}

/// The head of an answer with another date.
fn dated(head: &str, date: &str) -> String {
    let line = |line: &str| match line.to_lowercase().starts_with("date:") {
        true => format!("date: {date}"),
        false => line.to_owned(),
    };
    head.split("\r\n").map(line).collect::<Vec<_>>().join("\r\n")
}

#[test]
fn two_servers_behind_one_address_that_are_no_cluster_fail_at_delivery() {
    let brokers = [Broker::start(), Broker::start()];
    let addresses = [brokers[0].address(), brokers[1].address()];
    let proxy = Proxy::to(&addresses, |head| Rule::Pass(head.to_owned()));
    let diagnosis = Diagnosis::of(&url(proxy.address()), &["--timeout-s", "1"]);
    diagnosis.expect_failure(
        "delivery",
        &["answered with 200", "do not share Redis", "redis.url and redis.prefix"],
    );
    diagnosis.expect("large_event", "skipped", &[]);
    diagnosis.expect("long_connection", "ok", &[]);
}

#[test]
fn sockets_and_calls_that_lead_to_different_servers_fail_at_delivery() {
    let (sockets, calls) = (Broker::start(), Broker::start());
    let split = by_path(sockets.address(), calls.address());
    let diagnosis = Diagnosis::of(&url(split.address()), &["--timeout-s", "1"]);
    diagnosis.expect_failure(
        "delivery",
        &["knows of no subscriber", "/app/ and /apps/ lead to different servers"],
    );
}

#[test]
fn servers_that_are_one_cluster_are_found_healthy_behind_one_address() {
    let redis = RedisServer::start();
    let settings = format!("redis.url = \"{}\"\n", redis.url());
    let brokers = [Broker::with(&settings), Broker::with(&settings)];
    let addresses = [brokers[0].address(), brokers[1].address()];
    let proxy = Proxy::to(&addresses, |head| Rule::Pass(head.to_owned()));
    Diagnosis::of(&url(proxy.address()), &[]).expect_good();
    // The same settings, looked at at home.
    let file = File::new(&format!("server.bind = \"{}\"\n{settings}", addresses[0]));
    let diagnosis = file.diagnosis(&[]);
    diagnosis.expect("redis", "ok", &["Redis 7", "does what is needed"]);
    diagnosis.expect_good();
}
