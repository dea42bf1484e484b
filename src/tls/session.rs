//! One connection's TLS, without buffers of its own.
//!
//! Only what is incomplete is kept: the start of a record that has not come whole, and records that the socket has
//! not taken. The rest of rustls is keys.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use rustls::server::{ServerConfig, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{Error, ProtocolVersion};

/// The longest thing that may be incomplete: more than a record, and a handshake message of any sane client.
const UNREAD_MAX: usize = 24 * 1024;

/// Least room of the buffer that [`Session::read`] wants: half of it is for records.
pub const READ_LEAST: usize = 2 * (UNREAD_MAX + 8 * 1024);

/// Plaintext sealed for one write: a few records.
const SEALED_AT_ONCE: usize = 64 * 1024;

/// Most plaintext of one record, and more than what it costs around it.
const RECORD: usize = 16 * 1024;
const RECORD_OVERHEAD: usize = 64;

/// TLS on one connection, from the handshake on.
pub struct Session {
    rustls: UnbufferedServerConnection,
    /// The start of a record, or of a handshake message, whose end has not come.
    unread: Vec<u8>,
    /// Records, sealed, that the socket has not taken.
    unsent: Bytes,
    /// The client has said that nothing more will come.
    ended: bool,
    /// Nothing more will be sealed: we have said goodbye, or something was wrong.
    closed: bool,
}

/// How many bytes a socket gave or took.
type Count = io::Result<usize>;

impl Session {
    /// A session before its handshake.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let rustls = UnbufferedServerConnection::new(config)?;
        Ok(Self { rustls, unread: Vec::new(), unsent: Bytes::new(), ended: false, closed: false })
    }

    /// Whether the handshake is still under way.
    pub fn is_handshaking(&self) -> bool {
        self.rustls.is_handshaking()
    }

    /// The version that is spoken, once it is known.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.rustls.protocol_version()
    }

    /// Whether the client has said that nothing more will come: there is nothing to wait for then.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Bytes that wait for the socket.
    pub fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Calls `read` once and puts what it means to the front of `into`; the second half of `into` is for records.
    /// Gives the bytes of plaintext: 0 at the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has come whole; the error of rustls when the client broke the protocol.
    pub fn read(&mut self, into: &mut [u8], read: impl FnOnce(&mut [u8]) -> Count) -> Count {
        if self.ended {
            return Ok(0);
        }
        if self.closed {
            // Nothing that comes now matters but the end.
            return match read(into)? {
                0 => Ok(0),
                _ => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        let (plaintext, records) = into.split_at_mut(into.len() / 2);
        let kept = self.unread.len();
        let came = match records.get_mut(kept..) {
            Some(room) if kept <= UNREAD_MAX => read(room)?,
            _ => return Err(self.fail(Error::General("the message does not end".to_owned()))),
        };
        if came == 0 {
            return Ok(0);
        }
        records[..kept].copy_from_slice(&std::mem::take(&mut self.unread));
        match self.open(&mut records[..kept + came], plaintext) {
            Ok(0) if !self.ended => Err(io::ErrorKind::WouldBlock.into()),
            Ok(count) => Ok(count),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Decrypts records. Gives the bytes of plaintext, and keeps what is incomplete.
    fn open(&mut self, records: &mut [u8], plaintext: &mut [u8]) -> Result<usize, Error> {
        let mut replies = Vec::new();
        let (mut done, mut count) = (0, 0);
        let mut failed = None;
        // After a failure rustls may have an alert ready, and must be asked for nothing else.
        while failed.is_none() || self.rustls.wants_write() {
            let UnbufferedStatus { discard, state } = self.rustls.process_tls_records(&mut records[done..]);
            done += discard;
            match state {
                Ok(ConnectionState::EncodeTlsData(mut record)) => encode(&mut record, &mut replies),
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let text = record?.payload;
                        // A record is longer than what is in it, so there is room.
                        plaintext[count..][..text.len()].copy_from_slice(text);
                        count += text.len();
                    }
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.ended = true;
                    break;
                }
                Ok(_) => {
                    self.unread = records[done..].to_vec();
                    break;
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        self.queue(replies);
        failed.map_or(Ok(count), Err)
    }

    /// Writes pieces as few records, as far as the socket takes them. Gives the bytes of `pieces` that are done with:
    /// they are sealed, and go out before anything else.
    ///
    /// # Errors
    /// `WouldBlock` when the socket has not taken what was sealed before.
    pub fn write(&mut self, pieces: &[IoSlice<'_>], mut write: impl FnMut(&[u8]) -> Count) -> Count {
        if !self.flush(&mut write)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let joined;
        let text = match pieces {
            [alone] => &alone[..],
            _ => {
                joined = join(pieces);
                &joined[..]
            }
        };
        let mut done = 0;
        for text in text.chunks(SEALED_AT_ONCE) {
            let records = self.seal(Some(text))?;
            self.queue(records);
            done += text.len();
            if !self.flush(&mut write)? {
                break;
            }
        }
        Ok(done)
    }

    /// Writes what is sealed. Whether all of it is gone.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn flush(&mut self, mut write: impl FnMut(&[u8]) -> Count) -> io::Result<bool> {
        while !self.unsent.is_empty() {
            match write(&self.unsent) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.unsent.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // Not an empty view of what was sent.
        self.unsent = Bytes::new();
        Ok(true)
    }

    /// Seals the goodbye of TLS behind all that is sealed already: without it a client cannot tell our end from a
    /// stranger's.
    pub fn close(&mut self) {
        if self.closed || self.is_handshaking() {
            return;
        }
        if let Ok(goodbye) = self.seal(None) {
            self.queue(goodbye);
        }
        self.closed = true;
    }

    /// The records of a text, or of our goodbye.
    fn seal(&mut self, text: Option<&[u8]>) -> io::Result<Vec<u8>> {
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let length = text.map_or(0, <[u8]>::len);
        let mut before = Vec::new();
        let mut room = length + (length / RECORD + 1) * RECORD_OVERHEAD;
        loop {
            // What is incomplete belongs to the call, or rustls would look for it in vain.
            let UnbufferedStatus { discard, state } = self.rustls.process_tls_records(&mut self.unread);
            match state {
                Ok(ConnectionState::EncodeTlsData(mut record)) => encode(&mut record, &mut before),
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let at = before.len();
                    before.resize(at + room, 0);
                    let sealed = match text {
                        Some(text) => traffic.encrypt(text, &mut before[at..]),
                        None => traffic.queue_close_notify(&mut before[at..]),
                    };
                    match sealed {
                        Ok(count) => {
                            before.truncate(at + count);
                            return Ok(before);
                        }
                        Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size }))
                            if required_size > room =>
                        {
                            before.truncate(at);
                            room = required_size;
                        }
                        Err(error) => return Err(io::Error::other(error)),
                    }
                }
                Ok(_) => return Err(io::ErrorKind::NotConnected.into()),
                Err(error) => return Err(self.fail(error)),
            }
            self.unread.drain(..discard);
        }
    }

    /// Puts records behind all that waits.
    fn queue(&mut self, records: Vec<u8>) {
        if records.is_empty() {
            return;
        }
        self.unsent = match self.unsent.is_empty() {
            true => Bytes::from(records),
            false => Bytes::from([&self.unsent[..], &records].concat()),
        };
    }

    fn fail(&mut self, error: Error) -> io::Error {
        self.closed = true;
        self.unread = Vec::new();
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// Puts a record that rustls has ready behind others.
fn encode<D>(record: &mut EncodeTlsData<'_, D>, behind: &mut Vec<u8>) {
    let at = behind.len();
    // The first time it only says how long it is.
    while let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        record.encode(&mut behind[at..])
    {
        behind.resize(at + required_size, 0);
    }
}

/// As much of the pieces as goes out at once, in one.
fn join(pieces: &[IoSlice<'_>]) -> Vec<u8> {
    let length = pieces.iter().map(|piece| piece.len()).sum::<usize>().min(SEALED_AT_ONCE);
    let mut joined = Vec::with_capacity(length);
    for piece in pieces {
        joined.extend_from_slice(&piece[..piece.len().min(length - joined.len())]);
    }
    joined
}

#[cfg(test)]
mod tests;
