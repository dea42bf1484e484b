//! Proxies in front of the broker: whom it believes, and what it counts by address.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::Command,
};

use crate::support::{
    Api, Broker, Client, Http, Identity, JS_PATH, KEY, Process, RawSocket, SECRET, until, upgrade_request,
};

const TRUSTED: &str = "server.trusted_proxies = [\"127.0.0.0/8\"]\n";

/// A client that a proxy brings along.
#[track_caller]
fn brought(broker: &Broker, address: &str) -> Client {
    Client::dial_with(broker.api(), JS_PATH, &[("X-Forwarded-For", address)])
}

#[test]
fn p3_an_app_for_tls_only_is_served_behind_a_trusted_proxy_that_speaks_tls() {
    let broker = Broker::of(TRUSTED, "tls_only = true");
    let mut client = Client::dial_with(broker.api(), JS_PATH, &[("X-Forwarded-Proto", "https")]);
    client.established();
    client.expect_served();
    Client::dial_with(broker.api(), JS_PATH, &[("X-Forwarded-Proto", "http")]).expect_end_with(4000);
    broker.refused(JS_PATH, 4000);
}

#[test]
fn p3_a_stranger_is_not_believed_to_be_a_proxy() {
    for settings in ["", "server.trusted_proxies = [\"10.0.0.0/8\"]"] {
        let broker = Broker::of(settings, "tls_only = true");
        Client::dial_with(broker.api(), JS_PATH, &[("X-Forwarded-Proto", "https")]).expect_end_with(4000);
    }
}

#[test]
fn connections_are_limited_by_the_address_that_a_trusted_proxy_names() {
    let broker =
        Broker::with(&format!("{TRUSTED}server.address_connections_max = 2\nmetrics.bind = \"127.0.0.1:0\""));
    let mut two = [brought(&broker, "192.0.2.1"), brought(&broker, "203.0.113.9, 192.0.2.1, 127.0.0.7")];
    two.iter_mut().for_each(Client::established);
    let told = brought(&broker, "192.0.2.1").expect_end_with(4100);
    assert_eq!(told, "Over capacity: too many connections from your address");
    // Everybody else, and of IPv6 a whole /64 as one.
    brought(&broker, "192.0.2.2").established();
    let mut six = Vec::new();
    for address in ["2001:db8::1", "2001:db8::2"] {
        six.push(brought(&broker, address));
    }
    six.iter_mut().for_each(Client::established);
    brought(&broker, "2001:db8::3").expect_end_with(4100);
    brought(&broker, "2001:db8:0:1::3").established();
    let page = broker.metrics();
    let counted = "fanfare_connections_refused_total{code=\"4100\",reason=\"address_connections\"} 2\n";
    assert!(page.contains(counted), "{page}");
}

#[test]
fn a_place_of_an_address_is_free_again_after_its_connection() {
    let broker = Broker::with("server.address_connections_max = 1");
    let client = broker.connect();
    // A stranger's word changes nothing.
    brought(&broker, "192.0.2.1").expect_end_with(4100);
    client.leave();
    until("a free place", || {
        Client::dial(broker.api(), JS_PATH).next()["event"] == "pusher:connection_established"
    });
}

#[test]
fn attempts_of_one_address_are_limited_and_come_back() {
    let broker = Broker::with(&format!("{TRUSTED}server.address_handshakes_per_s = 1"));
    let mut refused = None;
    // Not more than one a second is let in, however slow this machine is.
    for _ in 0..100 {
        let mut client = brought(&broker, "192.0.2.1");
        let frame = client.next();
        if frame["event"] == "pusher:error" {
            refused = Some(frame);
            break;
        }
    }
    let refused = refused.expect("100 attempts in 100 seconds at least");
    assert_eq!(refused["data"]["code"], 4100);
    let told = "Over capacity: too many connection attempts from your address, wait before the next one";
    assert_eq!(refused["data"]["message"], told);
    brought(&broker, "192.0.2.2").established();
    until("another attempt", || {
        brought(&broker, "192.0.2.1").next()["event"] == "pusher:connection_established"
    });
}

/// Sends a header of the PROXY protocol and an upgrade, and gives the connection.
#[track_caller]
fn proxied(broker: &Broker, header: &[u8]) -> RawSocket {
    let mut socket = RawSocket::tcp(broker.address());
    socket.send_bytes(&[header, upgrade_request(JS_PATH, "").as_bytes()].concat());
    socket
}

#[track_caller]
fn expect_let_in(socket: &mut RawSocket) {
    assert!(socket.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(socket.expect_json()["event"], "pusher:connection_established");
    socket.expect_served();
}

/// Version 2, for a client of IPv4.
fn header_2(command: u8, source: [u8; 4], fields: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + fields.len()).expect("a length").to_be_bytes();
    let addresses = [&source[..], &[127, 0, 0, 1, 0, 1, 0, 2]].concat();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, 0x11][..], &length, &addresses, fields].concat()
}

#[test]
fn a_header_of_the_proxy_protocol_names_the_client() {
    let broker =
        Broker::with(&format!("{TRUSTED}server.proxy_protocol = true\nserver.address_connections_max = 1"));
    let mut first = proxied(&broker, b"PROXY TCP4 192.0.2.1 127.0.0.1 40000 443\r\n");
    expect_let_in(&mut first);
    let mut same = proxied(&broker, &header_2(0x21, [192, 0, 2, 1], &[]));
    same.read_head();
    assert_eq!(same.expect_error().0, 4100);
    let mut other = proxied(&broker, &header_2(0x21, [192, 0, 2, 2], &[4, 0, 1, 9]));
    expect_let_in(&mut other);
    // The proxy's own, to see whether we are well.
    let mut local = proxied(&broker, &header_2(0x20, [0; 4], &[]));
    expect_let_in(&mut local);
    let mut unknown = proxied(&broker, b"PROXY UNKNOWN\r\n");
    unknown.read_head();
    assert_eq!(unknown.expect_error().0, 4100, "the proxy's own address has a connection already");
}

#[test]
fn a_trusted_proxy_without_the_header_is_refused() {
    let broker =
        Broker::with(&format!("{TRUSTED}server.proxy_protocol = true\nmetrics.bind = \"127.0.0.1:0\""));
    for bytes in [
        upgrade_request(JS_PATH, "").as_bytes(),
        b"PROXY TCP9 1 2 3 4\r\n",
        &header_2(0x2f, [192, 0, 2, 1], &[]),
        &[b"PROXY UNKNOWN "[..].to_vec(), vec![b'x'; 300]].concat(),
    ] {
        let mut socket = RawSocket::tcp(broker.address());
        socket.send_bytes(bytes);
        socket.expect_any_end();
    }
    until("all are counted", || {
        broker.metrics().contains("fanfare_proxy_headers_total{result=\"malformed\"} 4\n")
    });
    let mut good = proxied(&broker, b"PROXY TCP6 2001:db8::1 ::1 40000 443\r\n");
    expect_let_in(&mut good);
}

#[test]
fn a_stranger_is_served_without_the_header_and_not_with_it() {
    let settings = "server.trusted_proxies = [\"10.0.0.0/8\"]\nserver.proxy_protocol = true";
    let broker = Broker::with(settings);
    broker.expect_healthy();
    let mut http = Http::connect(broker.address());
    http.send("PROXY TCP4 192.0.2.1 127.0.0.1 40000 443\r\n\r\n");
    assert!(http.reply_or_close("GET").is_none_or(|reply| reply.status == 400));
}

#[test]
fn the_header_comes_before_tls() {
    let identity = Identity::new();
    let settings = format!("{TRUSTED}server.proxy_protocol = true\nserver.plain_bind = \"127.0.0.1:0\"");
    let broker = Broker::secure(&identity, &settings, "tls_only = true");
    let dial = |api: &Api, header: &[u8]| {
        let mut stream = TcpStream::connect(api.address()).expect("the broker accepts connections");
        stream.write_all(header).expect("an open connection");
        Client::dial_over(api, stream, JS_PATH, &[])
    };
    dial(broker.api(), b"PROXY TCP4 192.0.2.1 127.0.0.1 40000 443\r\n").established();

    // TLS that ends at the proxy, which says so in the header: type 0x20, bit 0.
    let says_tls = [0x20, 0, 5, 1, 0, 0, 0, 0];
    dial(&broker.plain(), &header_2(0x21, [192, 0, 2, 1], &says_tls)).established();
    dial(&broker.plain(), &header_2(0x21, [192, 0, 2, 1], &[])).expect_end_with(4000);
}

/// A broker on a socket that listens already, as systemd starts it.
fn activated(socket: TcpListener, name: &str, settings: &[&str]) -> Process {
    activated_with(&[("FANFARE_APP_KEY", KEY), ("FANFARE_APP_SECRET", SECRET)], socket, name, settings)
}

fn activated_with(
    environment: &[(&str, &str)],
    socket: TcpListener,
    name: &str,
    settings: &[&str],
) -> Process {
    // Its number must be 3. `env` and the broker keep the number of the shell's process.
    let script = "exec 3<&0 0</dev/null; exec env LISTEN_FDS=1 LISTEN_PID=$$ \"$@\"";
    let mut command = Command::new("sh");
    command.args([
        "-c",
        script,
        "sh",
        &format!("LISTEN_FDNAMES={name}"),
        env!("CARGO_BIN_EXE_fanfare"),
        "serve",
    ]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.envs(environment.iter().copied());
    Process::spawn_on(command, OwnedFd::from(socket))
}

fn listening() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

#[test]
fn clients_wait_in_a_socket_that_is_handed_over() {
    let (socket, address) = listening();
    // Before there is a broker.
    let mut early = Http::connect(address);
    early.send("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    let process = activated(socket, "fanfare.socket", &["metrics.bind=", "server.bind=127.0.0.1:1"]);
    assert_eq!(process.listening(), address);
    assert_eq!(early.reply().status, 404);
    Api::new(address).expect_healthy();
    process.signal("TERM");
    let finished = process.finish();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stderr.contains("handed over"), "{finished:?}");
}

#[test]
fn a_socket_with_a_name_is_for_what_it_is_named() {
    let (socket, address) = listening();
    let process = activated(socket, "metrics", &["server.bind=127.0.0.1:0", "metrics.bind=127.0.0.1:1"]);
    assert_eq!(process.announced("metrics on http://"), address);
    assert_ne!(process.listening(), address);

    let (socket, _) = listening();
    let finished = activated(socket, "plain", &["metrics.bind="]).finish();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("a socket was handed over for plain"), "{finished:?}");
}

#[test]
fn the_demo_app_is_not_served_at_a_socket_that_strangers_reach() {
    let socket = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
    let finished = activated_with(&[], socket, "clients", &["metrics.bind="]).finish();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("demo credentials"), "{finished:?}");
}
