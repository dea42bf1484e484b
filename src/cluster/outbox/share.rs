//! Whose turn it should be to take the facts of a partition: all nodes come to the same answer by themselves.
//!
//! Rendezvous hashing: a node that comes takes its share from all others, and one that goes leaves its share to all.

/// The node that should take the facts of a partition.
pub(super) fn preferred(partition: u8, live: &[String]) -> Option<&str> {
    live.iter().map(String::as_str).max_by_key(|node| (weight(partition, node), *node))
}

fn weight(partition: u8, node: &str) -> u64 {
    // FNV-1a: the same on every machine and in every version.
    let name = node.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(name ^ mix(u64::from(partition) + 1))
}

/// Every bit of the result depends on every bit that comes in (the finalizer of SplitMix64).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::PARTITIONS;

    fn nodes(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("node-{number}")).collect()
    }

    fn owners(live: &[String]) -> Vec<String> {
        (0..PARTITIONS).filter_map(|partition| preferred(partition, live)).map(str::to_owned).collect()
    }

    #[test]
    fn every_node_has_a_share_and_the_order_of_the_names_says_nothing() {
        let live = nodes(4);
        let mut backwards = live.clone();
        backwards.reverse();
        let owners = owners(&live);
        assert_eq!(owners, self::owners(&backwards));
        for node in &live {
            let share = owners.iter().filter(|owner| *owner == node).count();
            assert!((4..=32).contains(&share), "{node} has {share}");
        }
        assert_eq!(preferred(7, &[]), None);
    }

    #[test]
    fn who_goes_leaves_the_others_what_they_have() {
        let (before, after) = (owners(&nodes(4)), owners(&nodes(3)));
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || before == "node-3", "{before} had it, {after} has it now");
        }
    }
}
