//! The load of the other stories, on a node that is all there is.

use std::time::Instant;

use crate::support::{Fleet, Load};

#[test]
fn a_node_of_its_own_stands_up_to_the_load_of_a_cluster() {
    let fleet = Fleet::alone();
    let mut load = Load::begin(&fleet);
    load.go_on(&fleet, 200);
    let summary = load.finish(&fleet, Instant::now());
    let exceptions = (summary.refused, summary.unknown, summary.dropped, summary.redeliveries);
    assert_eq!(exceptions, (0, 0, 0, 0), "{summary:?}");
    assert!(summary.accepted >= 230 && summary.delivered >= 460, "{summary:?}");
}
