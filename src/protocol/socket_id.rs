//! The name of a connection.

use std::fmt;

use thiserror::Error;

/// The id of one connection, as clients and server SDKs see it: two decimal numbers and a dot.
///
/// Both halves are random and below 2^53, so an id cannot be guessed, is fresh for every connection and
/// survives a client that keeps numbers as doubles.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SocketId(u64, u64);

/// A socket id that is not two decimal numbers joined by a dot.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a socket id is two decimal numbers joined by a dot")]
pub struct InvalidSocketId;

impl SocketId {
    const HALF_MAX: u64 = (1 << 53) - 1;

    /// An id made of `random` bits, of which 106 are used.
    pub fn from_random(random: u128) -> Self {
        let half = |bits: u128| u64::try_from(bits & u128::from(Self::HALF_MAX)).unwrap_or_default();
        Self(half(random), half(random >> 64))
    }

    /// The id as bytes. Never only zeros, unless chance has it that all 106 bits are.
    pub fn to_bytes(self) -> [u8; 16] {
        ((u128::from(self.0) << 64) | u128::from(self.1)).to_be_bytes()
    }

    /// The id that [`SocketId::to_bytes`] made into these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
        Self(half(both >> 64), half(both))
    }

    /// Reads an id that a publisher sent to be excluded.
    ///
    /// `None` is a well-formed id that no connection of ours can have.
    ///
    /// # Errors
    /// When the text does not match `\A\d+\.\d+\z`, the rule of every server SDK.
    pub fn parse(text: &str) -> Result<Option<Self>, InvalidSocketId> {
        let (left, right) = text.split_once('.').ok_or(InvalidSocketId)?;
        let digits = |half: &str| !half.is_empty() && half.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(left) || !digits(right) {
            return Err(InvalidSocketId);
        }
        let id = left.parse().ok().zip(right.parse().ok()).map(|(left, right)| Self(left, right));
        // Leading zeros make another text, hence another id.
        Ok(id.filter(|id| id.to_string() == text))
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn p79_malformed_ids_are_refused() {
        for text in ["", "abc", "1", "1.", ".1", "1.2.3", "1.2\n", " 1.2", "-1.2", "1.٣"] {
            assert_eq!(SocketId::parse(text), Err(InvalidSocketId), "{text:?}");
        }
    }

    #[test]
    fn p79_ids_of_nobody_are_well_formed() {
        for text in ["01.2", "99999999999999999999999.1"] {
            assert_eq!(SocketId::parse(text), Ok(None), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn p4_an_id_reads_back_and_has_the_shape_of_the_sdks(random: u128) {
            let id = SocketId::from_random(random);
            prop_assert_eq!(SocketId::parse(&id.to_string()), Ok(Some(id)));
            prop_assert_eq!(SocketId::from_bytes(id.to_bytes()), id);
        }
    }
}
