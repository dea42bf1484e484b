//! The backend of an app, which receives its webhooks.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::SockRef;

use super::{DEADLINE, hmac_hex};

/// A web server that notes every request and answers as its story says.
pub(crate) struct Backend {
    address: SocketAddr,
    hooks: Receiver<Hook>,
    over: Arc<AtomicBool>,
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Hook {
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) at: Instant,
}

/// What a backend does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A status and no body.
    Status(u16),
    /// A redirect.
    Redirect(String),
    /// 200 with so many bytes of body.
    Long(usize),
    /// Nothing, on a connection that stays open.
    Hang,
    /// The end of the connection.
    Reset,
}

type Answering = Arc<dyn Fn(&Hook) -> Answer + Send + Sync>;

impl Backend {
    /// One that is content with everything.
    pub(crate) fn start() -> Self {
        Self::with(|_| Answer::Status(200))
    }

    /// One with a mind of its own.
    pub(crate) fn with(answer: impl Fn(&Hook) -> Answer + Send + Sync + 'static) -> Self {
        Self::listen("127.0.0.1:0".parse().expect("an address"), answer)
    }

    pub(crate) fn listen(
        address: SocketAddr,
        answer: impl Fn(&Hook) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, hooks) = channel();
        let over = Arc::new(AtomicBool::new(false));
        let (answer, ended): (Answering, _) = (Arc::new(answer), over.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (sender, answer) = (sender.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &sender, &answer));
            }
        });
        Self { address, hooks, over }
    }

    /// An address where nobody listens.
    pub(crate) fn nowhere() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The next request.
    #[track_caller]
    pub(crate) fn next(&self) -> Hook {
        self.hooks.recv_timeout(DEADLINE).expect("a webhook")
    }

    /// The event of the next request, which has one.
    #[track_caller]
    pub(crate) fn event(&self) -> Value {
        let hook = self.next();
        let mut events = hook.events();
        assert_eq!(events.len(), 1, "{hook:?}");
        events.remove(0)
    }

    /// The events of the next requests, up to this many, in no order.
    #[track_caller]
    pub(crate) fn events(&self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.next().events());
        }
        assert_eq!(events.len(), count, "{events:?}");
        events.sort_by_key(ToString::to_string);
        events
    }

    /// What has come up to now.
    pub(crate) fn so_far(&self) -> Vec<Hook> {
        self.hooks.try_iter().collect()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the thread, which gives the port back
    }
}

impl Hook {
    /// The value of a header with exactly this name.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_else(|| panic!("no {name} in\n{}", self.head))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.json()["events"].as_array().expect("a list of events").clone()
    }

    /// Whether it says that it may repeat what another node has told.
    pub(crate) fn is_marked(&self) -> bool {
        self.head.lines().any(|line| line == "X-Fanfare-Redelivery: true")
    }

    /// Asserts that the signature is of this key and secret.
    #[track_caller]
    pub(crate) fn expect_signed(&self, key: &str, secret: &str) {
        assert_eq!(self.header("X-Pusher-Key"), key);
        assert_eq!(self.header("X-Pusher-Signature"), hmac_hex(secret, &self.body));
    }
}

/// Serves the requests of one connection.
fn serve(stream: TcpStream, hooks: &Sender<Hook>, answer: &Answering) {
    let mut stream = BufReader::new(stream);
    while let Some(hook) = read(&mut stream) {
        let answer = answer(&hook);
        let _ = hooks.send(hook);
        let reply = match answer {
            Answer::Status(status) => format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n\r\n"),
            Answer::Redirect(to) => {
                format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
            }
            Answer::Long(bytes) => {
                format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n{}", "x".repeat(bytes))
            }
            Answer::Hang => {
                let _ = stream.read_to_end(&mut Vec::new()); // until the broker goes
                return;
            }
            Answer::Reset => {
                let _ = SockRef::from(stream.get_ref()).set_linger(Some(Duration::ZERO));
                return;
            }
        };
        if stream.get_mut().write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<Hook> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
    let mut body = vec![0; length.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some(Hook { head, body: String::from_utf8(body).ok()?, at: Instant::now() })
}
