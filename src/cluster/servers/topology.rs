//! Which server has what: slots, their masters, and the answers in which servers tell so.

use std::fmt;
use std::rc::Rc;

use deadpool_redis::redis::Value;

use crate::cluster::servers::error::Trouble;
use crate::cluster::servers::resp::Greeting;

/// Where a server is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Address {
    /// A name, or an address of IPv4 or IPv6 without brackets.
    pub(super) host: Rc<str>,
    /// Of TCP.
    pub(super) port: u16,
}

/// Which master has which slot. One server has them all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Topology {
    /// It is a Redis Cluster.
    pub(super) is_sharded: bool,
    masters: Vec<Address>,
    /// For each slot an index of `masters`, or [`NOBODY`].
    owners: Box<[u16]>,
}

/// Where a command should have gone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Redirect {
    /// Which slot it is about.
    pub(super) slot: u16,
    /// Who has it.
    pub(super) address: Address,
}

/// The slots of a Redis Cluster.
const SLOTS: u16 = 16384;

const NOBODY: u16 = u16::MAX;

/// The slot of a key or a topic: of what stands in its first braces, if something does.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|&byte| byte == b'}').filter(|&end| end > 0).map(|end| &rest[..end])
    });
    // CRC16 as of XMODEM: what comes in first is the highest bit.
    let crc =
        tag.unwrap_or(key).iter().fold(0_u16, |crc, &byte| {
            (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
            })
        });
    crc % SLOTS
}

impl Topology {
    /// One master for everything.
    pub(super) fn single(master: Address) -> Self {
        Self { is_sharded: false, masters: vec![master], owners: vec![0; usize::from(SLOTS)].into() }
    }

    /// The answer to `CLUSTER SLOTS` of the server at `asked`; none if it makes no sense.
    pub(super) fn sharded(slots: &Value, asked: &Address) -> Option<Self> {
        let mut topology =
            Self { is_sharded: true, masters: Vec::new(), owners: vec![NOBODY; usize::from(SLOTS)].into() };
        let Value::Array(ranges) = slots else { return None };
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &range[..] else {
                return None;
            };
            // A server that does not know how it is called says `?`: others do, or will.
            let Some(master) = address(master, asked) else { continue };
            let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
            (first..=last.min(SLOTS - 1)).for_each(|slot| topology.set(slot, &master));
        }
        (!topology.masters.is_empty()).then_some(topology)
    }

    /// Who has a slot; none if nobody has.
    pub(super) fn master(&self, slot: u16) -> Option<&Address> {
        self.masters.get(usize::from(self.owners[usize::from(slot % SLOTS)]))
    }

    /// All that have slots.
    pub(super) fn masters(&self) -> impl Iterator<Item = &Address> {
        self.masters.iter()
    }

    /// Gives a slot to a master.
    pub(super) fn set(&mut self, slot: u16, master: &Address) {
        let known = self.masters.iter().position(|it| it == master);
        let index = known.unwrap_or_else(|| {
            self.masters.push(master.clone());
            self.masters.len() - 1
        });
        self.owners[usize::from(slot % SLOTS)] = u16::try_from(index).unwrap_or(NOBODY);
    }
}

impl Redirect {
    /// What stands behind `MOVED` or `ASK`: `3999 127.0.0.1:6381`, of the server at `asked`.
    pub(super) fn parse(text: &str, asked: &Address) -> Option<Self> {
        let (slot, place) = text.split_once(' ')?;
        let (host, port) = place.trim_end().rsplit_once(':')?;
        let host = match host {
            "?" => return None,
            "" => asked.host.clone(),
            host => host.into(),
        };
        Some(Self { slot: slot.parse().ok()?, address: Address { host, port: port.parse().ok()? } })
    }
}

impl Greeting {
    /// The answer to `HELLO`; none if it is none.
    pub(super) fn of(value: &Value) -> Option<Self> {
        let Value::Map(pairs) = value else { return None };
        let find = |name: &str| {
            pairs.iter().find_map(|(key, value)| (text(key)? == name).then_some(text(value)).flatten())
        };
        let [mode, version] = [find("mode")?, find("version")?].map(str::to_owned);
        // A Sentinel has no role.
        Some(Self { mode, is_master: find("role") == Some("master"), version })
    }

    /// Whether it is of a Redis Cluster.
    pub(super) fn is_sharded(&self) -> bool {
        self.mode == "cluster"
    }

    /// Whether it is of a Sentinel.
    pub(super) fn is_sentinel(&self) -> bool {
        self.mode == "sentinel"
    }

    /// Whether the server can be used at all.
    pub(super) fn check(&self, at: &Address) -> Result<(), Trouble> {
        let refused = |why: &str| Err(Trouble::Refused(format!("{at}: {why}")));
        if self.is_sentinel() {
            return refused(
                "a Sentinel: name it in redis.sentinels, and its master in redis.url, redis://mymaster",
            );
        }
        if self.is_new_enough() { Ok(()) } else { refused("Redis 7 or Valkey is needed") }
    }

    /// Whether it is of a version that has all that is needed. One that cannot be read is not refused.
    fn is_new_enough(&self) -> bool {
        let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        major.is_none_or(|major| major >= 7)
    }
}

/// The answer of a Sentinel to the question where the master is; none if it makes no sense.
pub(super) fn sentinel_answer(value: &Value) -> Option<Address> {
    let Value::Array(parts) = value else { return None };
    let [host, port] = &parts[..] else { return None };
    Some(Address { host: text(host)?.into(), port: text(port)?.parse().ok()? })
}

/// The master's part of a range in the answer to `CLUSTER SLOTS`.
fn address(parts: &[Value], asked: &Address) -> Option<Address> {
    let [host, Value::Int(port), ..] = parts else { return None };
    let host = match text(host) {
        // Whatever the asked one is called from here.
        None | Some("") => asked.host.clone(),
        Some("?") => {
            let more = match parts.get(3)? {
                Value::Array(more) => more.chunks(2).map(|pair| (&pair[0], pair.get(1))).collect::<Vec<_>>(),
                Value::Map(more) => more.iter().map(|(name, value)| (name, Some(value))).collect(),
                _ => return None,
            };
            let ip = more.into_iter().find(|(name, _)| text(name) == Some("ip"))?;
            text(ip.1?)?.into()
        }
        Some(host) => host.into(),
    };
    Some(Address { host, port: u16::try_from(*port).ok()? })
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.into(), port }
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn range(first: i64, last: i64, master: Vec<Value>) -> Value {
        Value::Array(vec![Value::Int(first), Value::Int(last), Value::Array(master)])
    }

    #[test]
    fn a_slot_is_the_checksum_of_what_stands_in_braces() {
        let check = |key: &str, slot| assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        check("123456789", 12739);
        check("", 0);
        check("foo", 12182);
        check("fanfare:{foo}:nodes", 12182);
        check("{foo}{bar}", 12182);
        check("foo{}{bar}", slot_of(b"foo{}{bar}"));
        assert_ne!(slot_of(b"foo{}{bar}"), slot_of(b"bar"));
        check("{{foo}", slot_of(b"{foo"));
        check("{foo", slot_of(b"{foo"));
    }

    #[test]
    fn one_server_has_all_slots() {
        let topology = Topology::single(at("h", 1));
        assert_eq!(topology.master(0), Some(&at("h", 1)));
        assert_eq!(topology.master(16383), Some(&at("h", 1)));
        assert!(!topology.is_sharded);
    }

    #[test]
    fn slots_have_the_masters_that_a_server_tells() {
        let asked = at("asked", 7);
        let metadata = Value::Array(vec![bulk("ip"), bulk("10.0.0.9")]);
        let ranges = Value::Array(vec![
            range(0, 99, vec![bulk("10.0.0.1"), Value::Int(1), bulk("id")]),
            range(100, 199, vec![Value::Nil, Value::Int(2), bulk("id")]),
            range(200, 299, vec![bulk(""), Value::Int(3), bulk("id")]),
            range(300, 399, vec![bulk("?"), Value::Int(4), bulk("id"), metadata]),
            range(400, 499, vec![bulk("?"), Value::Int(4), bulk("id"), Value::Array(vec![])]),
            range(500, 16383, vec![bulk("10.0.0.1"), Value::Int(1), bulk("id")]),
        ]);
        let topology = Topology::sharded(&ranges, &asked).expect("an answer that makes sense");
        let masters: Vec<String> = [0, 100, 299, 300, 400, 500]
            .map(|slot| topology.master(slot).map_or("-".into(), Address::to_string))
            .into();
        assert_eq!(masters, ["10.0.0.1:1", "asked:2", "asked:3", "10.0.0.9:4", "-", "10.0.0.1:1"]);
        assert_eq!(topology.masters().count(), 4);
        assert_eq!(Topology::sharded(&Value::Array(vec![]), &asked), None);
        assert_eq!(Topology::sharded(&Value::Int(1), &asked), None);
    }

    #[test]
    fn a_redirect_names_a_slot_and_its_master() {
        let check = |text: &str, expected: Option<(u16, &str, u16)>| {
            let expected = expected.map(|(slot, host, port)| Redirect { slot, address: at(host, port) });
            assert_eq!(Redirect::parse(text, &at("asked", 1)), expected, "{text}");
        };
        check("3999 127.0.0.1:6381", Some((3999, "127.0.0.1", 6381)));
        check("3999 ::1:6381", Some((3999, "::1", 6381)));
        check("3999 redis-1.local:6381", Some((3999, "redis-1.local", 6381)));
        check("3999 :6381", Some((3999, "asked", 6381)));
        check("3999 ?:6381", None);
        check("3999", None);
    }

    #[test]
    fn addresses_are_shown_as_they_are_written() {
        assert_eq!(at("redis", 6379).to_string(), "redis:6379");
        assert_eq!(at("::1", 6379).to_string(), "[::1]:6379");
    }

    #[test]
    fn versions_from_7_on_will_do() {
        let check = |version: &str, will_do: bool| {
            let greeting = Greeting { version: version.into(), ..Greeting::default() };
            assert_eq!(greeting.is_new_enough(), will_do, "{version}");
        };
        check("7.0.15", true);
        check("8.1", true);
        check("6.2.14", false);
        check("255.255.255", true);
        check("unknown", true);
    }
}
