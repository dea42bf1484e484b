//! A proxy that does what it is told, wrong or right: between the doctor and brokers, or in the place of them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::DEADLINE;

/// What becomes of a request, by its head.
pub(super) enum Rule {
    /// Passed on, with this head.
    Pass(String),
    /// Passed on; the head of the answer is changed.
    Change(fn(&str) -> String),
    /// Passed on, and cut off when nobody has said anything for so long.
    Impatient(Duration),
    /// Passed on; of the answer come only its head and so many bytes behind it.
    Hold(usize),
    /// Answered here.
    Answer(&'static str),
    /// Kept, and never answered.
    Keep,
}

/// A running proxy. It ends with its story.
pub(super) struct Proxy {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

type Judge = dyn Fn(&str) -> Rule + Send + Sync;
type Choose = dyn Fn(&str) -> SocketAddr + Send + Sync;

impl Proxy {
    /// Passes each connection to the next of the targets, as `judge` says.
    pub(super) fn to(targets: &[SocketAddr], judge: impl Fn(&str) -> Rule + Send + Sync + 'static) -> Self {
        let (targets, turn) = (targets.to_vec(), AtomicUsize::new(0));
        // A connection without a request has no turn: it only looks whether somebody is there.
        Self::choosing(move |_| targets[turn.fetch_add(1, Ordering::Relaxed) % targets.len()], judge)
    }

    fn choosing(
        choose: impl Fn(&str) -> SocketAddr + Send + Sync + 'static,
        judge: impl Fn(&str) -> Rule + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let (choose, judge): (Arc<Choose>, Arc<Judge>) = (Arc::new(choose), Arc::new(judge));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let (choose, judge) = (Arc::clone(&choose), Arc::clone(&judge));
                // A client that goes is no matter.
                thread::spawn(move || drop(serve(client, &*choose, &*judge)));
            }
        });
        Self { address, over }
    }

    /// Answers everything itself.
    pub(super) fn alone(judge: impl Fn(&str) -> Rule + Send + Sync + 'static) -> Self {
        Self::to(&[], judge)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes it up.
        drop(TcpStream::connect(self.address));
    }
}

/// Leads WebSockets to one place and calls to another.
pub(super) fn by_path(sockets: SocketAddr, calls: SocketAddr) -> Proxy {
    Proxy::choosing(
        move |head| if is_upgrade(head) { sockets } else { calls },
        |head| Rule::Pass(head.to_owned()),
    )
}

/// Whether a request asks for a WebSocket.
pub(super) fn is_upgrade(head: &str) -> bool {
    head.starts_with("GET /app/")
}

fn serve(mut client: TcpStream, choose: &Choose, judge: &Judge) -> std::io::Result<()> {
    client.set_read_timeout(Some(DEADLINE))?;
    let (head, rest) = read_head(&mut client)?;
    if head.is_empty() {
        return Ok(());
    }
    let rule = judge(&head);
    if let Rule::Answer(answer) = rule {
        client.write_all(answer.as_bytes())?;
        client.shutdown(Shutdown::Write)?;
        return until_end(&mut client);
    }
    if let Rule::Keep = rule {
        return until_end(&mut client);
    }
    let mut server = TcpStream::connect(choose(&head))?;
    let sent = if let Rule::Pass(head) = &rule { head } else { &head };
    server.write_all(sent.as_bytes())?;
    server.write_all(&rest)?;
    let (mut up, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = copy(&mut up, &mut to, usize::MAX);
        let _ = to.shutdown(Shutdown::Write);
    });
    match rule {
        Rule::Change(change) => {
            let (head, rest) = read_head(&mut server)?;
            client.write_all(change(&head).as_bytes())?;
            client.write_all(&rest)?;
        }
        Rule::Hold(bytes) => {
            let (head, rest) = read_head(&mut server)?;
            client.write_all(head.as_bytes())?;
            let now = rest.len().min(bytes);
            client.write_all(&rest[..now])?;
            copy(&mut server, &mut client, bytes - now)?;
            return until_end(&mut server);
        }
        Rule::Impatient(patience) => server.set_read_timeout(Some(patience))?,
        _ => {}
    }
    let _ = copy(&mut server, &mut client, usize::MAX);
    // Both, also where somebody else still holds one.
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    Ok(())
}

/// The head of what comes, and what has come behind it.
fn read_head(from: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(at + 4);
            return Ok((String::from_utf8(bytes).expect("a head in UTF-8"), rest));
        }
        match read(from, &mut buffer)? {
            0 => return Ok((String::new(), Vec::new())),
            count => bytes.extend(&buffer[..count]),
        }
    }
}

fn copy(from: &mut TcpStream, to: &mut TcpStream, mut bytes_max: usize) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    while bytes_max > 0 {
        let room = buffer.len().min(bytes_max);
        match read(from, &mut buffer[..room])? {
            0 => break,
            count => {
                to.write_all(&buffer[..count])?;
                bytes_max -= count;
            }
        }
    }
    Ok(())
}

fn until_end(from: &mut TcpStream) -> std::io::Result<()> {
    while read(from, &mut [0; 4096])? > 0 {}
    Ok(())
}

fn read(from: &mut TcpStream, into: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match from.read(into) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
