//! Signatures as the official SDKs make them, written without a look at the server's code.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;

/// Lower-case hex HMAC-SHA256.
pub(crate) fn hmac_hex(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// Lower-case hex MD5.
pub(crate) fn md5_hex(bytes: &[u8]) -> String {
    hex::encode(Md5::digest(bytes))
}

/// An auth token: `key:signature of text`.
pub(crate) fn token(key: &str, secret: &str, text: &str) -> String {
    format!("{key}:{}", hmac_hex(secret, text))
}

/// The string an HTTP request is signed with: keys lower-cased and sorted, values unescaped.
pub(crate) fn string_to_sign(method: &str, path: &str, params: &[(String, String)]) -> String {
    let mut pairs: Vec<(String, &str)> =
        params.iter().map(|(key, value)| (key.to_lowercase(), value.as_str())).collect();
    pairs.sort_by(|left, right| left.0.cmp(&right.0));
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{method}\n{path}\n{}", pairs.join("&"))
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_secs()).expect("a clock before the end of time")
}
