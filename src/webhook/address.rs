//! Which addresses may be posted to: public ones, and those an operator has allowed.
//!
//! Whoever writes an app's settings chooses its URLs. They must not become a way into the operator's network or to
//! the credentials that clouds hand out on addresses of their own, so an address is judged when connecting, whatever
//! name has led to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;

/// IPv4 networks that are not public (IANA, "IPv4 Special-Purpose Address Registry"), and where clouds keep metadata.
const CLOSED_V4: [(Ipv4Addr, u8); 17] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10), // also Alibaba's metadata
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's, though its network is public
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // everybody else's
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24), // also Oracle's
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// IPv6 networks inside 2000::/3 that are not public; outside of it none is.
const CLOSED_V6: [(Ipv6Addr, u8); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocols, Teredo among them
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// An address that must not be posted to.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "{0} is not a public address; if receivers may be there, add its network to webhooks.allowed_networks"
)]
pub(super) struct Refused(pub(super) IpAddr);

/// Who may be posted to. Also the resolver of the HTTP client, so that no name gets around it.
#[derive(Clone, Debug)]
pub(super) struct Permitted(Arc<[IpNet]>);

impl Permitted {
    /// All public addresses and these networks.
    pub(super) fn new(allowed: &[IpNet]) -> Self {
        Self(allowed.into())
    }

    /// Judges an address.
    pub(super) fn check(&self, address: IpAddr) -> Result<(), Refused> {
        let meant = meant_by(address);
        let allowed = |address| self.0.iter().any(|network| network.contains(&address));
        if is_public(meant) || allowed(address) || allowed(meant) { Ok(()) } else { Err(Refused(meant)) }
    }

    /// Judges a URL that names an address: no resolver is asked then.
    pub(super) fn check_url(&self, url: &Url) -> Result<(), Refused> {
        let host = url.host_str().unwrap_or_default();
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        literal.parse().map_or(Ok(()), |address| self.check(address))
    }
}

impl Resolve for Permitted {
    fn resolve(&self, name: Name) -> Resolving {
        let permitted = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let (good, bad): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|found| permitted.check(found.ip()).is_ok());
            match bad.first() {
                Some(refused) if good.is_empty() => Err(Refused(meant_by(refused.ip())).into()),
                _ => Ok(Box::new(good.into_iter()) as Addrs),
            }
        })
    }
}

/// The address that is reached in the end: IPv4 can be wrapped into IPv6.
fn meant_by(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) => v4(g, h),                             // mapped
        (0, 0, 0, 0, 0, 0) if !matches!((g, h), (0, 0 | 1)) => v4(g, h), // compatible
        (0x64, 0xff9b, 0, 0, 0, 0) => v4(g, h),                          // NAT64
        (0x2002, high, low, ..) => v4(high, low),                        // 6to4
        _ => address,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !CLOSED_V4.iter().any(|(network, bits)| {
            let mask = u32::MAX << (32 - u32::from(*bits));
            v4.to_bits() & mask == network.to_bits()
        }),
        IpAddr::V6(v6) => {
            let closed = CLOSED_V6.iter().any(|(network, bits)| {
                let mask = u128::MAX << (128 - u32::from(*bits));
                v6.to_bits() & mask == network.to_bits()
            });
            v6.segments()[0] & 0xe000 == 0x2000 && !closed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &[&str], address: &str) -> Result<(), Refused> {
        let allowed: Vec<IpNet> = allowed.iter().map(|text| text.parse().expect("a network")).collect();
        Permitted::new(&allowed).check(address.parse().expect("an address"))
    }

    #[test]
    fn public_addresses_are_good() {
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "172.15.255.255",
            "172.32.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::200e",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ] {
            assert_eq!(check(&[], address), Ok(()), "{address}");
        }
    }

    #[test]
    fn addresses_of_inner_networks_are_refused_in_every_form() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(check(&[], address).is_err(), "{address}");
        }
    }

    #[test]
    fn an_allowed_network_is_good_and_no_other() {
        assert_eq!(check(&["10.1.0.0/16"], "10.1.2.3"), Ok(()));
        assert_eq!(check(&["10.1.0.0/16"], "::ffff:10.1.2.3"), Ok(()));
        assert_eq!(check(&["fd00::/8"], "fd12::1"), Ok(()));
        assert!(check(&["10.1.0.0/16"], "10.2.0.1").is_err());
        assert!(check(&["10.1.0.0/16"], "64:ff9b::10.2.0.1").is_err());
        let refused = check(&[], "::ffff:127.0.0.1").expect_err("refused").to_string();
        assert!(refused.starts_with("127.0.0.1 is not") && refused.contains("webhooks.allowed_networks"));
    }

    #[test]
    fn a_url_cannot_hide_an_address() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1:80/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://[::1]:9/",
            "http://[::ffff:127.0.0.1]/",
            "http://user@169.254.169.254/",
            "http://１２７.0.0.1/",
        ] {
            let parsed = Url::parse(url).expect("a URL");
            assert!(Permitted::new(&[]).check_url(&parsed).is_err(), "{url}");
        }
        let name = Url::parse("https://app.example/hook").expect("a URL");
        assert_eq!(Permitted::new(&[]).check_url(&name), Ok(()));
    }
}
