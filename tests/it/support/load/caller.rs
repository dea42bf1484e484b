//! API calls that may fail.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

use super::super::Request;

/// One kept connection to the API of whichever node is called.
#[derive(Debug)]
pub(crate) struct Caller {
    stream: Option<(SocketAddr, BufReader<TcpStream>)>,
    patience: Duration,
}

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: String,
}

impl Caller {
    /// One that waits so long for each step of a call.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { stream: None, patience }
    }

    /// Calls a node. A connection on which anything went wrong is not used again.
    pub(crate) fn call(&mut self, at: SocketAddr, request: &Request) -> io::Result<Answered> {
        let mut stream = match self.stream.take() {
            Some((address, stream)) if address == at => stream,
            _ => BufReader::new(self.connect(at)?),
        };
        stream.get_mut().write_all(&request.bytes())?;
        let answered = read(&mut stream)?;
        self.stream = Some((at, stream));
        Ok(answered)
    }

    fn connect(&self, at: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&at, self.patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        Ok(stream)
    }
}

impl Answered {
    /// The JSON of a success.
    pub(crate) fn json(&self) -> Result<Value, String> {
        match self.status {
            200 => serde_json::from_str(&self.body).map_err(|error| format!("{error}: {self:?}")),
            _ => Err(format!("{self:?}")),
        }
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Answered> {
    let nonsense = |line: &str| io::Error::other(format!("not HTTP: {line:?}"));
    let status_line = line(stream)?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| nonsense(&status_line))?;
    let (mut length, mut retry_after) = (0, None);
    loop {
        let header = line(stream)?.to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(": ").ok_or_else(|| nonsense(&header))?;
        match name {
            "content-length" => length = value.parse().map_err(|_| nonsense(&header))?,
            "retry-after" => retry_after = value.parse().ok(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let body = String::from_utf8(body).map_err(io::Error::other)?;
    Ok(Answered { status, retry_after, body })
}

fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}
