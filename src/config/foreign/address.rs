//! Address and port, which others say apart.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::foreign::Leaf;
use crate::config::foreign::unit::plain;

/// A host, a port or both for a setting that takes them together.
#[derive(Clone, Debug)]
pub(in crate::config) struct Address {
    /// Who said so.
    pub(in crate::config) place: String,
    pub(in crate::config) key: &'static str,
    pub(in crate::config) ip: Option<IpAddr>,
    pub(in crate::config) port: Option<u16>,
}

impl Address {
    /// The whole address; what was not said stays as it is.
    pub(in crate::config) fn complete(&self, before: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.ip.unwrap_or(before.ip()), self.port.unwrap_or(before.port()))
    }
}

/// An address, as far as it is known.
#[derive(Default)]
pub(super) struct Parts {
    ip: Option<(String, IpAddr)>,
    port: Option<(String, u16)>,
}

impl Parts {
    pub(super) fn take(&mut self, host: bool, leaf: &Leaf) -> Result<(), String> {
        let text = plain(&leaf.value).unwrap_or_default();
        if host {
            let ip =
                ip(&text).ok_or("bad value: expected an address to listen on, as in 0.0.0.0 or 127.0.0.1")?;
            self.ip = Some((leaf.place.clone(), ip));
        } else {
            let port = text.parse().map_err(|_| "bad value: expected a port, from 0 to 65535")?;
            self.port = Some((leaf.place.clone(), port));
        }
        Ok(())
    }

    pub(super) fn has_host(&self) -> bool {
        self.ip.is_some()
    }

    /// What is known, for this setting, and who said it.
    pub(super) fn address(&self, key: &'static str) -> Option<Address> {
        let ip = self.ip.as_ref().map(|(place, _)| &**place);
        let port = self.port.as_ref().map(|(place, _)| &**place);
        let places: Vec<&str> = ip.into_iter().chain(port).collect();
        (!places.is_empty()).then(|| Address {
            place: places.join(", "),
            key,
            ip: self.ip.as_ref().map(|(_, ip)| *ip),
            port: self.port.as_ref().map(|(_, port)| *port),
        })
    }
}

/// An address to listen on.
fn ip(text: &str) -> Option<IpAddr> {
    if text == "localhost" {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.trim_start_matches('[').trim_end_matches(']').parse().ok()
}
