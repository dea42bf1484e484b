//! The same figures under soketi's names, so that dashboards made for it go on.
//!
//! Names, types, labels and words are those of soketi 1.6 (`prometheus-metrics-driver.ts`) and of what prom-client
//! adds by itself, as far as a process has it that is not Node.js. What soketi counts of its horizontal adapters is
//! left out: it has no figures there either while it runs alone.

use std::time::SystemTime;

use prometheus::proto::MetricFamily;

use crate::metrics::process::{Process, seconds};
use crate::metrics::registry::{Definition, Kind};
use crate::metrics::state::{OfApp, State, Tally};

const OF_APP: &[&str] = &["app_id", "port"];
const OF_PROCESS: &[&str] = &["port"];

const fn counter(name: &'static str, help: &'static str) -> Definition {
    Definition { name, kind: Kind::Counter, labels: OF_APP, help }
}

const fn of_process(name: &'static str, kind: Kind, help: &'static str) -> Definition {
    Definition { name, kind, labels: OF_PROCESS, help }
}

const CONNECTED: Definition = Definition {
    name: "soketi_connected",
    kind: Kind::Gauge,
    labels: OF_APP,
    help: "The number of currently connected sockets.",
};

/// What one counter of soketi is made of.
type Figure = fn(&Tally) -> f64;

const COUNTERS: [(Definition, Figure); 9] = [
    (counter("soketi_new_connections_total", "Total amount of soketi connection requests."), |tally| {
        tally.new_connections.value()
    }),
    (counter("soketi_new_disconnections_total", "Total amount of soketi disconnections."), |tally| {
        tally.new_disconnections.value()
    }),
    (counter("soketi_socket_received_bytes", "Total amount of bytes that soketi received."), |tally| {
        tally.socket_received_bytes.value()
    }),
    (counter("soketi_socket_transmitted_bytes", "Total amount of bytes that soketi transmitted."), |tally| {
        tally.socket_transmitted_bytes.value()
    }),
    (
        counter(
            "soketi_ws_messages_received_total",
            "The total amount of WS messages received from connections by the server.",
        ),
        |tally| tally.ws_messages_received.value(),
    ),
    (
        counter(
            "soketi_ws_messages_sent_total",
            "The total amount of WS messages sent to the connections from the server.",
        ),
        |tally| tally.ws_messages_sent.value(),
    ),
    (
        counter("soketi_http_received_bytes", "Total amount of bytes that soketi's REST API received."),
        |tally| tally.http_received_bytes.value(),
    ),
    (
        counter("soketi_http_transmitted_bytes", "Total amount of bytes that soketi's REST API sent back."),
        |tally| tally.http_transmitted_bytes.value(),
    ),
    (counter("soketi_http_calls_received_total", "Total amount of received REST API calls."), |tally| {
        tally.http_calls_received.value()
    }),
];

const PROCESS: [Definition; 8] = [
    of_process(
        "soketi_process_cpu_user_seconds_total",
        Kind::Counter,
        "Total user CPU time spent in seconds.",
    ),
    of_process(
        "soketi_process_cpu_system_seconds_total",
        Kind::Counter,
        "Total system CPU time spent in seconds.",
    ),
    of_process(
        "soketi_process_cpu_seconds_total",
        Kind::Counter,
        "Total user and system CPU time spent in seconds.",
    ),
    of_process(
        "soketi_process_start_time_seconds",
        Kind::Gauge,
        "Start time of the process since unix epoch in seconds.",
    ),
    of_process("soketi_process_resident_memory_bytes", Kind::Gauge, "Resident memory size in bytes."),
    of_process("soketi_process_virtual_memory_bytes", Kind::Gauge, "Virtual memory size in bytes."),
    of_process("soketi_process_open_fds", Kind::Gauge, "Number of open file descriptors."),
    of_process("soketi_process_max_fds", Kind::Gauge, "Maximum number of open file descriptors."),
];

/// Everything under soketi's names.
pub(super) fn definitions() -> impl Iterator<Item = Definition> {
    [CONNECTED].into_iter().chain(COUNTERS.map(|(definition, _)| definition)).chain(PROCESS)
}

/// `port` is the one that clients connect to.
pub(super) fn families(
    state: &State,
    process: &Process,
    started: SystemTime,
    port: u16,
) -> Vec<MetricFamily> {
    let by_app = |definition: &Definition, figure: &dyn Fn(&OfApp) -> f64| {
        let apps = state.apps.iter();
        definition.family(apps.map(|(label, app)| (vec![label.clone(), port.to_string()], figure(app))))
    };
    let (user, system) = (process.user.as_secs_f64(), process.system.as_secs_f64());
    let of_process = [
        user,
        system,
        user + system,
        seconds(started).floor(),
        process.resident_bytes as f64,
        process.virtual_bytes as f64,
        process.open_files as f64,
        process.open_files_max as f64,
    ];
    let mut families = vec![by_app(&CONNECTED, &|app| app.connections as f64)];
    families.extend(COUNTERS.iter().map(|(definition, figure)| {
        by_app(definition, &|app| app.tally.as_deref().map(figure).unwrap_or_default())
    }));
    let process = PROCESS.iter().zip(of_process);
    families.extend(process.map(|(definition, value)| definition.family([(vec![port.to_string()], value)])));
    families
}
