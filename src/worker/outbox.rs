//! What waits for a client that reads more slowly than its events arrive.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};

/// Frames in the order they are owed. Owns nothing while empty.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    backlog: Option<Box<Backlog>>,
}

#[derive(Debug, Default)]
struct Backlog {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// The front frame is partly written: what is left of it must go out before anything else.
    torn: bool,
}

/// How many pieces one system call takes. Linux allows 1024, but runs are joined already: there are seldom many.
const PIECES: usize = 16;

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.backlog.is_none()
    }

    /// Frames and bytes that wait.
    pub(super) fn size(&self) -> (usize, usize) {
        self.backlog.as_ref().map_or((0, 0), |backlog| (backlog.frames.len(), backlog.bytes))
    }

    pub(super) fn push(&mut self, frame: Bytes) {
        let backlog = self.backlog.get_or_insert_default();
        backlog.bytes += frame.len();
        backlog.frames.push_back(frame);
    }

    /// Lets go of everything that was not begun: the client will never read it.
    pub(super) fn clear(&mut self) {
        let torn = self
            .backlog
            .take()
            .filter(|backlog| backlog.torn)
            .and_then(|mut backlog| backlog.frames.pop_front());
        if let Some(rest) = torn {
            self.push(rest);
            if let Some(backlog) = &mut self.backlog {
                backlog.torn = true;
            }
        }
    }

    /// Writes as much as `write` takes. Whether everything is gone; if not, the socket would block.
    pub(super) fn flush(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        while let Some(backlog) = &mut self.backlog {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let count = backlog.frames.len().min(PIECES);
            for (piece, frame) in pieces.iter_mut().zip(&backlog.frames) {
                *piece = IoSlice::new(frame);
            }
            match write(&pieces[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => backlog.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if backlog.frames.is_empty() {
                self.backlog = None;
            }
        }
        Ok(true)
    }

    /// Keeps what a first attempt at a frame has left over.
    pub(super) fn push_rest(&mut self, frame: &Bytes, written: usize) {
        self.push(frame.slice(written..));
        if let Some(backlog) = &mut self.backlog {
            backlog.torn = written > 0;
        }
    }
}

impl Backlog {
    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(front) = self.frames.front_mut() {
            if written < front.len() {
                front.advance(written);
                self.torn |= written > 0;
                return;
            }
            written -= front.len();
            self.torn = false;
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_leave_in_order_however_little_the_socket_takes(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..100),
            takes in prop::collection::vec(0usize..50, 1..50),
        ) {
            let mut outbox = Outbox::default();
            let mut wire: Vec<u8> = Vec::new();
            let mut takes = takes.into_iter();
            let mut write = |pieces: &[IoSlice<'_>]| {
                let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
                // After the given ones the socket takes everything.
                let take = takes.next().unwrap_or(usize::MAX).min(bytes.len());
                wire.extend(&bytes[..take]);
                if take == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(take) }
            };
            for frame in &frames {
                outbox.push(Bytes::from(frame.clone()));
                outbox.flush(&mut write).expect("no error");
            }
            while !outbox.flush(&mut write).expect("no error") {}
            prop_assert!(outbox.is_empty());
            prop_assert_eq!(wire, frames.concat());
        }
    }

    #[test]
    fn a_frame_that_was_begun_is_not_let_go() {
        let mut outbox = Outbox::default();
        outbox.push_rest(&Bytes::from_static(b"abcd"), 1);
        outbox.push(Bytes::from_static(b"efgh"));
        outbox.clear();
        outbox.push(Bytes::from_static(b"bye"));
        assert_eq!(outbox.size(), (2, 6));
        let mut wire: Vec<u8> = Vec::new();
        let written = outbox.flush(|pieces| {
            wire.extend(pieces.iter().flat_map(|piece| piece.to_vec()));
            Ok(wire.len())
        });
        assert!(written.expect("no error") && outbox.is_empty());
        assert_eq!(wire, b"bcdbye");
    }

    #[test]
    fn whole_frames_are_let_go() {
        let mut outbox = Outbox::default();
        outbox.push_rest(&Bytes::from_static(b"abcd"), 0);
        outbox.clear();
        assert!(outbox.is_empty());
    }
}
