//! The PROXY protocol, versions 1 and 2: for whom a proxy connects, said before anything else.
//!
//! Source: haproxy, "The PROXY protocol", versions 1 and 2.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use actix_rt::net::TcpStream;
use thiserror::Error;
use tokio::io::AsyncReadExt;

/// The longest header that is read: version 2 with all that proxies are known to add to it.
pub const HEADER_MAX: usize = 2048;

/// What a proxy says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// For whom it connects; none when it connects for itself, to see whether we are well.
    pub source: Option<IpAddr>,
    /// The client speaks TLS with it.
    pub tls: bool,
}

/// Bytes that are no header of the PROXY protocol.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("no header of the PROXY protocol, which the connections of trusted proxies begin with")]
pub struct Malformed;

const SIGNATURE_1: &[u8] = b"PROXY ";
const SIGNATURE_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header of version 1, its line end included.
const LINE_MAX: usize = 107;

/// The part of version 2 that says how long the rest is.
const FIXED: usize = 16;

/// Type of the field that tells of TLS, and the bit in it.
const FIELD_TLS: u8 = 0x20;
const CLIENT_TLS: u8 = 0x01;

/// Reads the header at the front of `bytes`, and gives its length. None if its end has not come.
///
/// # Errors
/// When there is none, or a longer one than we read.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let begins = |signature: &[u8]| bytes.iter().zip(signature).all(|(byte, expected)| byte == expected);
    if begins(SIGNATURE_1) {
        parse_line(bytes)
    } else if begins(SIGNATURE_2) {
        parse_binary(bytes)
    } else {
        Err(Malformed)
    }
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n`.
fn parse_line(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let line = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if line.len() < LINE_MAX { Ok(None) } else { Err(Malformed) };
    };
    let text = std::str::from_utf8(&line[..end]).map_err(|_| Malformed)?;
    let mut words = text.split(' ').skip(1);
    let source = match words.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => None,
        Some(family @ ("TCP4" | "TCP6")) => {
            let source: IpAddr = parsed(words.next())?;
            let destination: IpAddr = parsed(words.next())?;
            let _: u16 = parsed(words.next())?;
            let _: u16 = parsed(words.next())?;
            let right = source.is_ipv4() == (family == "TCP4") && destination.is_ipv4() == source.is_ipv4();
            if !right || words.next().is_some() {
                return Err(Malformed);
            }
            Some(source)
        }
        _ => return Err(Malformed),
    };
    Ok(Some((Header { source, tls: false }, end + 2)))
}

fn parsed<T: std::str::FromStr>(word: Option<&str>) -> Result<T, Malformed> {
    word.and_then(|word| word.parse().ok()).ok_or(Malformed)
}

/// Version 2: signature, command, family, length, addresses, fields.
fn parse_binary(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else { return Ok(None) };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > HEADER_MAX - FIXED {
        return Err(Malformed);
    }
    let for_client = match command {
        0x20 => false,
        0x21 => true,
        _ => return Err(Malformed),
    };
    let Some(rest) = rest.get(..length) else { return Ok(None) };
    let (source, fields) = match family >> 4 {
        1 => (Some(IpAddr::from(Ipv4Addr::from(first(rest)?))), rest.get(12..)),
        2 => (Some(IpAddr::from(Ipv6Addr::from(first(rest)?))), rest.get(36..)),
        // Not of the internet.
        3 => (None, rest.get(216..)),
        0 => (None, Some(&[][..])),
        _ => return Err(Malformed),
    };
    let tls = says_tls(fields.ok_or(Malformed)?);
    let header = if for_client { Header { source, tls } } else { Header { source: None, tls: false } };
    Ok(Some((header, FIXED + length)))
}

fn first<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Malformed> {
    bytes.first_chunk().copied().ok_or(Malformed)
}

/// Whether some field says that the client speaks TLS. A field is its type, its length and so many bytes.
fn says_tls(mut fields: &[u8]) -> bool {
    while let [kind, high, low, rest @ ..] = fields {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, others)) = rest.split_at_checked(length) else { return false };
        if *kind == FIELD_TLS {
            return value.first().is_some_and(|client| client & CLIENT_TLS != 0);
        }
        fields = others;
    }
    false
}

/// Reads the header off a connection, and nothing behind it. How long it may take is for the caller to say.
///
/// # Errors
/// When it does not come, or is none.
pub(super) async fn read(io: &mut TcpStream) -> io::Result<Header> {
    let mut bytes = [0; HEADER_MAX];
    let mut taken = 0;
    loop {
        // What is behind the header must stay where it is, so it is looked at first.
        let seen = io.peek(&mut bytes[taken..]).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match parse(&bytes[..taken + seen]) {
            Ok(Some((header, length))) => {
                io.read_exact(&mut bytes[taken..length]).await?;
                return Ok(header);
            }
            Ok(None) if taken + seen < HEADER_MAX => {
                io.read_exact(&mut bytes[taken..taken + seen]).await?;
                taken += seen;
            }
            Ok(None) | Err(Malformed) => return Err(io::Error::new(io::ErrorKind::InvalidData, Malformed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("a length").to_be_bytes();
        [SIGNATURE_2, &[command, family], &length, body].concat()
    }

    fn source(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Header) {
        let behind = [bytes, b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parse(&behind), Ok(Some((expected, bytes.len()))));
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "cut to {cut}");
        }
    }

    #[test]
    fn both_versions_are_read_whole_and_no_further() {
        let of = |text: &str| Header { source: source(text), tls: false };
        check(b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", of("192.0.2.1"));
        check(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", of("2001:db8::1"));
        let nobody = Header { source: None, tls: false };
        check(b"PROXY UNKNOWN\r\n", nobody);
        check(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", nobody);
        let four = [192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 1, 187];
        check(&binary(0x21, 0x11, &four), of("192.0.2.1"));
        check(&binary(0x20, 0x11, &four), nobody);
        check(&binary(0x20, 0x00, &[]), nobody);
        check(&binary(0x21, 0x31, &[0; 216]), nobody);
        let six = [&Ipv6Addr::from_bits(1 << 120).octets()[..], &[0; 20]].concat();
        check(&binary(0x21, 0x21, &six), of("100::"));
        let other = [4, 0, 2, 9, 9];
        let tls = [FIELD_TLS, 0, 5, CLIENT_TLS, 0, 0, 0, 0];
        check(
            &binary(0x21, 0x11, &[&four[..], &other, &tls].concat()),
            Header { source: source("192.0.2.1"), tls: true },
        );
        check(&binary(0x21, 0x11, &[&four[..], &[FIELD_TLS, 0, 1, 0]].concat()), of("192.0.2.1"));
        check(&binary(0x21, 0x11, &[&four[..], &[FIELD_TLS, 9, 9]].concat()), of("192.0.2.1"));
    }

    #[test]
    fn anything_else_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01",
            b"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            b"PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
            b"PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY \xff\r\n",
        ] {
            assert_eq!(parse(bytes), Err(Malformed), "{}", String::from_utf8_lossy(bytes));
        }
        let endless = [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat();
        assert_eq!(parse(&endless), Err(Malformed));
        assert_eq!(parse(&binary(0x31, 0x11, &[0; 12])), Err(Malformed));
        assert_eq!(parse(&binary(0x22, 0x11, &[0; 12])), Err(Malformed));
        assert_eq!(parse(&binary(0x21, 0x11, &[0; 11])), Err(Malformed));
        assert_eq!(parse(&binary(0x21, 0x21, &[0; 35])), Err(Malformed));
        assert_eq!(parse(&binary(0x21, 0x41, &[])), Err(Malformed));
        assert_eq!(parse(&binary(0x21, 0x11, &[0; HEADER_MAX])[..FIXED]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn strange_bytes_do_no_harm_and_a_header_is_read_alike_whatever_follows(
            signature in prop::sample::select(vec![&b""[..], SIGNATURE_1, b"PROXY TCP4 ", SIGNATURE_2]),
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            behind in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let bytes = [signature, &bytes].concat();
            if let Ok(Some((header, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len() && length <= HEADER_MAX);
                prop_assert_eq!(parse(&bytes[..length]), Ok(Some((header, length))));
                prop_assert_eq!(parse(&[&bytes[..length], &behind].concat()), Ok(Some((header, length))));
            }
        }
    }
}
