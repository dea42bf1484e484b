//! Was everything delivered, once and in order, and how late.
//!
//! Every event carries a stamp in its data: the stream it belongs to, its number in it, and when it was due.

use std::time::Instant;

use hdrhistogram::Histogram;

/// Begins a stamp; nothing else in any message has it.
const MARK: u8 = b'@';

/// The mark, and stream, number and time in hexadecimal.
const STAMP_LEN: usize = 1 + 4 + 8 + 16;

/// Which event of which stream, and when it was due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    pub(crate) stream: u16,
    pub(crate) number: u32,
    /// Nanoseconds since the ledger began.
    pub(crate) due: u64,
}

impl Stamp {
    /// Event data of `bytes` bytes, this stamp first.
    pub(crate) fn data(self, bytes: usize) -> String {
        let mut data = format!("@{:04x}{:08x}{:016x}", self.stream, self.number, self.due);
        data.extend(std::iter::repeat_n('x', bytes.saturating_sub(STAMP_LEN)));
        data
    }

    /// Finds the stamp in a message; none if it is no event of ours.
    pub(crate) fn find(message: &[u8]) -> Option<Self> {
        let at = memchr::memchr(MARK, message)?;
        let stamp = message.get(at + 1..at + STAMP_LEN)?;
        let number = |range: std::ops::Range<usize>| {
            stamp[range].iter().try_fold(0, |number, digit| {
                char::from(*digit).to_digit(16).map(|digit| number << 4 | u64::from(digit))
            })
        };
        Some(Self {
            stream: u16::try_from(number(0..4)?).ok()?,
            number: u32::try_from(number(4..12)?).ok()?,
            due: number(12..28)?,
        })
    }
}

/// What every client is owed, and what it has had.
#[derive(Debug)]
pub(crate) struct Ledger {
    began: Instant,
    /// By client: its streams, and the number that each goes on with.
    owed: Vec<Vec<(u16, u32)>>,
    /// By stream: the number of the next event.
    published: Vec<u32>,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// From when an event was due to when a client had read it, in nanoseconds.
    pub(crate) late: Histogram<u64>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            owed: Vec::new(),
            published: Vec::new(),
            delivered: 0,
            lost: 0,
            doubled: 0,
            late: histogram(),
        }
    }

    /// A client is owed every event of a stream from now on.
    pub(crate) fn owe(&mut self, client: usize, stream: u16) {
        if self.owed.len() <= client {
            self.owed.resize_with(client + 1, Vec::new);
        }
        let from = self.published.get(usize::from(stream)).copied().unwrap_or(0);
        self.owed[client].push((stream, from));
    }

    /// A client is owed nothing any more.
    pub(crate) fn release(&mut self, client: usize) {
        if let Some(owed) = self.owed.get_mut(client) {
            owed.clear();
        }
    }

    /// The stamp of the next event of a stream, which was or is due at `due`.
    pub(crate) fn next(&mut self, stream: u16, due: Instant) -> Stamp {
        let at = usize::from(stream);
        if self.published.len() <= at {
            self.published.resize(at + 1, 0);
        }
        let number = self.published[at];
        self.published[at] += 1;
        Stamp { stream, number, due: self.nanos(due) }
    }

    /// A client has read an event.
    pub(crate) fn enter(&mut self, client: usize, stamp: Stamp, now: Instant) {
        let nanos = self.nanos(now).saturating_sub(stamp.due);
        self.late.saturating_record(nanos);
        let owed =
            self.owed.get_mut(client).and_then(|owed| owed.iter_mut().find(|owed| owed.0 == stamp.stream));
        let Some((_, next)) = owed else {
            self.doubled += 1; // nobody owed it that
            return;
        };
        if stamp.number < *next {
            // Doubled, or overtaken by a later one, which has been counted as a loss.
            self.doubled += 1;
            return;
        }
        self.lost += u64::from(stamp.number - *next);
        *next = stamp.number + 1;
        self.delivered += 1;
    }

    /// How many deliveries are still owed.
    pub(crate) fn outstanding(&self) -> u64 {
        let missing = |(stream, next): &(u16, u32)| {
            let published = self.published.get(usize::from(*stream)).copied().unwrap_or(0);
            u64::from(published.saturating_sub(*next))
        };
        self.owed.iter().flatten().map(missing).sum()
    }

    /// Forgets how late things were so far: the warm-up is over.
    pub(crate) fn forget_latency(&mut self) {
        self.late.reset();
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Nanoseconds up to a minute, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that are in order")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_again() {
        let stamp = Stamp { stream: 7, number: 123_456, due: 987_654_321 };
        let data = stamp.data(100);
        assert_eq!(data.len(), 100);
        assert_eq!(Stamp::find(format!(r#"{{"data":"{data}"}}"#).as_bytes()), Some(stamp));
        assert_eq!(Stamp::find(b"{}"), None);
        assert_eq!(Stamp::find(b"@12"), None);
    }

    #[test]
    fn gaps_and_repetitions_are_counted() {
        let mut ledger = Ledger::new();
        ledger.owe(0, 0);
        let now = Instant::now();
        let stamps: Vec<Stamp> = (0..5).map(|_| ledger.next(0, now)).collect();
        ledger.enter(0, stamps[0], now);
        ledger.enter(0, stamps[2], now);
        ledger.enter(0, stamps[1], now);
        assert_eq!((ledger.delivered, ledger.lost, ledger.doubled), (2, 1, 1));
        assert_eq!(ledger.outstanding(), 2);
        ledger.enter(9, stamps[3], now);
        assert_eq!(ledger.doubled, 2, "nobody owed it that");
    }
}
