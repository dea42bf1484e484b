//! Who is at the other end: the peer itself, or the client that a trusted proxy names.

use std::net::{IpAddr, SocketAddr};

use actix_http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

/// What is known of a connection before its first request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Caller {
    /// The peer's address, or the one in the header of its PROXY protocol.
    address: IpAddr,
    /// Whether that address is one of a trusted proxy, which is believed in what it says of its clients.
    is_trusted: bool,
    /// Whether the client speaks TLS, with us or with a proxy that has said so.
    is_tls: bool,
}

/// Where a request is from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// It speaks TLS, with us or with a trusted proxy.
    pub is_tls: bool,
}

impl Caller {
    /// The peer of a socket.
    pub fn new(address: IpAddr, is_tls: bool, trusted: &[IpNet]) -> Self {
        let address = address.to_canonical();
        Self { address, is_trusted: is_among(trusted, address), is_tls }
    }

    /// Whether the peer is a trusted proxy.
    pub fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// The address so far, with a port that means nothing.
    pub(crate) fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, 0)
    }

    /// Who sends a request with these headers. They count only if they come from a trusted proxy.
    pub fn client(&self, headers: &HeaderMap, trusted: &[IpNet]) -> Client {
        if !self.is_trusted {
            return Client { address: self.address, is_tls: self.is_tls };
        }
        let forwarded_for = lines(headers, header::X_FORWARDED_FOR);
        let address = walk(self.address, forwarded_for.as_deref(), trusted);
        let proto = lines(headers, header::X_FORWARDED_PROTO);
        Client { address, is_tls: self.is_tls || is_secure(proto.as_deref()) }
    }
}

fn is_among(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// All lines of a header in one, as they would be in one line. None if there are none.
fn lines(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    // Of what is no text only those bytes are lost: a client who writes some must not take along what proxies add.
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let lines: Vec<String> = headers.get_all(name).map(text).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}

/// Goes from the nearest proxy towards the client, as long as each that is named is trusted itself. What is further
/// away may be invented; what is no address ends the way at the last that is one.
fn walk(peer: IpAddr, forwarded_for: Option<&str>, trusted: &[IpNet]) -> IpAddr {
    let mut nearest = peer;
    for entry in forwarded_for.into_iter().flat_map(|list| list.rsplit(',')) {
        let Some(address) = address(entry.trim()) else { break };
        nearest = address;
        if !is_among(trusted, address) {
            break;
        }
    }
    nearest
}

/// An address, which some proxies write with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let alone = bare.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    alone.or_else(with_port).map(|address| address.to_canonical())
}

/// Whether every proxy on the way was spoken to with TLS.
fn is_secure(proto: Option<&str>) -> bool {
    let secure = |scheme: &str| ["https", "wss"].iter().any(|name| scheme.trim().eq_ignore_ascii_case(name));
    proto.is_some_and(|list| list.split(',').all(secure))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trusted() -> Vec<IpNet> {
        ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().expect("a network")).into()
    }

    fn client(peer: &str, headers: &[(HeaderName, &'static str)]) -> (String, bool) {
        let trusted = trusted();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.clone(), HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        let caller = Caller::new(peer.parse().expect("an address"), false, &trusted);
        let Client { address, is_tls } = caller.client(&map, &trusted);
        (address.to_string(), is_tls)
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let headers = [(header::X_FORWARDED_FOR, "192.0.2.1"), (header::X_FORWARDED_PROTO, "https")];
        assert_eq!(client("198.51.100.1", &headers), ("198.51.100.1".into(), false));
        assert_eq!(client("10.1.1.1", &headers), ("192.0.2.1".into(), true));
        assert_eq!(client("::ffff:10.1.1.1", &headers), ("192.0.2.1".into(), true));
        assert_eq!(client("2001:db8::7", &headers), ("192.0.2.1".into(), true));
        assert_eq!(client("10.1.1.1", &[]), ("10.1.1.1".into(), false));
    }

    #[test]
    fn the_way_leads_to_the_first_who_is_not_trusted() {
        let check = |value: &'static str, expected: &str| {
            assert_eq!(client("10.0.0.1", &[(header::X_FORWARDED_FOR, value)]).0, expected, "{value}");
        };
        check("192.0.2.66, 192.0.2.1, 10.0.0.3", "192.0.2.1");
        check("10.0.0.4, 10.0.0.3", "10.0.0.4");
        check("192.0.2.1:4711, [2001:db8::9]:80 , [2001:db8::8],10.0.0.3", "192.0.2.1");
        check("::ffff:192.0.2.1", "192.0.2.1");
        check("192.0.2.1, unknown, 10.0.0.3", "10.0.0.3");
        check("192.0.2.1, , 10.0.0.3", "10.0.0.3");
        check("192.0.2.1, unknown", "10.0.0.1");
        check("", "10.0.0.1");
        check("\u{e9}, 192.0.2.1", "192.0.2.1");
        let two = [(header::X_FORWARDED_FOR, "192.0.2.66"), (header::X_FORWARDED_FOR, "192.0.2.1, 10.0.0.3")];
        assert_eq!(client("10.0.0.1", &two).0, "192.0.2.1");
    }

    #[test]
    fn tls_counts_only_all_the_way() {
        for (value, expected) in [
            ("https", true),
            ("HTTPS", true),
            ("wss", true),
            ("http", false),
            ("https, http", false),
            ("", false),
        ] {
            assert_eq!(client("10.0.0.1", &[(header::X_FORWARDED_PROTO, value)]).1, expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_writes_in_front_changes_nothing(text in "[ -~]{0,60}") {
            let list = format!("{text},192.0.2.1, 10.0.0.3");
            let found = walk("10.0.0.1".parse().expect("an address"), Some(&list), &trusted());
            prop_assert_eq!(found.to_string(), "192.0.2.1");
        }
    }
}
