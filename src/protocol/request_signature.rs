//! Signed HTTP requests: what a publisher signs, and the shapes in which it arrives.
//!
//! SDKs sign the same string but put different things on the wire: raw or percent-encoded values, any
//! order, with or without the prefix of the path. We rebuild the string in each shape that is known and
//! accept the request if one of them verifies.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use thiserror::Error;

use crate::protocol::auth::Secret;
use crate::protocol::json::{cut, one_line};

/// The parameters of a query string, decoded, their keys in lower case.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Query<'a> {
    // Borrowed from the request where nothing was escaped, as in most.
    params: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// A query string that cannot be read.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum QueryError {
    /// A parameter that is no array came twice.
    #[error("Duplicate parameter: {}", one_line(.0, 200))]
    Duplicate(String),
    /// Bytes that are not UTF-8 once decoded.
    #[error("Invalid query string: not UTF-8")]
    NotUtf8,
}

impl<'a> Query<'a> {
    /// Reads the part of a URL behind the question mark, as it came.
    ///
    /// # Errors
    /// When it is not UTF-8, or a scalar parameter is repeated.
    pub fn parse(query: &'a str) -> Result<Self, QueryError> {
        let escaped = query.contains('%');
        let decode = |text: &'a str| match escaped {
            true => percent_decode_str(text).decode_utf8().map_err(|_| QueryError::NotUtf8),
            false => Ok(Cow::Borrowed(text)),
        };
        let mut params = Vec::with_capacity(8);
        for param in query.split('&').filter(|param| !param.is_empty()) {
            let (key, value) = param.split_once('=').unwrap_or((param, ""));
            let mut key = decode(key)?;
            if !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                key = Cow::Owned(key.to_lowercase());
            }
            params.push((key, decode(value)?));
        }
        // A stable sort: the values of an array keep their order.
        params.sort_by(|a, b| a.0.cmp(&b.0));
        let twice = params.windows(2).find(|pair| pair[0].0 == pair[1].0 && !pair[0].0.ends_with("[]"));
        match twice {
            Some(pair) => Err(QueryError::Duplicate(pair[0].0.to_string())),
            None => Ok(Self { params }),
        }
    }

    /// The value of a scalar parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.params.iter().find(|param| param.0 == key).map(|param| &*param.1)
    }

    /// The values of an array parameter; `key` ends in `[]`.
    pub fn all<'q>(&'q self, key: &'q str) -> impl Iterator<Item = &'q str> {
        self.params.iter().filter(move |param| param.0 == key).map(|param| &*param.1)
    }

    /// The names of all parameters, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.params.iter().map(|param| &*param.0)
    }

    /// Owns what it had borrowed.
    pub fn into_owned(self) -> Query<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Query { params: self.params.into_iter().map(|(key, value)| (owned(key), owned(value))).collect() }
    }

    /// Appends what is signed of the parameters: all but the signature, unescaped.
    fn push_to_sign(&self, text: &mut String) {
        let signed = self.params.iter().filter(|param| param.0 != "auth_signature");
        for (at, (key, value)) in signed.enumerate() {
            text.extend([if at == 0 { "" } else { "&" }, key, "=", value]);
        }
    }
}

/// A request as it came, ready to be verified.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// In upper case.
    pub method: &'a str,
    /// The path of the request line, without query.
    pub path: &'a str,
    /// The end of `path` that begins with `/apps/` or `/users/`: what remains under a prefix.
    pub route: &'a str,
    /// What stands behind the question mark.
    pub query: &'a str,
}

/// A request without a valid signature.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WrongSignature {
    /// What should have been signed: quoted and on one line, as the reference implementation shows it.
    pub to_sign: String,
    /// The signature that came.
    pub sent: String,
}

impl<'a> SignedRequest<'a> {
    /// What a publisher sends as `auth_signature` beside `query`, which has the other parameters.
    ///
    /// # Errors
    /// When the query is none.
    pub fn sign(&self, secret: &Secret) -> Result<String, QueryError> {
        let query = Query::parse(self.query)?;
        Ok(secret.sign(&[self.string_for(self.path, &query).as_bytes()]))
    }

    /// The parameters as they were signed, if any shape of the request carries the signature in `query`.
    ///
    /// # Errors
    /// What should have been signed, for the publisher to compare.
    pub fn verify(&self, query: Query<'a>, secret: &Secret) -> Result<Query<'a>, WrongSignature> {
        let signature = query.get("auth_signature").unwrap_or_default();
        if self.is_signed(&query, signature, secret) {
            return Ok(query);
        }
        if self.query.contains('+')
            && let Ok(spaced) = Query::parse(&self.query.replace('+', " "))
            && self.is_signed(&spaced, signature, secret)
        {
            return Ok(spaced.into_owned());
        }
        let to_sign = format!("{:?}", cut(&self.string_for(self.path, &query), 2000));
        Err(WrongSignature { to_sign, sent: signature.to_owned() })
    }

    fn is_signed(&self, query: &Query<'_>, signature: &str, secret: &Secret) -> bool {
        self.paths().any(|path| secret.verifies(&[self.string_for(&path, query).as_bytes()], signature))
    }

    /// The paths that may have been signed.
    fn paths(&self) -> impl Iterator<Item = Cow<'a, str>> {
        let raw = std::iter::once(self.path).chain((self.route != self.path).then_some(self.route));
        let escaped = raw.clone().filter(|path| path.contains('%'));
        raw.map(Cow::Borrowed).chain(escaped.map(|path| percent_decode_str(path).decode_utf8_lossy()))
    }

    fn string_for(&self, path: &str, query: &Query<'_>) -> String {
        let mut text = String::with_capacity(self.method.len() + path.len() + self.query.len() + 2);
        text.extend([self.method, "\n", path, "\n"]);
        query.push_to_sign(&mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "7ad3773142a6692b25b8";
    const PUBLISH: &str = "/apps/3/events";

    /// What even an SDK that sends raw values cannot send raw.
    const RESERVED: &percent_encoding::AsciiSet =
        &percent_encoding::CONTROLS.add(b'%').add(b'&').add(b'+').add(b'#').add(b' ');

    fn verifies(method: &str, path: &str, route: &str, query: &str) -> bool {
        let request = SignedRequest { method, path, route, query };
        let parsed = Query::parse(query).expect("a query");
        request.verify(parsed, &Secret::new(SECRET)).is_ok()
    }

    fn check_vector(method: &str, path: &str, tail: &str, signature: &str) {
        let head = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0";
        let query = format!("{head}{tail}&auth_signature={signature}");
        assert!(verifies(method, path, path, &query), "{query}");
        let mut params: Vec<&str> = query.split('&').collect();
        params.reverse();
        assert!(verifies(method, path, path, &params.join("&")), "any order: {query}");
        assert!(verifies(method, path, path, &query.replace(',', "%2C")), "escaped: {query}");
        assert!(
            verifies(method, path, path, &query.replace("auth_key", "Auth_Key")),
            "p73 upper case: {query}"
        );
        assert!(
            !verifies(method, path, path, &format!("{query}&extra=1")),
            "p71 unsigned parameter: {query}"
        );
        assert!(!verifies("PUT", path, path, &query), "other method");
        assert!(!verifies(method, "/apps/4/events", "/apps/4/events", &query), "other path");
        let upper = query.replace(signature, &signature.to_uppercase());
        assert!(!verifies(method, path, path, &upper), "upper-case signature");
    }

    #[test]
    fn what_we_sign_verifies() {
        let query = "auth_key=k&auth_timestamp=1&auth_version=1.0&info=user_count,cache";
        let request = SignedRequest { method: "GET", path: PUBLISH, route: PUBLISH, query };
        let signature = request.sign(&Secret::new(SECRET)).expect("a query");
        assert!(verifies("GET", PUBLISH, PUBLISH, &format!("{query}&auth_signature={signature}")));
        assert!(!verifies("POST", PUBLISH, PUBLISH, &format!("{query}&auth_signature={signature}")));
    }

    #[test]
    fn p70_vectors_of_the_official_sdks_verify() {
        for (method, path, tail, signature) in [
            (
                "POST",
                PUBLISH,
                "&body_md5=ec365a775a4cd0599faeb73354201b6f",
                "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c",
            ),
            (
                "POST",
                PUBLISH,
                "&body_md5=45ff0dd3fcd388e766ebeec554920e41",
                "3afbfced4119aeb18b1b441f623f438db238170e007bb8dda50203ad09031632",
            ),
            (
                "POST",
                PUBLISH,
                "&body_md5=e99c7bd443c2257b30f72ae568153d4f",
                "d550b5c3df185aa94a2c76c7c3ca5bdec16c5dbef2f7eccdb68886384e05c06a",
            ),
            (
                "GET",
                "/apps/3/channels",
                "&filter_by_prefix=presence-&info=user_count,subscription_count",
                "ff97d40ab3fbbd15394386a29c12998c33635305357b2e2abd18dc67efe3f87d",
            ),
            (
                "GET",
                "/apps/3/channels/presence-foobar",
                "&body_md5=d41d8cd98f00b204e9800998ecf8427e&info=user_count",
                "69e9e932a5e0d34a2bd43ab5c1b30239ef5abbaf79f646be12d717d87ae0edfe",
            ),
            (
                "GET",
                "/apps/3/channels/presence-foobar/users",
                "",
                "5567dd30e7f8575e66be615d2aac3f608a0c311c31ddab8513a278b022e9597e",
            ),
            (
                "GET",
                "/apps/3/channels/presence-a@b=c,d;e.f_g",
                "&info=user_count",
                "91b4c3432f045e5b1c8c9e644de5c4518d53a41019fe26e16fddc042ab919f51",
            ),
            (
                "POST",
                "/apps/3/users/12345/terminate_connections",
                "&body_md5=99914b932bd37a50b983c5e7c90ae93b",
                "01fa634edeb0cae84115307cad5c23f65a46cd286461b1c89637a3b5871a8f0e",
            ),
            (
                "POST",
                "/users/12345/terminate_connections",
                "&body_md5=99914b932bd37a50b983c5e7c90ae93b",
                "e3c6b279be14c04728803c2f54d90bef57357d2bb2e1b8ae90507149cd3308d7",
            ),
            (
                "POST",
                "/apps/3/batch_events",
                "&body_md5=571b80876340594e69d66d24df54edb4",
                "0d56730a4475fa6ab2f5fb2b40fe4e5236c02da5b84629c90bd39a8d777c305b",
            ),
        ] {
            check_vector(method, path, tail, signature);
        }
    }

    fn sign(text: &str) -> String {
        Secret::new(SECRET).sign(&[text.as_bytes()])
    }

    #[test]
    fn p70_a_prefix_may_be_signed_or_not() {
        for signed in ["/hub/apps/3/events", PUBLISH] {
            let query = format!("a=1&auth_signature={}", sign(&format!("POST\n{signed}\na=1")));
            assert!(verifies("POST", "/hub/apps/3/events", PUBLISH, &query), "{signed}");
        }
    }

    #[test]
    fn p70_a_percent_encoded_path_may_be_signed_raw_or_decoded() {
        let path = "/apps/3/channels/presence-a%40b";
        for signed in [path, "/apps/3/channels/presence-a@b"] {
            let query = format!("auth_signature={}", sign(&format!("GET\n{signed}\n")));
            assert!(verifies("GET", path, path, &query), "{signed}");
        }
    }

    #[test]
    fn p70_a_plus_may_stand_for_a_space() {
        for signed in ["a b", "a+b"] {
            let query = format!("name=a+b&auth_signature={}", sign(&format!("GET\n/\nname={signed}")));
            assert!(verifies("GET", "/", "/", &query), "{signed}");
        }
    }

    #[test]
    fn p70_arrays_are_signed_in_the_order_given() {
        let query = format!("c[]=2&b=x&c[]=1&auth_signature={}", sign("GET\n/\nb=x&c[]=2&c[]=1"));
        assert!(verifies("GET", "/", "/", &query));
        let query = Query::parse("c%5B%5D=2&c[]=1").expect("a query");
        assert_eq!(query.all("c[]").collect::<Vec<_>>(), ["2", "1"]);
    }

    #[test]
    fn p71_the_error_shows_the_string_on_one_line() {
        let request =
            SignedRequest { method: "GET", path: "/apps/3/channels", route: "/apps/3/channels", query: "" };
        let query = Query::parse("auth_key=k&auth_signature=no").expect("a query");
        let wrong = request.verify(query, &Secret::new(SECRET)).expect_err("wrong signature");
        assert_eq!(wrong.sent, "no");
        assert_eq!(wrong.to_sign, r#""GET\n/apps/3/channels\nauth_key=k""#);
    }

    #[test]
    fn repeated_scalars_are_refused() {
        assert_eq!(Query::parse("info=a&INFO=b"), Err(QueryError::Duplicate("info".into())));
        assert_eq!(Query::parse("a=%ff"), Err(QueryError::NotUtf8));
    }

    proptest! {
        #[test]
        fn p70_whatever_is_signed_verifies_in_every_shape(
            params in prop::collection::btree_map("[a-z_]{1,8}", "[ -~ä日]{0,12}", 0..6),
            encode: bool,
            shuffle: u64,
        ) {
            let text: Vec<String> = params.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let signature = sign(&format!("GET\n/apps/3/channels\n{}", text.join("&")));
            let set = if encode { percent_encoding::NON_ALPHANUMERIC } else { RESERVED };
            let mut wire: Vec<String> = params
                .iter()
                .map(|(key, value)| format!("{key}={}", percent_encoding::utf8_percent_encode(value, set)))
                .collect();
            wire.push(format!("auth_signature={signature}"));
            let at = usize::try_from(shuffle % wire.len() as u64).expect("small");
            wire.rotate_left(at);
            prop_assert!(verifies("GET", "/apps/3/channels", "/apps/3/channels", &wire.join("&")));
        }
    }
}
