//! `nodes`: the cluster, as this node sees it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::admin::{Admin, Answer};
use crate::node::{ClusterStatus, Lease, Node};

/// `GET nodes`
pub(super) fn list(admin: &Admin) -> Answer {
    let status = admin.node.cluster_status();
    let is_clustered = status.is_some();
    Answer::ok(&answer(is_clustered, &status.unwrap_or_default()))
}

fn answer(is_clustered: bool, status: &ClusterStatus) -> Value {
    let mut leases: Vec<_> = status.nodes.iter().collect();
    leases.sort_unstable_by(|a, b| a.node.cmp(&b.node));
    let lease = |lease: &&Lease| {
        json!({
            "node": lease.node,
            "own": lease.node == status.node,
            "lease_left_ms": millis(lease.left),
        })
    };
    json!({
        "clustered": is_clustered,
        "node": name(status),
        "away_s": away_s(status),
        "trouble": status.trouble,
        "renewed_ms": status.renewed.map(|renewed| millis(renewed.elapsed())),
        "nodes": leases.iter().map(lease).collect::<Vec<_>>(),
    })
}

/// What the status of the node says of the cluster; null if there is none.
pub(super) fn summary(node: &Node) -> Value {
    node.cluster_status().map_or(Value::Null, |status| {
        json!({
            "node": name(&status),
            "nodes": status.nodes.len(),
            "away_s": away_s(&status),
            "trouble": status.trouble,
        })
    })
}

/// The node's own name; none before it has one.
fn name(status: &ClusterStatus) -> Option<&str> {
    (!status.node.is_empty()).then_some(&*status.node)
}

fn away_s(status: &ClusterStatus) -> Option<u64> {
    status.away_since.map(|since| since.elapsed().as_secs())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_a_cluster_says_so() {
        let answer = answer(false, &ClusterStatus::default());
        let expected = json!({
            "clustered": false, "node": null, "away_s": null, "trouble": null, "renewed_ms": null, "nodes": [],
        });
        assert_eq!(answer, expected);
    }

    #[test]
    fn nodes_come_by_name_and_this_one_is_marked() {
        let lease = |node: &str, seconds| Lease { node: node.to_owned(), left: Duration::from_secs(seconds) };
        let status = ClusterStatus {
            node: "b".to_owned(),
            nodes: vec![lease("c", 0), lease("b", 9), lease("a", 8)],
            ..ClusterStatus::default()
        };
        let expected = json!([
            { "node": "a", "own": false, "lease_left_ms": 8000 },
            { "node": "b", "own": true, "lease_left_ms": 9000 },
            { "node": "c", "own": false, "lease_left_ms": 0 },
        ]);
        assert_eq!(answer(true, &status)["nodes"], expected);
    }
}
