//! This machine: its limits, its ports, and the server that runs on it.

use std::net::TcpListener;
use std::process::Command;

use super::{Diagnosis, File, SECRETS};
use crate::support::{Broker, Finished, Process, until};

#[test]
fn a_server_that_runs_here_is_found_by_its_configuration() {
    let broker = Broker::with("metrics.bind = \"127.0.0.1:0\"");
    until("readiness", || {
        let mut http = crate::support::Http::connect(broker.metrics_address());
        http.send("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n");
        http.reply().status == 200
    });
    let (clients, metrics) = (broker.address(), broker.metrics_address());
    let file = File::new(&format!("server.bind = \"{clients}\"\nmetrics.bind = \"{metrics}\"\n"));
    let diagnosis = file.diagnosis(&[]);
    diagnosis.expect_good();
    let process = format!("fanfare (process {})", broker.pid());
    diagnosis.expect("port_clients", "ok", &[&clients.to_string(), &process]);
    diagnosis.expect("port_metrics", "ok", &[&process]);
    diagnosis.expect("ready", "ok", &[]);
    diagnosis.expect("file_limit", "ok", &["the running server"]);
    diagnosis.expect("clock", "ok", &[]);
    diagnosis.expect("redis", "skipped", &[]);
    diagnosis.expect("database", "skipped", &[]);
}

#[test]
fn a_server_that_does_not_run_fails_at_tcp() {
    let free = free();
    let diagnosis = File::new(&format!("server.bind = \"{free}\"")).diagnosis(&[]);
    diagnosis.expect("port_clients", "ok", &["is free"]);
    diagnosis.expect_failure("tcp", &["nothing listens", "fanfare serve --config"]);
}

fn free() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
}

#[test]
fn a_port_of_somebody_else_s_is_named_with_its_holder() {
    let mine = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = mine.local_addr().expect("an address");
    let diagnosis = File::new(&format!("server.bind = \"{address}\"")).diagnosis(&["--timeout-s", "1"]);
    let process = format!("(process {})", std::process::id());
    diagnosis
        .expect_failure("port_clients", &[&address.to_string(), &process, "set server.bind to another port"]);
}

#[test]
fn an_address_that_cannot_be_had_is_named() {
    let file = File::new("server.bind = \"192.0.2.1:6001\"\n");
    let diagnosis = file.diagnosis(&["--timeout-s", "1"]);
    diagnosis.expect_failure("port_clients", &["192.0.2.1:6001 cannot be had", "an address of this machine"]);
}

#[test]
fn a_port_that_the_running_server_does_not_have_is_a_warning() {
    let broker = Broker::start();
    let settings = format!("server.bind = \"{}\"\nmetrics.bind = \"{}\"\n", broker.address(), free());
    let diagnosis = File::new(&settings).diagnosis(&[]);
    diagnosis.expect("port_metrics", "warning", &["though a server runs", "another metrics.bind"]);
    diagnosis.expect_good();
}

#[test]
fn a_limit_of_open_files_that_does_not_do_is_named() {
    let free = free();
    let look = |limit: &str, settings: &str| {
        let file = File::new(&format!("server.bind = \"{free}\"\n{settings}"));
        limited(limit, &["doctor", "--json", "--config", file.path()])
    };
    let few = look("512", "");
    few.expect("file_limit", "warning", &["may open 512 files", "LimitNOFILE"]);
    let too_few = look("512", "server.connections_max = 500");
    too_few.expect_failure("file_limit", &["server.connections_max = 500", "--ulimit nofile"]);
}

/// Runs the binary with so many files.
#[track_caller]
fn limited(limit: &str, arguments: &[&str]) -> Diagnosis {
    let mut command = Command::new("sh");
    command.env_clear().args(["-c", "ulimit -n \"$1\"; shift; exec \"$@\"", "sh", limit]);
    command.arg(env!("CARGO_BIN_EXE_fanfare")).args(arguments);
    let Finished { code, stdout, stderr } = Process::spawn(command).finish();
    assert!(SECRETS.iter().all(|secret| !stdout.contains(secret)), "{stdout}");
    let report = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout} {stderr}"));
    Diagnosis { code, report }
}

#[test]
fn what_only_a_proxy_can_reach_is_left_to_its_address() {
    let free = free();
    let proxied = format!(
        "server.bind = \"{free}\"\nserver.proxy_protocol = true\nserver.trusted_proxies = [\"127.0.0.1\"]\n"
    );
    let diagnosis = File::new(&proxied).diagnosis(&[]);
    diagnosis.expect("upgrade", "skipped", &["server.proxy_protocol", "--url"]);
    assert_eq!(diagnosis.code, Some(0), "{diagnosis}");
    let summary = diagnosis.report["summary"].as_str().expect("a sentence");
    assert!(summary.starts_with("Nothing has failed, but whether events arrive was not seen"), "{summary}");
    let any = File::exactly("server.bind = \"127.0.0.1:0\"\nmetrics.bind = \"\"\n").diagnosis(&[]);
    any.expect("dns", "skipped", &["port 0"]);
    any.expect("credentials", "ok", &["the demo app's"]);
}
