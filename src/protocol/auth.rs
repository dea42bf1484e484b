//! Signatures: what an app's secret proves.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;

/// An app's secret, ready to sign. It shows itself to nobody.
#[derive(Clone)]
pub struct Secret {
    // Keyed once: signing starts from here and saves two of its four hash blocks.
    keyed: Hmac<Sha256>,
}

impl Secret {
    /// The secret with this text.
    pub fn new(text: &str) -> Self {
        // HMAC takes keys of any length, so there is nothing to fail.
        let keyed = Hmac::new_from_slice(text.as_bytes()).expect("HMAC accepts every key length");
        Self { keyed }
    }

    /// Lower-case hex of HMAC-SHA256 over the joined `parts`.
    pub fn sign(&self, parts: &[&[u8]]) -> String {
        hex::encode(self.code(parts))
    }

    /// Whether `signature` is exactly what [`Secret::sign`] gives, compared in constant time.
    ///
    /// Hex digits in upper case are wrong, as they are for Pusher.
    pub fn verifies(&self, parts: &[&[u8]], signature: &str) -> bool {
        let code = self.code(parts);
        let mut text = [0; 64];
        hex::encode_to_slice(code, &mut text).is_ok() && text.ct_eq(signature.as_bytes()).into()
    }

    fn code(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.keyed.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// Two secrets are the same if they sign alike. Compared in constant time.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.code(&[]).ct_eq(&other.code(&[])).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a client brings from its auth endpoint: `{app key}:{signature}`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Token<'a> {
    /// The app key, which says whose secret signed.
    pub key: &'a str,
    /// Lower-case hex of the HMAC.
    pub signature: &'a str,
}

/// A token without a colon.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a token is key:signature")]
pub struct InvalidToken;

impl<'a> Token<'a> {
    /// Splits at the first colon.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(text: &'a str) -> Result<Self, InvalidToken> {
        let (key, signature) = text.split_once(':').ok_or(InvalidToken)?;
        Ok(Self { key, signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "7ad3773142a6692b25b8";

    /// The vectors V1–V9 of the protocol: what is signed, and the signature the official SDKs make.
    const VECTORS: [(&str, &str); 11] = [
        ("1234.1234:private-foobar", "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"),
        (V2, "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80"),
        (V2B, "afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c"),
        (
            r#"1234.1234:presence-room:{"user_id":"u1","user_info":{"name":"Zoë 日本"}}"#,
            "1a950e59e55cdfec71f97ee6ac49d22677b21e377f474bd2bb47481e6cdec22a",
        ),
        (
            r#"1234.1234:presence-room:{"user_id": "u1", "user_info": {"name": "Zo\u00eb \u65e5\u672c"}}"#,
            "9bfe812bccafa43f65a3cefb35ed587a93bed070382aa5b1236987eac7348034",
        ),
        (
            r#"1234.1234:private-foobar:{"x":1}"#,
            "35884e908e059bfa19468fa6c616fa8c965fe9668613f9682f57fec3fe2fc1be",
        ),
        ("1234.1234:presence-foobar", "71506e66e7fdca106571b8999a849ad34245bc653772e51e0026c1a2475b92ba"),
        (
            r#"1234.1234::user::{"id":"12345"}"#,
            "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba",
        ),
        (
            r#"1234.1234::user::{"id": "12345"}"#,
            "d06dc389319077f890321aeac54e04868921e1601686928f61fc9bf702e92830",
        ),
        (
            r#"1234.1234::user::{"id":"12345","user_info":{"name":"Ann"},"watchlist":["u2","u3"]}"#,
            "28c5d7534e5bbbc77c855858c9f7084908a0490e977c30033560c6e7d8853461",
        ),
        (
            "1234.1234:private-encrypted-foobar",
            "e6a18892d037c5d5e76a2265df4f086ffc38631605530dfd214aa5bff495f533",
        ),
    ];
    const V2: &str = r#"1234.1234:presence-foobar:{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
    const V2B: &str = r#"1234.1234:presence-foobar:{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#;

    #[test]
    fn p40_vectors_verify_and_any_changed_byte_fails() {
        let secret = Secret::new(SECRET);
        for (text, signature) in VECTORS {
            assert!(secret.verifies(&[text.as_bytes()], signature), "{text}");
            for at in 0..text.len() {
                let mut changed = text.as_bytes().to_vec();
                changed[at] ^= 1;
                assert!(!secret.verifies(&[&changed], signature), "{text} with byte {at} changed");
            }
            for at in 0..signature.len() {
                let mut changed = signature.to_owned();
                let digit = if &changed[at..=at] == "0" { "1" } else { "0" };
                changed.replace_range(at..=at, digit);
                assert!(!secret.verifies(&[text.as_bytes()], &changed), "{changed}");
            }
        }
    }

    #[test]
    fn p41_the_pair_misprinted_in_the_documentation_fails() {
        let secret = Secret::new(SECRET);
        let printed = VECTORS[2].1;
        assert!(!secret.verifies(&[V2.as_bytes()], printed));
    }

    #[test]
    fn p44_upper_case_truncated_and_empty_signatures_fail() {
        let secret = Secret::new(SECRET);
        let (text, signature) = VECTORS[0];
        for wrong in [signature.to_uppercase().as_str(), &signature[..63], "", &format!("{signature}0")] {
            assert!(!secret.verifies(&[text.as_bytes()], wrong), "{wrong}");
        }
    }

    #[test]
    fn p90_webhook_bodies_are_signed_as_the_sdks_expect() {
        let secret = Secret::new(SECRET);
        for (body, signature) in [
            (
                r#"{"time_ms":1353088179000,"events":[{"name":"channel_occupied","channel":"test_channel"}]}"#,
                "06f2eb530e72a1a9711d494ec6072ea3268aa851481c75994d99ea5885fabad4",
            ),
            (
                r#"{"time_ms":1353088179000,"events":[{"name":"client_event","channel":"presence-foobar","event":"client-x","data":"{\"a\":1}","socket_id":"1234.1234","user_id":"10"}]}"#,
                "b5905c4756604ed40bd967d28d59d6abfdbd328f2f0fed1fce0b7a74adcc4792",
            ),
        ] {
            assert_eq!(secret.sign(&[body.as_bytes()]), signature);
        }
    }

    #[test]
    fn p43_a_token_splits_at_its_first_colon() {
        assert_eq!(Token::parse("key:a:b"), Ok(Token { key: "key", signature: "a:b" }));
        assert_eq!(Token::parse("key"), Err(InvalidToken));
    }

    #[test]
    fn a_secret_shows_itself_to_nobody() {
        assert_eq!(format!("{:?}", Secret::new(SECRET)), "Secret(…)");
    }
}
