//! How many connections each address has, and how fast it asks for more.
//!
//! An office, a household or a phone network shares an address of IPv4; of IPv6 everybody has at least one /64, which
//! therefore counts as one. What is kept is bounded: addresses with connections, and those of the last second.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::Ipv6Addr;
use std::time::Instant;

use crate::config::Server;
use crate::node::{Lock, hold};
use crate::protocol::CloseReason;

/// Enough that two threads seldom want the same one.
const SHARDS: usize = 16;

/// Entries of a shard before those that say nothing any more are looked for.
const SHARD_LEAST: usize = 64;

/// The limits of addresses. Without any, nothing is kept.
#[derive(Debug)]
pub(super) struct Addresses {
    connections_max: usize,
    handshakes_per_s: u32,
    shards: Box<[Lock<Shard>]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<u128, Entry>,
    /// How many entries make it worth looking for those that can go.
    sweep_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    open: usize,
    /// Attempts that may be made at once.
    tokens: f64,
    /// When there were that many.
    at: Instant,
}

impl Addresses {
    pub(super) fn new(settings: &Server) -> Self {
        Self::of(settings.address_connections_max, settings.address_handshakes_per_s)
    }

    fn of(connections_max: usize, handshakes_per_s: u32) -> Self {
        let limited = connections_max > 0 || handshakes_per_s > 0;
        let shards = if limited { SHARDS } else { 0 };
        let shards = (0..shards).map(|_| Lock::default()).collect();
        Self { connections_max, handshakes_per_s, shards, hasher: RandomState::new() }
    }

    /// Counts an attempt.
    pub(super) fn knock(&self, address: Ipv6Addr, now: Instant) -> Result<(), CloseReason> {
        if self.handshakes_per_s == 0 {
            return Ok(());
        }
        self.with(address, now, |entry| {
            if entry.tokens < 1.0 {
                return Err(CloseReason::AddressHandshakes);
            }
            entry.tokens -= 1.0;
            Ok(())
        })
    }

    /// Counts a connection.
    pub(super) fn enter(&self, address: Ipv6Addr, now: Instant) -> Result<(), CloseReason> {
        if self.connections_max == 0 {
            return Ok(());
        }
        self.with(address, now, |entry| {
            if entry.open >= self.connections_max {
                return Err(CloseReason::AddressConnections);
            }
            entry.open += 1;
            Ok(())
        })
    }

    /// A connection that was counted has ended.
    pub(super) fn leave(&self, address: Ipv6Addr) {
        if self.connections_max == 0 {
            return;
        }
        let network = network(address);
        let Some(shard) = self.shard(network) else { return };
        let mut shard = hold(shard);
        let Some(entry) = shard.entries.get_mut(&network) else { return };
        entry.open = entry.open.saturating_sub(1);
        if entry.open == 0 && self.handshakes_per_s == 0 {
            shard.entries.remove(&network);
        }
    }

    fn with<R>(&self, address: Ipv6Addr, now: Instant, judge: impl FnOnce(&mut Entry) -> R) -> R {
        let network = network(address);
        let burst = f64::from(self.handshakes_per_s);
        let fresh = Entry { open: 0, tokens: burst, at: now };
        let Some(shard) = self.shard(network) else { return judge(&mut fresh.clone()) };
        let mut shard = hold(shard);
        if shard.entries.len() >= shard.sweep_at {
            // Who has no connection and may make every attempt again is like one who was never here.
            shard.entries.retain(|_, entry| {
                entry.refill(burst, now);
                entry.open > 0 || entry.tokens < burst
            });
            shard.sweep_at = SHARD_LEAST.max(shard.entries.len() * 2);
        }
        let entry = shard.entries.entry(network).or_insert(fresh);
        entry.refill(burst, now);
        judge(entry)
    }

    fn shard(&self, network: u128) -> Option<&Lock<Shard>> {
        let hash = self.hasher.hash_one(network);
        self.shards.get(usize::try_from(hash % SHARDS as u64).unwrap_or_default())
    }
}

impl Entry {
    fn refill(&mut self, burst: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * burst).min(burst);
        self.at = self.at.max(now);
    }
}

/// What counts as one address: all of IPv4, of IPv6 the first half.
fn network(address: Ipv6Addr) -> u128 {
    match address.to_ipv4_mapped() {
        Some(_) => address.to_bits(),
        None => address.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(text: &str) -> Ipv6Addr {
        text.parse().expect("an address")
    }

    fn kept(addresses: &Addresses) -> usize {
        addresses.shards.iter().map(|shard| hold(shard).entries.len()).sum()
    }

    #[test]
    fn connections_are_counted_by_address_and_of_ipv6_by_the_first_half() {
        let addresses = Addresses::of(2, 0);
        let now = Instant::now();
        for (one, same, other) in [
            ("::ffff:192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.2"),
            ("2001:db8::1", "2001:db8::ffff:0:0:2", "2001:db8:0:1::1"),
        ] {
            addresses.enter(address(one), now).expect("the first");
            addresses.enter(address(same), now).expect("the second");
            assert_eq!(addresses.enter(address(one), now), Err(CloseReason::AddressConnections));
            addresses.enter(address(other), now).expect("somebody else");
            addresses.leave(address(same));
            addresses.enter(address(one), now).expect("the place is free");
            for gone in [one, one, other] {
                addresses.leave(address(gone));
            }
        }
        assert_eq!(kept(&addresses), 0);
    }

    #[test]
    fn attempts_come_back_with_time() {
        let addresses = Addresses::of(0, 4);
        let one = address("::ffff:192.0.2.1");
        let begin = Instant::now();
        for _ in 0..4 {
            addresses.knock(one, begin).expect("at once");
        }
        assert_eq!(addresses.knock(one, begin), Err(CloseReason::AddressHandshakes));
        let later = begin + Duration::from_millis(250);
        addresses.knock(one, later).expect("a quarter of a second is one of four");
        assert_eq!(addresses.knock(one, later), Err(CloseReason::AddressHandshakes));
        // A clock that another thread has read earlier gives nothing twice.
        assert_eq!(addresses.knock(one, begin), Err(CloseReason::AddressHandshakes));
    }

    #[test]
    fn who_was_here_long_ago_is_forgotten() {
        let addresses = Addresses::of(3, 1);
        let begin = Instant::now();
        addresses.enter(address("2001:db8:ffff::1"), begin).expect("a place");
        for second in 0..10_u32 {
            let now = begin + Duration::from_secs(2 * u64::from(second));
            for network in 0..10_000_u128 {
                let strange = Ipv6Addr::from_bits((u128::from(second) << 32 | network) << 64);
                addresses.knock(strange, now).expect("the first of its address");
            }
        }
        assert!(kept(&addresses) <= 20_001, "{}", kept(&addresses));
        assert_eq!(Addresses::of(0, 0).shards.len(), 0);
    }
}
