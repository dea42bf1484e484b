//! HTTP/1.1 byte by byte, so that a story can send what no HTTP library would.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr},
};

use serde_json::Value;

use super::{DEADLINE, Wire};

/// One TCP connection that speaks HTTP.
pub(crate) struct Http {
    stream: BufReader<Wire>,
}

/// A whole reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Http {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(Wire::connect(address, None))
    }

    pub(crate) fn over(wire: Wire) -> Self {
        Self { stream: BufReader::new(wire) }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the broker reads the request");
    }

    /// Sends to a broker that may have closed the connection already.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())?;
        self.stream.get_mut().flush()
    }

    /// Says that no more requests will come.
    pub(crate) fn finish(&mut self) {
        self.stream.get_ref().tcp().shutdown(Shutdown::Write).expect("an open socket");
    }

    #[track_caller]
    pub(crate) fn reply(&mut self) -> Reply {
        self.reply_to("GET")
    }

    /// Reads a reply; one to `HEAD` has no body, whatever its length says.
    #[track_caller]
    pub(crate) fn reply_to(&mut self, method: &str) -> Reply {
        self.reply_or_close(method).expect("a reply, but the broker closed the connection")
    }

    /// Reads the next reply, or `None` if the connection ends before one begins.
    #[track_caller]
    pub(crate) fn reply_or_close(&mut self, method: &str) -> Option<Reply> {
        let status_line = self.line()?;
        let status = status_line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line().expect("a whole head");
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let mut reply = Reply { status, headers, body: String::new() };
        if method != "HEAD" {
            reply.body = String::from_utf8(self.body(&reply)).expect("a body in UTF-8");
        }
        Some(reply)
    }

    /// Asserts that the broker ends the connection without another word.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("an end in order");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// A line without its end; `None` when the connection is closed.
    #[track_caller]
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no line of a reply within {DEADLINE:?}: {error}"),
        }
    }

    fn body(&mut self, reply: &Reply) -> Vec<u8> {
        let mut body = Vec::new();
        if let Some(length) = reply.header("content-length") {
            body.resize(length.parse().expect("a length"), 0);
            self.stream.read_exact(&mut body).expect("a whole body");
        } else if reply.header("transfer-encoding") == Some("chunked") {
            loop {
                let length = self.line().expect("a chunk");
                let length = usize::from_str_radix(&length, 16).expect("a chunk length");
                let mut chunk = vec![0; length];
                self.stream.read_exact(&mut chunk).expect("a whole chunk");
                body.extend(chunk);
                self.line();
                if length == 0 {
                    break;
                }
            }
        } else if reply.status >= 200 && reply.status != 204 && reply.status != 304 {
            self.stream.read_to_end(&mut body).expect("a body up to the end of the connection");
        }
        body
    }
}

impl Reply {
    /// The value of the first header of this name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Asserts a success as SDKs need it: 200 and a JSON object.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let value: Value = serde_json::from_str(&self.body).expect("JSON");
        assert!(value.is_object(), "{self:?}");
        value
    }

    /// Asserts a refusal with exactly this text.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, text: &str) {
        let (seen_status, seen) = (self.status, self.text());
        assert_eq!((seen_status, seen.as_str()), (status, text));
    }

    /// Asserts a refusal whose text holds `part`.
    #[track_caller]
    pub(crate) fn refused_with(self, status: u16, part: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let text = self.text();
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }

    /// The text of an error: plain, with one newline at its end, which is taken off.
    #[track_caller]
    pub(crate) fn text(self) -> String {
        assert_eq!(self.header("content-type"), Some("text/plain; charset=utf-8"), "{self:?}");
        let text = self.body.strip_suffix('\n').unwrap_or_else(|| panic!("no newline: {self:?}"));
        assert!(!text.is_empty() && !text.ends_with('\n'), "{self:?}");
        text.to_owned()
    }
}
