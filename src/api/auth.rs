//! Who calls: key, time, body and signature of a request, checked before anything of it is read.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::api::error::ApiError;
use crate::api::route::Route;
use crate::app::{App, Apps};
use crate::protocol::{Query, SignedRequest, WrongSignature};

/// A call whose sender knows the app's secret.
#[derive(Debug)]
pub struct Signed<'a> {
    /// The app.
    pub app: Arc<App>,
    /// The parameters, as they were signed.
    pub query: Query<'a>,
}

/// What there is to check.
#[derive(Clone, Copy, Debug)]
pub struct Unchecked<'a> {
    /// In upper case.
    pub method: &'a str,
    /// As in the request line, without query.
    pub path: &'a str,
    /// Behind the question mark.
    pub query: &'a str,
    /// Decoded of any chunks.
    pub body: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Checks a call in the order of the protocol.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(
        request: Unchecked<'a>,
        route: &Route<'a>,
        apps: &Apps,
        tolerance_s: u64,
        now: SystemTime,
    ) -> Result<Self, ApiError> {
        let of_path = match &route.app_id {
            Some(id) => Some(apps.by_id(id).ok_or(ApiError::UnknownApp)?),
            None => None,
        };
        let query = Query::parse(request.query)?;
        let key = query.get("auth_key").filter(|key| !key.is_empty()).ok_or(ApiError::MissingKey)?;
        let app = of_path.or_else(|| apps.by_key(key)).ok_or(ApiError::UnknownKey)?;
        let secret = app.secret(key).ok_or(ApiError::UnknownKey)?;
        match query.get("auth_version") {
            None | Some("") => return Err(ApiError::MissingVersion),
            Some("1.0") => {}
            Some(_) => return Err(ApiError::WrongVersion),
        }
        check_time(query.get("auth_timestamp"), tolerance_s, now)?;
        let signed = SignedRequest {
            method: request.method,
            path: request.path,
            route: route.path,
            query: request.query,
        };
        let query = signed
            .verify(query, secret)
            .map_err(|WrongSignature { to_sign, sent }| ApiError::InvalidSignature { to_sign, sent })?;
        match query.get("body_md5") {
            None if request.body.is_empty() => {}
            None => return Err(ApiError::MissingBodyMd5),
            Some(md5) => {
                let mut digest = [0; 32];
                let encoded = hex::encode_to_slice(Md5::digest(request.body), &mut digest).is_ok();
                if !encoded || !bool::from(digest.ct_eq(md5.as_bytes())) {
                    return Err(ApiError::InvalidBodyMd5);
                }
            }
        }
        if !app.enabled {
            return Err(ApiError::AppDisabled);
        }
        Ok(Self { app: app.clone(), query })
    }
}

fn check_time(given: Option<&str>, tolerance_s: u64, now: SystemTime) -> Result<(), ApiError> {
    let given = given.and_then(|given| given.parse::<i64>().ok()).ok_or(ApiError::MissingTimestamp)?;
    let now =
        now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    if now.abs_diff(given) > tolerance_s {
        return Err(ApiError::TimestampExpired { given: iso(given), now: iso(now), tolerance_s });
    }
    Ok(())
}

/// The time as a date, or as it is if it lies outside the calendar.
fn iso(timestamp: i64) -> String {
    let date =
        OffsetDateTime::from_unix_timestamp(timestamp).ok().and_then(|date| date.format(&Rfc3339).ok());
    date.unwrap_or_else(|| timestamp.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::app::KeyPair;
    use crate::protocol::Secret;

    const NOW: u64 = 1_353_088_179;

    fn apps() -> Apps {
        let app = |id: &str, key: &str, secret: &str, enabled| App {
            id: id.into(),
            keys: vec![KeyPair { key: key.into(), secret: Secret::new(secret) }],
            enabled,
            ..App::default()
        };
        let docs = app("3", "278d425bdf160c739803", "7ad3773142a6692b25b8", true);
        Apps::new([docs, app("4", "other", "s", true), app("5", "off", "s", false)]).expect("valid")
    }

    fn check<'a>(
        method: &'a str,
        path: &'a str,
        query: &'a str,
        body: &'a str,
        now: u64,
    ) -> Result<Signed<'a>, ApiError> {
        let request = Unchecked { method, path, query, body: body.as_bytes() };
        let route = Route::parse(path).expect("a route");
        Signed::check(request, &route, &apps(), 600, UNIX_EPOCH + Duration::from_secs(now))
    }

    const H1_BODY: &str = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    const H1: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
                      &body_md5=ec365a775a4cd0599faeb73354201b6f\
                      &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";

    fn check_h1(query: &str) -> Result<Signed<'_>, ApiError> {
        check("POST", "/apps/3/events", query, H1_BODY, NOW)
    }

    #[test]
    fn p70_the_documented_call_is_accepted() {
        assert_eq!(&*check_h1(H1).expect("accepted").app.id, "3");
    }

    #[test]
    fn p71_each_check_has_its_own_error() {
        let without = |param: &str| -> String {
            H1.split('&').filter(|pair| !pair.starts_with(param)).collect::<Vec<_>>().join("&")
        };
        let error = |query: &str| check_h1(query).expect_err("refused");
        assert_eq!(error(&without("auth_key")), ApiError::MissingKey);
        assert_eq!(error(&H1.replace("278d", "378d")), ApiError::UnknownKey);
        assert_eq!(error(&H1.replace("278d425bdf160c739803", "other")), ApiError::UnknownKey);
        assert_eq!(error(&without("auth_version")), ApiError::MissingVersion);
        assert_eq!(error(&H1.replace("=1.0", "=2.0")), ApiError::WrongVersion);
        assert_eq!(error(&without("auth_timestamp")), ApiError::MissingTimestamp);
        assert_eq!(error(&H1.replace("1353088179", "soon")), ApiError::MissingTimestamp);
        assert!(matches!(error(&without("auth_signature")), ApiError::InvalidSignature { .. }));
        assert!(matches!(error(&format!("{H1}&extra=1")), ApiError::InvalidSignature { .. }));
        assert_eq!(
            error(&format!("{H1}&auth_key=x")),
            ApiError::Query(crate::protocol::QueryError::Duplicate("auth_key".into()))
        );
        let other_body = check("POST", "/apps/3/events", H1, "{}", NOW).expect_err("refused");
        assert_eq!(other_body, ApiError::InvalidBodyMd5);
        let other_app = check("POST", "/apps/9/events", H1, H1_BODY, NOW).expect_err("refused");
        assert_eq!(other_app, ApiError::UnknownApp);
    }

    #[test]
    fn p71_clocks_may_differ_by_ten_minutes() {
        for skew in [-590, 590] {
            assert!(
                check("POST", "/apps/3/events", H1, H1_BODY, NOW.wrapping_add_signed(skew)).is_ok(),
                "{skew}"
            );
        }
        for skew in [-610, 610] {
            let error = check("POST", "/apps/3/events", H1, H1_BODY, NOW.wrapping_add_signed(skew))
                .expect_err("refused");
            assert!(error.to_string().starts_with("Timestamp expired: Given timestamp (2012-11-16T17:49:39Z) not within 600s of server time (2012-11-16T1"), "{error}");
        }
    }

    fn sign(secret: &str, text: &str) -> String {
        Secret::new(secret).sign(&[text.as_bytes()])
    }

    #[test]
    fn p72_a_get_may_carry_the_md5_of_nothing() {
        let query = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
                     &body_md5=d41d8cd98f00b204e9800998ecf8427e&info=user_count\
                     &auth_signature=69e9e932a5e0d34a2bd43ab5c1b30239ef5abbaf79f646be12d717d87ae0edfe";
        assert!(check("GET", "/apps/3/channels/presence-foobar", query, "", NOW).is_ok());
    }

    #[test]
    fn p71_a_body_needs_its_md5() {
        let params = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0";
        let signature = sign("7ad3773142a6692b25b8", &format!("POST\n/apps/3/events\n{params}"));
        let query = format!("{params}&auth_signature={signature}");
        assert_eq!(
            check("POST", "/apps/3/events", &query, "{}", NOW).expect_err("refused"),
            ApiError::MissingBodyMd5
        );
        assert!(check("POST", "/apps/3/events", &query, "", NOW).is_ok());
    }

    #[test]
    fn a_disabled_app_is_told_so_only_to_its_own() {
        let params = "auth_key=off&auth_timestamp=1353088179&auth_version=1.0";
        let signature = sign("s", &format!("GET\n/apps/5/channels\n{params}"));
        let call = |signature: &str| {
            check("GET", "/apps/5/channels", &format!("{params}&auth_signature={signature}"), "", NOW)
                .expect_err("refused")
        };
        assert_eq!(call(&signature), ApiError::AppDisabled);
        assert!(matches!(call("guess"), ApiError::InvalidSignature { .. }));
    }

    #[test]
    fn p59_without_an_app_in_the_path_the_key_names_it() {
        let query = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
                     &body_md5=99914b932bd37a50b983c5e7c90ae93b\
                     &auth_signature=e3c6b279be14c04728803c2f54d90bef57357d2bb2e1b8ae90507149cd3308d7";
        let signed = check("POST", "/users/12345/terminate_connections", query, "{}", NOW).expect("accepted");
        assert_eq!(&*signed.app.id, "3");
    }
}
