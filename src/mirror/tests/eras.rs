//! Another server has the state, and may lack the latest of it.

use super::*;

/// The place of a message of another era.
fn of_era(era: u64, seq: u64) -> Place {
    place(1, era << 44 | seq)
}

#[test]
fn what_another_server_counts_again_is_not_taken_for_what_was_heard() {
    let new = |seq| Arrival { place: of_era(3, seq), ..nth(1, seq) };
    let lacks = |missed, is_all| Snapshot { place: of_era(3, 6), missed, is_all, ..Snapshot::default() };
    let cases = [
        (lacks(vec![new(5), new(6)], true), Gap { healed: 2, lost: 0 }),
        (lacks(vec![new(6)], false), Gap { healed: 1, lost: 1 }),
        (lacks(vec![], true), Gap::default()),
        (lacks(vec![], false), Gap { healed: 0, lost: 1 }),
    ];
    for (snapshot, gap) in cases {
        let mut bench = bench();
        bench.open("news", "", at(1, 5));
        bench.arrives("news", nth(1, 6));
        bench.arrives("news", nth(1, 7));
        bench.mirror.deaf();
        bench.listening("news");
        assert_eq!(bench.wants(), ["0: e6", "0: e7", "look news since 1.7"]);
        let told: Vec<_> =
            snapshot.missed.iter().map(|new| format!("0: e{}", new.place.seq & 0xff)).collect();
        assert_eq!(bench.seen("news", snapshot), gap);
        assert_eq!(bench.wants(), told);
        bench.arrives("news", new(7));
        assert_eq!(bench.wants(), ["0: e7"]);
    }
    // Whoever hears of it first looks.
    let mut bench = bench();
    bench.open("news", "", at(1, 5));
    bench.arrives("news", new(5));
    assert_eq!(bench.wants(), ["look news since 1.5"]);
}
