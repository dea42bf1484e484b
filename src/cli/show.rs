//! Answers of the admin API, for people.

use serde_json::Value;

/// The answer as it came, indented.
pub(super) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

pub(super) fn status_text(status: &Value) -> String {
    let mut rows = vec![
        vec!["version".to_owned(), cell(&status["version"])],
        vec!["state".to_owned(), cell(&status["state"])],
        vec!["started".to_owned(), cell(&status["started"])],
        vec!["up".to_owned(), time(status["uptime_s"].as_u64().unwrap_or_default())],
    ];
    for (name, label) in [("clients", "clients on"), ("metrics", "metrics on"), ("admin", "admin API on")] {
        rows.push(vec![label.to_owned(), cell(&status["listening"][name])]);
    }
    if status["cluster"].is_object() {
        rows.push(vec!["cluster".to_owned(), cluster_text(&status["cluster"])]);
    }
    for name in ["apps", "connections", "channels", "subscriptions"] {
        rows.push(vec![name.to_owned(), cell(&status[name])]);
    }
    rows.push(vec!["memory".to_owned(), bytes(&status["resident_bytes"])]);
    let files = format!("{} of {}", cell(&status["open_files"]), cell(&status["open_files_max"]));
    rows.push(vec!["open files".to_owned(), files]);
    for worker in status["workers"].as_array().into_iter().flatten() {
        let waiting = bytes(&worker["mailbox_bytes"]);
        let (sockets, letters) = (cell(&worker["sockets"]), cell(&worker["mailbox_letters"]));
        let text = format!("{sockets} sockets, {letters} messages ({waiting}) waiting");
        rows.push(vec![format!("worker {}", cell(&worker["worker"])), text]);
    }
    table(&rows)
}

/// What a node says of its cluster, in a few words.
fn cluster_text(cluster: &Value) -> String {
    match cluster["away_s"].as_u64() {
        Some(away) => format!("Redis away for {}: {}", time(away), cell(&cluster["trouble"])),
        None => format!("{} nodes, this one is {}", cell(&cluster["nodes"]), cell(&cluster["node"])),
    }
}

pub(super) fn nodes_text(answer: &Value) -> String {
    if answer["clustered"] != true {
        return "No cluster: this node is all there is (redis.url is empty).\n".to_owned();
    }
    let mut rows = vec![["NODE", "LEASE LEFT", ""].map(str::to_owned).to_vec()];
    for node in answer["nodes"].as_array().into_iter().flatten() {
        let left_ms = node["lease_left_ms"].as_u64().unwrap_or_default();
        let left = format!("{}.{} s", left_ms / 1000, left_ms % 1000 / 100);
        let own = if node["own"] == true { "this one" } else { "" };
        rows.push(vec![cell(&node["node"]), left, own.to_owned()]);
    }
    let away = answer["away_s"]
        .as_u64()
        .map(|away| format!("Redis has been away for {}: {}\n", time(away), cell(&answer["trouble"])));
    table(&rows) + &away.unwrap_or_default()
}

pub(super) fn connections_text(connections: &[Value], next: Option<&str>) -> String {
    let heads = ["SOCKET ID", "APP", "USER", "WORKER", "OPEN", "CHANNELS", "OUTBOX"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for connection in connections {
        rows.push(vec![
            cell(&connection["socket_id"]),
            cell(&connection["app"]),
            cell(&connection["user"]),
            cell(&connection["worker"]),
            time(connection["connected_s"].as_u64().unwrap_or_default()),
            cell(&connection["subscriptions"]),
            bytes(&connection["outbox_bytes"]),
        ]);
    }
    let more = next.map(|next| format!("There are more: --after {next}, or --limit 0 for all.\n"));
    table(&rows) + &more.unwrap_or_default()
}

pub(super) fn connection_text(connection: &Value) -> String {
    let age = |name: &str| time(connection[name].as_u64().unwrap_or_default());
    let mut rows = vec![
        vec!["socket id".to_owned(), cell(&connection["socket_id"])],
        vec!["app".to_owned(), cell(&connection["app"])],
        vec!["user".to_owned(), cell(&connection["user"])],
        vec!["from".to_owned(), cell(&connection["remote_address"])],
        vec!["authorized".to_owned(), cell(&connection["authorized"])],
        vec!["worker".to_owned(), cell(&connection["worker"])],
        vec!["open for".to_owned(), age("connected_s")],
        vec!["last heard".to_owned(), format!("{} ago", age("last_heard_s"))],
        vec![
            "outbox".to_owned(),
            format!("{} frames, {}", cell(&connection["outbox_frames"]), bytes(&connection["outbox_bytes"])),
        ],
        vec!["watches".to_owned(), format!("{} users", cell(&connection["watching"]))],
        vec!["channels".to_owned(), cell(&connection["subscriptions"])],
    ];
    for channel in connection["channels"].as_array().into_iter().flatten() {
        let member = channel["user_id"].as_str().map(|id| format!(" as {}", plain(id))).unwrap_or_default();
        rows.push(vec![String::new(), cell(&channel["name"]) + &member]);
    }
    table(&rows)
}

pub(super) fn dead_letters_text(letters: &Value) -> String {
    let heads = ["ID", "APP", "ATTEMPTS", "URL", "ERROR"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for letter in letters["dead_letters"].as_array().into_iter().flatten() {
        rows.push(["id", "app", "attempts", "url", "error"].map(|name| cell(&letter[name])).to_vec());
    }
    let (shown, total) = (rows.len() - 1, cell(&letters["total"]));
    table(&rows) + &format!("{shown} of {total}.\n")
}

/// Columns as wide as their widest cell.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => plain(text),
        other => other.to_string(),
    }
}

/// A stranger's text must not steer a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn bytes(value: &Value) -> String {
    match value.as_u64() {
        None => "-".to_owned(),
        Some(bytes @ 0..1024) => format!("{bytes} B"),
        Some(bytes @ 1024..1_048_576) => format!("{} KiB", bytes / 1024),
        Some(bytes) => format!("{} MiB", bytes / 1_048_576),
    }
}

fn time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "bc"], ["def", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "a    bc\ndef\n");
    }

    #[test]
    fn a_text_of_a_stranger_steers_no_terminal() {
        assert_eq!(cell(&json!("a\u{1b}[2J")), "a\u{fffd}[2J");
    }

    #[test]
    fn nodes_are_listed_with_what_is_left_of_their_leases() {
        assert!(nodes_text(&json!({ "clustered": false, "nodes": [] })).starts_with("No cluster"));
        let node = |name: &str, own: bool| json!({ "node": name, "own": own, "lease_left_ms": 9_250 });
        let answer = json!({
            "clustered": true, "away_s": 61, "trouble": "connection refused", "nodes": [node("a", false), node("b", true)],
        });
        assert_eq!(
            nodes_text(&answer),
            "NODE  LEASE LEFT\na     9.2 s\nb     9.2 s       this one\nRedis has been away for 1 min: connection refused\n"
        );
    }

    #[test]
    fn times_and_sizes_are_read_at_a_glance() {
        assert_eq!([59, 60, 3661, 90_000].map(time), ["59 s", "1 min", "1 h 1 min", "1 d 1 h"]);
        assert_eq!([1, 2048, 5 << 20].map(|size| bytes(&json!(size))), ["1 B", "2 KiB", "5 MiB"]);
    }
}
