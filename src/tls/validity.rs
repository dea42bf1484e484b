//! From when until when a certificate is valid: all that we read of one ourselves.

use time::{Date, Month};

/// The first and the last second in which a certificate is valid, as Unix times (RFC 5280, 4.1.2.5). None if it is
/// not one.
pub(super) fn validity(certificate: &[u8]) -> Option<(i64, i64)> {
    let (tbs, _) = expect(SEQUENCE, expect(SEQUENCE, certificate)?.0)?;
    // The version is left out of certificates of version 1.
    let rest = expect(VERSION, tbs).map_or(tbs, |(_, rest)| rest);
    let (_serial, rest) = expect(INTEGER, rest)?;
    let (_algorithm, rest) = expect(SEQUENCE, rest)?;
    let (_issuer, rest) = expect(SEQUENCE, rest)?;
    let (validity, _) = expect(SEQUENCE, rest)?;
    let (begin, rest) = time(validity)?;
    let (end, _) = time(rest)?;
    Some((begin, end))
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The content of the next element, which must be of this kind, and what follows it.
fn expect(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (seen, input) = input.split_first()?;
    let (first, input) = input.split_first()?;
    let (length, input) = match usize::from(*first) {
        short @ ..=0x7f => (short, input),
        // More than four bytes of length are longer than any certificate.
        long @ 0x81..=0x84 => {
            let (bytes, input) = input.split_at_checked(long - 0x80)?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), input)
        }
        _ => return None,
    };
    (*seen == tag).then_some(())?;
    input.split_at_checked(length)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time(input: &[u8]) -> Option<(i64, &[u8])> {
    let (year, text, rest) = match (expect(UTC_TIME, input), expect(GENERALIZED_TIME, input)) {
        (Some((text, rest)), _) => {
            let (year, text) = number(text, 2)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text, rest)
        }
        (None, Some((text, rest))) => {
            let (year, text) = number(text, 4)?;
            (year, text, rest)
        }
        (None, None) => return None,
    };
    let (month, text) = number(text, 2)?;
    let (day, text) = number(text, 2)?;
    let (hour, text) = number(text, 2)?;
    let (minute, text) = number(text, 2)?;
    let (second, text) = number(text, 2)?;
    (text == b"Z").then_some(())?;
    let small = |number: i32| u8::try_from(number).ok();
    let month = Month::try_from(small(month)?).ok()?;
    let date = Date::from_calendar_date(year, month, small(day)?).ok()?;
    let time = date.with_hms(small(hour)?, small(minute)?, small(second)?).ok()?;
    Some((time.assume_utc().unix_timestamp(), rest))
}

fn number(text: &[u8], digits: usize) -> Option<(i32, &[u8])> {
    let (number, rest) = text.split_at_checked(digits)?;
    number.iter().all(u8::is_ascii_digit).then_some(())?;
    Some((std::str::from_utf8(number).ok()?.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(begin: (i32, u8, u8), end: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_before = date_time_ymd(begin.0, begin.1, begin.2);
        params.not_after = date_time_ymd(end.0, end.1, end.2);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn both_ways_of_writing_a_year_are_read() {
        let short = certificate((1999, 12, 31), (2030, 1, 1));
        assert_eq!(validity(&short), Some((946_598_400, 1_893_456_000)));
        let long = certificate((2024, 2, 29), (2100, 1, 1));
        assert_eq!(validity(&long), Some((1_709_164_800, 4_102_444_800)));
    }

    #[test]
    fn what_is_cut_short_is_no_certificate() {
        let whole = certificate((2020, 1, 1), (2030, 1, 1));
        for length in 0..100 {
            assert_eq!(validity(&whole[..length]), None);
        }
        assert_eq!(validity(b"-----BEGIN CERTIFICATE-----"), None);
    }

    proptest! {
        #[test]
        fn strange_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = validity(&bytes);
            let _ = time(&bytes);
        }
    }
}
