//! A network of its own for one node, so that it can be cut off from Redis while its clients stay.

use std::{
    io::Write,
    net::Ipv4Addr,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

use super::{Broker, Fleet};

/// A network namespace with two links to ours: one for clients and webhooks, one for Redis.
pub(crate) struct Island {
    name: String,
    number: u8,
}

/// One of its links.
#[derive(Clone, Copy)]
enum Link {
    /// Of clients, probes and webhooks.
    Clients,
    /// To Redis.
    Redis,
}

static NUMBERS: AtomicU8 = AtomicU8::new(1);

impl Island {
    /// Makes one, or says aloud why that cannot be.
    pub(crate) fn new() -> Option<Self> {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("fanfare-{}-{number}", std::process::id());
        if let Err(why) = ip(&["netns", "add", &name]) {
            let why = why.trim();
            // Not by a macro, whose output nobody would see.
            let _ = writeln!(std::io::stderr(), "!!! a node without a network skipped: {why} !!!");
            return None;
        }
        let island = Self { name, number };
        for link in [Link::Clients, Link::Redis] {
            island.connect(link);
        }
        Some(island)
    }

    fn connect(&self, link: Link) {
        let (ours, theirs, name) = (self.device(link, 'o'), self.device(link, 'i'), &self.name);
        let inside = ["-n", name];
        must(&["link", "add", &ours, "type", "veth", "peer", "name", &theirs, "netns", name]);
        must(&["address", "add", &format!("{}/30", self.host(link)), "dev", &ours]);
        must(&["link", "set", &ours, "up"]);
        let address = format!("{}/30", self.address(link));
        must(&[&inside[..], &["address", "add", &address, "dev", &theirs]].concat());
        must(&[&inside[..], &["link", "set", &theirs, "up"]].concat());
    }

    /// Where our side of the link for clients is. Webhooks are received here.
    pub(crate) fn clients_host(&self) -> Ipv4Addr {
        self.host(Link::Clients)
    }

    /// Where Redis must listen.
    pub(crate) fn redis_host(&self) -> Ipv4Addr {
        self.host(Link::Redis)
    }

    /// A node of this fleet that lives here and finds Redis at `redis`.
    pub(crate) fn node(&self, fleet: &Fleet, redis: &str) -> Broker {
        let (settings, app) = fleet.settings();
        let own = |line: &&str| !line.starts_with("redis.url") && !line.starts_with("metrics.bind");
        let settings: Vec<&str> = settings.lines().filter(own).collect();
        let address = self.address(Link::Clients);
        let settings =
            format!("{}\nredis.url = \"{redis}\"\nmetrics.bind = \"{address}:0\"\n", settings.join("\n"));
        let within = [&ip_program()[..], "netns", "exec", &self.name];
        Broker::within(&within, &format!("{address}:0"), &settings, app)
    }

    /// Cuts the link to Redis: what is sent gets lost, and no connection is told.
    pub(crate) fn cut(&self) {
        must(&["link", "set", &self.device(Link::Redis, 'o'), "down"]);
    }

    /// Mends it.
    pub(crate) fn mend(&self) {
        must(&["link", "set", &self.device(Link::Redis, 'o'), "up"]);
    }

    /// The name of a link's device; the kernel allows 15 characters.
    fn device(&self, link: Link, side: char) -> String {
        let link = match link {
            Link::Clients => 'c',
            Link::Redis => 'r',
        };
        format!("ff{}{link}{side}{}", std::process::id(), self.number)
    }

    fn host(&self, link: Link) -> Ipv4Addr {
        let [first, second, third, _] = self.network(link);
        Ipv4Addr::new(first, second, third, 1)
    }

    fn address(&self, link: Link) -> Ipv4Addr {
        let [first, second, third, _] = self.network(link);
        Ipv4Addr::new(first, second, third, 2)
    }

    /// Networks of 198.18.0.0/15, which is for tests of network devices and nobody's (RFC 2544).
    fn network(&self, link: Link) -> [u8; 4] {
        let second = match link {
            Link::Clients => 18,
            Link::Redis => 19,
        };
        [198, second, self.number, 0]
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        // Its side of the links goes with it, and so does ours.
        let _ = ip(&["netns", "delete", &self.name]);
        for link in [Link::Clients, Link::Redis] {
            let _ = ip(&["link", "delete", &self.device(link, 'o')]);
        }
    }
}

fn ip_program() -> String {
    let places = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"];
    places.into_iter().find(|place| Path::new(place).exists()).unwrap_or("ip").to_owned()
}

/// Runs `ip`; what it complains of is the error.
fn ip(arguments: &[&str]) -> Result<(), String> {
    let output =
        Command::new(ip_program()).args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[track_caller]
fn must(arguments: &[&str]) {
    ip(arguments).unwrap_or_else(|why| panic!("ip {arguments:?}: {why}"));
}
