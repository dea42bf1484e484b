//! `healthcheck`: one question to the server of this configuration, for containers without a shell.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use actix_http::Uri;
use clap::Args;
use thiserror::Error;

use crate::cli::{EXIT_FAILED, Settings, fail, with_config};

/// How long the server may take for everything.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Much more than an answer has.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, Args)]
pub(super) struct Healthcheck {
    #[command(flatten)]
    settings: Settings,
    /// Ask this server instead of that of the configuration, as in http://127.0.0.1:9601; a path replaces /ready
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Ask whether it is alive: if not, it should be started again
    #[arg(long, conflicts_with = "ready")]
    live: bool,
    /// Ask whether it takes clients (the default)
    #[arg(long)]
    ready: bool,
}

/// Why the server is not known to be well.
#[derive(Debug, Error)]
enum Unwell {
    #[error("metrics.bind is \"\": there is no port to ask")]
    NoPort,
    #[error("{0:?} is no URL to ask: expected something like http://127.0.0.1:9601")]
    BadUrl(String),
    #[error("{address} did not answer: {source}")]
    NoAnswer { address: String, source: io::Error },
    #[error("{0} did not answer in HTTP")]
    NotHttp(String),
    #[error("{address}{path} answered {status}: {body}")]
    Refused { address: String, path: String, status: u16, body: String },
}

/// Where to ask, and for what.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Question {
    /// Host and port.
    address: String,
    path: String,
}

impl Healthcheck {
    pub(super) fn run(&self) -> ExitCode {
        if let Some(url) = &self.url {
            return answer(self.question_to(url));
        }
        with_config(&self.settings, |loaded| {
            let bind = loaded.config.metrics.bind.map(reachable).ok_or(Unwell::NoPort);
            answer(
                bind.map(|address| Question { address: address.to_string(), path: self.path().to_owned() }),
            )
        })
    }

    fn path(&self) -> &'static str {
        if self.live { "/live" } else { "/ready" }
    }

    fn question_to(&self, url: &str) -> Result<Question, Unwell> {
        let bad = || Unwell::BadUrl(url.to_owned());
        let parsed: Uri = url.parse().map_err(|_| bad())?;
        let authority = parsed.authority().filter(|_| parsed.scheme_str() == Some("http")).ok_or_else(bad)?;
        let port = authority.port_u16().unwrap_or(80);
        let path = match parsed.path_and_query().map(|path| path.as_str()) {
            None | Some("/") => self.path(),
            Some(path) => path,
        };
        Ok(Question { address: format!("{}:{port}", authority.host()), path: path.to_owned() })
    }
}

/// A server that listens everywhere is asked at home.
pub(super) fn reachable(mut bind: SocketAddr) -> SocketAddr {
    match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => bind.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => bind.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    bind
}

fn answer(question: Result<Question, Unwell>) -> ExitCode {
    match question.and_then(|question| question.ask(Instant::now() + TIMEOUT)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(unwell) => fail(EXIT_FAILED, &unwell.to_string()),
    }
}

impl Question {
    /// Whether the server with this `metrics.bind` takes clients.
    pub(super) fn ready(bind: SocketAddr) -> Self {
        Self { address: reachable(bind).to_string(), path: "/ready".to_owned() }
    }

    /// Asks, and says what is wrong if something is.
    pub(super) fn ask_until(self, deadline: Instant) -> Result<(), String> {
        self.ask(deadline).map_err(|unwell| unwell.to_string())
    }

    /// Asks, and waits for the answer until `deadline`.
    fn ask(self, deadline: Instant) -> Result<(), Unwell> {
        let answer = match self.exchange(deadline) {
            Ok(answer) => answer,
            Err(source) => return Err(Unwell::NoAnswer { address: self.address, source }),
        };
        let Some((status, body)) = parse(&answer) else { return Err(Unwell::NotHttp(self.address)) };
        if status == 200 {
            return Ok(());
        }
        let Self { address, path } = self;
        Err(Unwell::Refused { address, path, status, body: body.trim().replace(['\r', '\n'], " ") })
    }

    fn exchange(&self, deadline: Instant) -> io::Result<String> {
        let mut stream = self.connect(deadline)?;
        let Self { address, path } = self;
        stream.set_write_timeout(Some(left(deadline)?))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        while (answer.len() as u64) < ANSWER_BYTES_MAX {
            stream.set_read_timeout(Some(left(deadline)?))?;
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Tries every address of the host.
    fn connect(&self, deadline: Instant) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left(deadline)?) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// What is left of the time.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Status and body of an answer.
fn parse(answer: &str) -> Option<(u16, &str)> {
    let status = answer.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.split("\r\n").next()?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(url: &str, live: bool) -> Option<(String, String)> {
        let healthcheck = Healthcheck { settings: Settings::default(), url: None, live, ready: false };
        let question = healthcheck.question_to(url).ok()?;
        Some((question.address, question.path))
    }

    #[test]
    fn a_url_names_the_server_and_may_name_the_path() {
        let asked = |address: &str, path: &str| Some((address.to_owned(), path.to_owned()));
        assert_eq!(question("http://127.0.0.1:9601", false), asked("127.0.0.1:9601", "/ready"));
        assert_eq!(question("http://[::1]:9601/", true), asked("[::1]:9601", "/live"));
        assert_eq!(question("http://node/x?y=1", true), asked("node:80", "/x?y=1"));
        for url in ["", "127.0.0.1:9601", "https://node/", "/ready", "http://"] {
            assert_eq!(question(url, false), None, "{url}");
        }
    }

    #[test]
    fn a_server_that_listens_everywhere_is_asked_at_home() {
        let asked = |bind: &str| reachable(bind.parse().expect("an address")).to_string();
        assert_eq!(asked("0.0.0.0:9601"), "127.0.0.1:9601");
        assert_eq!(asked("[::]:9601"), "[::1]:9601");
        assert_eq!(asked("10.0.0.1:9601"), "10.0.0.1:9601");
    }

    #[test]
    fn an_answer_has_a_status_and_may_have_a_body() {
        assert_eq!(parse("HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nx"), Some((503, "x")));
        assert_eq!(parse("HTTP/1.0 200\r\n\r\n"), Some((200, "")));
        assert_eq!(parse("HTTP/1.1 200 OK\r\n"), Some((200, "")));
        for answer in ["", "HTTP/2 200", "SSH-2.0", "HTTP/1.1 abc"] {
            assert_eq!(parse(answer), None, "{answer}");
        }
    }
}
