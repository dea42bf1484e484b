//! What a server says on a connection of the bus: RESP3, as far as a subscriber hears it.
//!
//! The library's connection takes every end of a subscription for an answer to a command, also one that nobody asked for
//! because a slot went elsewhere, and from then on gives each command the answer of the one before. This one reads what
//! comes as what it is, and gives a message without taking it apart into values first.

use thiserror::Error;

/// What a server says about itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Greeting {
    /// `standalone`, `cluster` or `sentinel`.
    pub(super) mode: String,
    /// Writes are accepted.
    pub(super) is_master: bool,
    /// As `7.0.15`; of Valkey the version of Redis that it is compatible with, or its own.
    pub(super) version: String,
}

/// Something that was heard.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Heard<'a> {
    /// A message of a topic.
    Message {
        /// Which.
        topic: &'a [u8],
        /// What.
        payload: &'a [u8],
    },
    /// A subscription has ended, asked for or not.
    Ended(&'a [u8]),
    /// The answer to `HELLO`.
    Greeting(Greeting),
    /// A command is refused.
    Refusal(&'a str),
    /// Something else.
    Other,
}

/// Bytes that are not RESP3.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("an answer that is not of Redis")]
pub(super) struct Malformed;

/// Reads what `bytes` begin with, and how long it is; none if it is not there as a whole.
pub(super) fn next(bytes: &[u8]) -> Result<Option<(Heard<'_>, usize)>, Malformed> {
    let mut cursor = Cursor { bytes, at: 0 };
    match cursor.heard() {
        Ok(heard) => Ok(Some((heard, cursor.at))),
        Err(Stop::Short) => Ok(None),
        Err(Stop::Malformed) => Err(Malformed),
    }
}

/// Appends a command.
pub(super) fn command<'a>(out: &mut Vec<u8>, words: impl ExactSizeIterator<Item = &'a [u8]>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Redis itself has this limit of one text.
const LENGTH_MAX: usize = 512 * 1024 * 1024;

/// Deeper than anything that a server tells a subscriber.
const DEPTH_MAX: usize = 8;

enum Stop {
    Short,
    Malformed,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn heard(&mut self) -> Result<Heard<'a>, Stop> {
        match self.peek()? {
            b'>' => self.push(),
            b'%' => self.greeting().map(Heard::Greeting),
            b'-' => {
                let line = self.line()?.get(1..).unwrap_or_default();
                std::str::from_utf8(line).map(Heard::Refusal).map_err(|_| Stop::Malformed)
            }
            _ => self.skip(0).map(|()| Heard::Other),
        }
    }

    fn push(&mut self) -> Result<Heard<'a>, Stop> {
        let count = self.count()?;
        if count != 3 {
            (0..count).try_for_each(|_| self.skip(0))?;
            return Ok(Heard::Other);
        }
        let kind = self.text()?;
        match kind {
            b"message" | b"smessage" => Ok(Heard::Message { topic: self.text()?, payload: self.text()? }),
            b"unsubscribe" | b"sunsubscribe" => {
                let topic = self.text()?;
                self.skip(0)?;
                Ok(Heard::Ended(topic))
            }
            _ => {
                self.skip(0)?;
                self.skip(0)?;
                Ok(Heard::Other)
            }
        }
    }

    fn greeting(&mut self) -> Result<Greeting, Stop> {
        let count = self.count()?;
        let mut greeting = Greeting::default();
        for _ in 0..count {
            match self.text()? {
                b"mode" => greeting.mode = String::from_utf8_lossy(self.text()?).into_owned(),
                b"role" => greeting.is_master = self.text()? == b"master",
                b"version" => greeting.version = String::from_utf8_lossy(self.text()?).into_owned(),
                _ => self.skip(0)?,
            }
        }
        Ok(greeting)
    }

    /// A text; an empty one for nothing.
    fn text(&mut self) -> Result<&'a [u8], Stop> {
        match self.peek()? {
            b'$' => {
                let Some(length) = number(self.line()?)? else { return Ok(b"") };
                let (begin, end) = (self.at, self.at + length);
                if self.bytes.len() < end + 2 {
                    return Err(Stop::Short);
                }
                self.at = end + 2;
                Ok(&self.bytes[begin..end])
            }
            b'+' => Ok(self.line()?.get(1..).unwrap_or_default()),
            b'_' => self.line().map(|_| b"".as_slice()),
            _ => Err(Stop::Malformed),
        }
    }

    /// Any value.
    fn skip(&mut self, depth: usize) -> Result<(), Stop> {
        let values = match self.peek()? {
            b'$' => return self.text().map(|_| ()),
            b'!' | b'=' => {
                let length = number(self.line()?)?.unwrap_or_default() + 2;
                self.at += length;
                return if self.at <= self.bytes.len() { Ok(()) } else { Err(Stop::Short) };
            }
            b'*' | b'~' | b'>' => self.count()?,
            b'%' | b'|' => self.count()? * 2,
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => return self.line().map(|_| ()),
            _ => return Err(Stop::Malformed),
        };
        if depth == DEPTH_MAX {
            return Err(Stop::Malformed);
        }
        (0..values).try_for_each(|_| self.skip(depth + 1))
    }

    fn count(&mut self) -> Result<usize, Stop> {
        Ok(number(self.line()?)?.unwrap_or_default())
    }

    fn peek(&self) -> Result<u8, Stop> {
        self.bytes.get(self.at).copied().ok_or(Stop::Short)
    }

    /// A line with the sign that it begins with, without its end.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let end = rest.windows(2).position(|two| two == b"\r\n").ok_or(Stop::Short)?;
        self.at += end + 2;
        Ok(&rest[..end])
    }
}

/// The number behind the sign; none below 0.
fn number(line: &[u8]) -> Result<Option<usize>, Stop> {
    let text = line.get(1..).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or(Stop::Malformed)?;
    let number: i64 = text.parse().map_err(|_| Stop::Malformed)?;
    match usize::try_from(number) {
        Ok(number) if number <= LENGTH_MAX => Ok(Some(number)),
        Ok(_) => Err(Stop::Malformed),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GREETING: &[u8] = b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n\
        :3\r\n$2\r\nid\r\n:4\r\n$4\r\nmode\r\n$7\r\ncluster\r\n$4\r\nrole\r\n$7\r\nreplica\r\n$7\r\nmodules\r\n*1\r\n\
        %1\r\n$4\r\nname\r\n$4\r\njson\r\n";

    #[track_caller]
    fn check(bytes: &[u8], heard: &Heard<'_>) {
        // Not before the last byte has come, and not more than its own bytes.
        for end in 0..bytes.len() {
            assert_eq!(next(&bytes[..end]), Ok(None), "{end} bytes");
        }
        let more = [bytes, b"+more"].concat();
        let (found, length) = next(&more).expect("RESP3").expect("all of it");
        assert_eq!((&found, length), (heard, bytes.len()));
    }

    #[test]
    fn what_a_subscriber_hears_is_told_apart() {
        let message = Heard::Message { topic: b"f:1", payload: b"a\r\nb" };
        check(b">3\r\n$7\r\nmessage\r\n$3\r\nf:1\r\n$4\r\na\r\nb\r\n", &message);
        let message = Heard::Message { topic: b"f:1", payload: b"" };
        check(b">3\r\n$8\r\nsmessage\r\n$3\r\nf:1\r\n$0\r\n\r\n", &message);
        check(b">3\r\n$10\r\nssubscribe\r\n$3\r\nf:1\r\n:1\r\n", &Heard::Other);
        check(b">3\r\n$12\r\nsunsubscribe\r\n$3\r\nf:1\r\n:0\r\n", &Heard::Ended(b"f:1"));
        check(b">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n", &Heard::Ended(b""));
        check(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n", &Heard::Other);
        check(b"-MOVED 1 127.0.0.1:7000\r\n", &Heard::Refusal("MOVED 1 127.0.0.1:7000"));
        check(b"+PONG\r\n", &Heard::Other);
        check(b"$-1\r\n", &Heard::Other);
        check(b"=7\r\ntxt:abc\r\n", &Heard::Other);
        let greeting = Greeting { mode: "cluster".into(), is_master: false, version: "7.0.15".into() };
        check(GREETING, &Heard::Greeting(greeting));
    }

    #[test]
    fn what_is_not_of_redis_is_refused() {
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"$x\r\n",
            b"$99999999999\r\n",
            b">3\r\n:1\r\n",
            b"-\xff\r\n",
        ] {
            assert_eq!(next(bytes), Err(Malformed), "{bytes:?}");
        }
        assert_eq!(next(&b"*1\r\n".repeat(100)), Err(Malformed));
    }

    #[test]
    fn a_command_is_an_array_of_texts() {
        let mut out = Vec::new();
        command(&mut out, [&b"SUBSCRIBE"[..], b"a b"].into_iter());
        assert_eq!(out, b"*2\r\n$9\r\nSUBSCRIBE\r\n$3\r\na b\r\n");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((_, length))) = next(&bytes) {
                prop_assert!(0 < length && length <= bytes.len());
            }
        }
    }
}
