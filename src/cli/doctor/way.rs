//! The way to the server, hop by hop: its name, its address, TLS, and whoever answers HTTP there.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, Error, InvalidMessage};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::cli::doctor::backend::{Answer, Backend, first_line, redirected, unreachable};
use crate::cli::doctor::place::{Credentials, Place};
use crate::cli::doctor::report::{Finding, Report};
use crate::cli::doctor::socket::Wire;
use crate::cli::doctor::trust::{Judge, judged, validity};

/// A way that has been gone once.
pub(super) struct Way {
    place: Place,
    address: SocketAddr,
    tls: Option<(Arc<Judge>, Arc<ClientConfig>)>,
    limit: Duration,
    /// Who speaks HTTP there.
    pub(super) backend: Backend,
}

/// Everything that is looked at on the way.
pub(super) const HOPS: [&str; 5] = ["dns", "tcp", "tls", "http", "clock"];

/// Clocks that differ by more are not set by anybody.
const SKEW_S: i64 = 30;

/// So many addresses of one name are tried.
const ADDRESSES_MAX: usize = 8;

/// Goes the way, and tells of every hop. None if it does not lead there.
pub(super) async fn explore(
    report: &mut Report,
    place: &Place,
    credentials: &Credentials,
    limit: Duration,
    tolerance_s: u64,
) -> Option<Way> {
    let skip = |report: &mut Report, from: usize| {
        let why = format!("{} failed", HOPS[from - 1]);
        report.skip(&HOPS[from..], &why);
    };
    let began = Instant::now();
    let (finding, addresses) = resolve(place, limit).await;
    if !report.add("dns", finding, began) {
        skip(report, 1);
        return None;
    }
    let began = Instant::now();
    let (finding, address) = connect_all(place, &addresses, limit).await;
    report.add("tcp", finding, began);
    let Some(address) = address else {
        skip(report, 2);
        return None;
    };
    let began = Instant::now();
    let (finding, tls) = match place.is_secure {
        true => shake_hands(place, address, limit).await,
        false if place.is_home => (Finding::skipped("not spoken here: tls.certificate is empty"), None),
        false => (Finding::skipped("the address is http://, so everybody on the way can read along"), None),
    };
    if !report.add("tls", finding, began) && place.is_secure {
        skip(report, 3);
        return None;
    }
    let began = Instant::now();
    let asked = match Backend::new(place, credentials, tls.as_ref().map(|tls| &tls.1), limit) {
        Ok(backend) => {
            let sent = SystemTime::now();
            let answer = backend.knock().await;
            let middle = sent + sent.elapsed().unwrap_or_default() / 2;
            Ok((backend, answer, middle))
        }
        Err(finding) => Err(finding),
    };
    let (backend, answer, middle) = match asked {
        Ok((backend, Ok(answer), middle)) => (backend, answer, middle),
        Ok((_, Err(error), _)) => {
            report.add("http", no_answer(place, &error), began);
            skip(report, 4);
            return None;
        }
        Err(finding) => {
            report.add("http", finding, began);
            skip(report, 4);
            return None;
        }
    };
    let answers = report.add("http", http(&answer), began);
    report.add("clock", clock(&answer, middle, tolerance_s, place.is_home), Instant::now());
    answers.then(|| Way { place: place.clone(), address, tls, limit, backend })
}

impl Way {
    /// Where it leads.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// How long anything may take.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Goes it once more, up to where HTTP is spoken.
    pub(super) async fn connect(&self) -> io::Result<Box<dyn Wire>> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let stream = timeout(self.limit, TcpStream::connect(self.address)).await.map_err(late)??;
        stream.set_nodelay(true)?;
        let Some((_, config)) = &self.tls else { return Ok(Box::new(stream)) };
        let name = server_name(&self.place)?;
        let shaken = TlsConnector::from(Arc::clone(config)).connect(name, stream);
        Ok(Box::new(timeout(self.limit, shaken).await.map_err(late)??))
    }
}

fn server_name(place: &Place) -> io::Result<ServerName<'static>> {
    ServerName::try_from(place.host.clone())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the host is no name for TLS"))
}

async fn resolve(place: &Place, limit: Duration) -> (Finding, Vec<SocketAddr>) {
    let Place { host, port, .. } = place;
    if let Ok(ip) = host.parse() {
        return (Finding::ok(format!("{host} is an address")), vec![SocketAddr::new(ip, *port)]);
    }
    let remedy = "see that the name is spelt right and has an A or AAAA record (dig +short NAME); inside a cluster or a \
                  private network, ask where its DNS is known";
    match timeout(limit, lookup_host((host.as_str(), *port))).await {
        Err(_) => (Finding::failed(format!("no answer to the question for {host}"), remedy), Vec::new()),
        Ok(Err(error)) => (Finding::failed(format!("{host} has no address: {error}"), remedy), Vec::new()),
        Ok(Ok(found)) => {
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for address in found {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            addresses.truncate(ADDRESSES_MAX);
            if addresses.is_empty() {
                return (Finding::failed(format!("{host} has no address"), remedy), addresses);
            }
            let list: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
            (Finding::ok(format!("{host} is {}", list.join(", "))), addresses)
        }
    }
}

/// Connects to every address: clients get any of them.
async fn connect_all(
    place: &Place,
    addresses: &[SocketAddr],
    limit: Duration,
) -> (Finding, Option<SocketAddr>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for address in addresses {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(_)) => good.push(*address),
            Ok(Err(error)) => bad.push((*address, error)),
            Err(_) => bad.push((*address, io::ErrorKind::TimedOut.into())),
        }
    }
    let said = |(address, error): &(SocketAddr, io::Error)| match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("nothing listens at {address}"),
        io::ErrorKind::TimedOut => format!("no answer from {address} within {} s", limit.as_secs()),
        _ => format!("{address}: {error}"),
    };
    let Some(first) = good.first() else {
        let refused = bad.iter().any(|(_, error)| error.kind() == io::ErrorKind::ConnectionRefused);
        let remedy = match (refused, place.is_home) {
            (true, true) => "start the server with this configuration: fanfare serve --config FILE",
            (true, false) => {
                "see that the proxy or server runs and listens at that port, and not at 127.0.0.1 of its machine alone \
                 (server.bind)"
            }
            (false, _) => {
                "see that no firewall, security group or network policy drops packets on the way, and that the address \
                 is the right one"
            }
        };
        return (Finding::failed(bad.iter().map(said).collect::<Vec<_>>().join("\n"), remedy), None);
    };
    if bad.is_empty() {
        let all = if good.len() > 1 { format!("all {} addresses", good.len()) } else { first.to_string() };
        return (Finding::ok(format!("connected to {all}")), Some(*first));
    }
    let detail = bad.iter().map(said).collect::<Vec<_>>().join("\n");
    let remedy = "take the dead addresses out of DNS, or serve them: clients that get one of them wait in vain, IPv6 \
                  first of all";
    (Finding::warning(detail, remedy), Some(*first))
}

type Tls = (Arc<Judge>, Arc<ClientConfig>);

async fn shake_hands(place: &Place, address: SocketAddr, limit: Duration) -> (Finding, Option<Tls>) {
    let broken = |error: &dyn std::fmt::Display| {
        (Finding::failed(format!("TLS cannot be spoken: {error}"), "see what the error says"), None)
    };
    let judge = match Judge::new(place.is_home) {
        Ok(judge) => judge,
        Err(finding) => return (finding, None),
    };
    let config = match judge.client() {
        Ok(config) => Arc::new(config),
        Err(error) => return broken(&error),
    };
    let name = match server_name(place) {
        Ok(name) => name,
        Err(error) => return broken(&error),
    };
    let shaken = async {
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::clone(&config)).connect(name, stream).await
    };
    match timeout(limit, shaken).await {
        Err(_) => {
            let remedy = "see what listens there: it takes the connection and does not answer; a proxy that waits for \
                          the PROXY protocol does that";
            (Finding::failed(format!("no handshake within {} s", limit.as_secs()), remedy), None)
        }
        Ok(Err(error)) => (no_handshake(&error, &judge), None),
        Ok(Ok(_)) if place.is_home => (
            Finding::ok("spoken; name and issuer of the certificate are judged above"),
            Some((judge, config)),
        ),
        Ok(Ok(_)) => (validity(&judge.shown()), Some((judge, config))),
    }
}

/// What a handshake has failed of.
fn no_handshake(error: &io::Error, judge: &Judge) -> Finding {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let plain = "no TLS is spoken there: use the http:// address if that is meant, or let the proxy or tls.certificate \
                 speak TLS at this port";
    match tls {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            Finding::failed("the answer to the handshake is not TLS", plain)
        }
        Some(Error::AlertReceived(AlertDescription::UnrecognisedName)) => Finding::failed(
            "the server has no certificate for this name",
            "add the host to the proxy's sites, with its certificate",
        ),
        Some(Error::AlertReceived(alert)) => Finding::failed(
            format!("the server ends the handshake: {alert:?}"),
            "let it speak TLS 1.2 or 1.3 with usual ciphers, with a certificate for this name and without asking for one \
             of the client",
        ),
        Some(error) => judged(error, &judge.shown()).unwrap_or_else(|| {
            Finding::failed(
                format!("no handshake: {error}"),
                "let the server speak TLS 1.2 or 1.3 with usual ciphers",
            )
        }),
        None => Finding::failed(
            format!("the connection ended during the handshake: {error}"),
            "see whether TLS is spoken at this port at all, and whether a proxy there waits for the PROXY protocol",
        ),
    }
}

/// Nothing of HTTP has come.
fn no_answer(place: &Place, error: &str) -> Finding {
    let remedy = match place.is_secure {
        true => "see that the proxy behind this address reaches Fanfare (its log names the reason)",
        false => {
            "see that HTTP without TLS is spoken at this port, that the proxy reaches Fanfare, and that nobody waits for \
             the PROXY protocol (server.proxy_protocol)"
        }
    };
    Finding::failed(format!("no answer in HTTP: {error}"), remedy)
}

/// What it says of the way that something has answered a call without a signature.
fn http(answer: &Answer) -> Finding {
    let speaks_tls =
        ["This port speaks TLS", "HTTP request was sent to HTTPS", "HTTP request to an HTTPS server"];
    if speaks_tls.iter().any(|part| answer.text.contains(part)) {
        return Finding::failed(
            "TLS is spoken at this port, and the address begins with http://",
            "use the https:// address; in SDKs forceTLS or useTLS",
        );
    }
    match answer.status {
        300..400 => redirected(answer),
        503 if answer.is_of_fanfare() => Finding::failed(
            format!("Fanfare answers with 503: {}", first_line(&answer.text)),
            "see fanfare status and the server's log: Redis or the database may be away",
        ),
        502..=504 => unreachable(answer),
        // A server says no more than that to bytes that are no request.
        400 if answer.text.is_empty() && answer.from.is_none() => Finding::failed(
            "what arrives at the server is no request of HTTP (400)",
            "if the proxy sends the PROXY protocol (HAProxy: send-proxy; AWS NLB), set server.proxy_protocol and name the \
             proxy in server.trusted_proxies, or switch it off there; if it speaks TLS to the server, set tls.certificate",
        ),
        _ if answer.is_of_fanfare() => Finding::ok(match &answer.from {
            Some(_) => format!("Fanfare answers, by way of {}", answer.who()),
            None => "Fanfare answers".to_owned(),
        }),
        status => Finding::ok(format!("{} answers with {status}", answer.who())),
    }
}

/// Compares clocks: calls are signed with the time.
fn clock(answer: &Answer, here: SystemTime, tolerance_s: u64, is_home: bool) -> Finding {
    let Some(there) = answer.date else {
        return Finding::skipped("the answer has no Date to compare with");
    };
    let skew = match there.duration_since(here) {
        Ok(ahead) => ahead.as_secs().cast_signed(),
        Err(behind) => -behind.duration().as_secs().cast_signed(),
    };
    let direction = if skew > 0 { "behind" } else { "ahead of" };
    let detail = format!("this machine is {} s {direction} the server", skew.unsigned_abs());
    let remedy =
        "set both clocks by NTP (timedatectl set-ntp true): calls of the API are signed with the time";
    match skew.unsigned_abs() {
        skew if skew > tolerance_s => Finding::failed(
            format!("{detail}, and {tolerance_s} s are tolerated (api.timestamp_tolerance_s)"),
            remedy,
        ),
        skew if skew > SKEW_S.unsigned_abs() => Finding::warning(detail, remedy),
        _ if is_home => Finding::ok("the same as the server's"),
        skew => Finding::ok(format!("{skew} s from the server's, {tolerance_s} s are tolerated")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::cli::doctor::report::Status;

    #[test]
    fn clocks_may_differ_a_little() {
        let here = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (skew, status) in [
            (0, Status::Ok),
            (29, Status::Ok),
            (-29, Status::Ok),
            (31, Status::Warning),
            (-600, Status::Warning),
            (601, Status::Failed),
            (-601, Status::Failed),
        ] {
            let there = UNIX_EPOCH + Duration::from_secs(1_000_000_u64.wrapping_add_signed(skew));
            let answer = Answer { date: Some(there), ..Answer::default() };
            assert_eq!(clock(&answer, here, 600, false).status, status, "{skew}");
        }
        assert_eq!(clock(&Answer::default(), here, 600, false).status, Status::Skipped);
    }

    #[test]
    fn one_dead_address_of_a_name_is_worth_a_word() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let socket = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = |socket: &std::net::TcpListener| socket.local_addr().expect("an address");
        let open = socket();
        let (alive, dead) = (address(&open), address(&socket()));
        let place = Place::parse("http://a.example").expect("an address");
        let tried = |addresses: &[SocketAddr]| {
            runtime.block_on(connect_all(&place, addresses, Duration::from_secs(5)))
        };
        let (finding, found) = tried(&[dead, alive]);
        assert_eq!((finding.status, found), (Status::Warning, Some(alive)), "{finding:?}");
        assert!(finding.detail.contains(&format!("nothing listens at {dead}")), "{finding:?}");
        let (finding, found) = tried(&[dead]);
        assert_eq!((finding.status, found), (Status::Failed, None), "{finding:?}");
    }

    #[test]
    fn who_answers_is_told_from_who_should() {
        let check = |status: u16, text: &str, expected: Status, part: &str| {
            let answer =
                Answer { status, text: text.into(), from: Some("nginx".into()), ..Answer::default() };
            let finding = http(&answer);
            assert_eq!(finding.status, expected, "{finding:?}");
            assert!(finding.detail.contains(part), "{finding:?}");
        };
        check(401, "Missing parameter: auth_key", Status::Ok, "Fanfare answers, by way of nginx");
        check(404, "<html>", Status::Ok, "nginx answers with 404");
        check(400, "The plain HTTP request was sent to HTTPS port", Status::Failed, "TLS is spoken");
        check(502, "<html>", Status::Failed, "(502)");
        check(503, "The app cannot be looked up at the moment: try again", Status::Failed, "Fanfare answers");
        check(301, "", Status::Failed, "redirect");
        check(400, "", Status::Ok, "nginx answers with 400");
    }
}
