//! What a certificate says of itself, as far as an operator asks: how long, for whom, by whom.

use time::{Date, Month};

/// What stands in a certificate (RFC 5280, 4.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Facts<'a> {
    /// The first second in which it is valid, as a Unix time.
    pub begin: i64,
    /// The last one.
    pub end: i64,
    issuer: &'a [u8],
    subject: &'a [u8],
    whole: &'a [u8],
}

impl<'a> Facts<'a> {
    /// Reads a certificate; none if it is not one.
    pub fn read(certificate: &'a [u8]) -> Option<Self> {
        let (tbs, _) = expect(SEQUENCE, expect(SEQUENCE, certificate)?.0)?;
        // The version is left out of certificates of version 1.
        let rest = expect(VERSION, tbs).map_or(tbs, |(_, rest)| rest);
        let (_serial, rest) = expect(INTEGER, rest)?;
        let (_algorithm, rest) = expect(SEQUENCE, rest)?;
        let (issuer, rest) = expect(SEQUENCE, rest)?;
        let (validity, rest) = expect(SEQUENCE, rest)?;
        let (subject, _) = expect(SEQUENCE, rest)?;
        let (begin, until) = time(validity)?;
        let (end, _) = time(until)?;
        Some(Self { begin, end, issuer, subject, whole: certificate })
    }

    /// Nobody has signed it but its own key.
    pub fn is_self_signed(&self) -> bool {
        self.issuer == self.subject
    }

    /// The common name of who has signed it, or the name of the organization.
    pub fn issuer(&self) -> Option<String> {
        name(self.issuer, COMMON_NAME).or_else(|| name(self.issuer, ORGANIZATION))
    }

    /// It says where the certificate of its issuer can be had (RFC 5280, 4.2.2.1), as those of public authorities do.
    pub fn has_public_issuer(&self) -> bool {
        self.whole.windows(CA_ISSUERS.len()).any(|bytes| bytes == CA_ISSUERS)
    }
}

/// The first and the last second in which a certificate is valid, as Unix times. None if it is not one.
pub(super) fn validity(certificate: &[u8]) -> Option<(i64, i64)> {
    Facts::read(certificate).map(|facts| (facts.begin, facts.end))
}

/// Identifiers of objects, with their tags.
const COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 4, 3];
const ORGANIZATION: &[u8] = &[0x06, 3, 0x55, 4, 10];
const CA_ISSUERS: &[u8] = &[0x06, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 2];

/// The text behind an identifier in a name.
fn name(name: &[u8], identifier: &[u8]) -> Option<String> {
    let at = name.windows(identifier.len()).position(|bytes| bytes == identifier)?;
    let value = name.get(at + identifier.len()..)?;
    let (text, _) = expect(*value.first()?, value)?;
    Some(String::from_utf8_lossy(text).into_owned())
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
    use rcgen::{CertificateParams, CertifiedIssuer, DnType, KeyPair, date_time_ymd};

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
    fn an_issuer_is_told_from_the_certificate_itself() {
        let own = certificate((2020, 1, 1), (2030, 1, 1));
        let facts = Facts::read(&own).expect("a certificate");
        assert!(facts.is_self_signed() && !facts.has_public_issuer());
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "Authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &authority.expect("an authority")).expect("a certificate");
        let facts = Facts::read(signed.der()).expect("a certificate");
        assert!(!facts.is_self_signed());
        assert_eq!(facts.issuer().as_deref(), Some("Authority"));
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
