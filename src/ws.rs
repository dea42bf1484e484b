//! `GET /app/{key}`: from an upgrade request to a connection, or to a refusal the client understands.
//!
//! A client sees a close code only after the upgrade, so whatever is wrong with a proper handshake of
//! RFC 6455 is told behind a 101. Only a handshake that is none gets an HTTP error.
//!
//! Not here: what happens on the connection afterwards (`worker`).

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_codec::Framed;
use actix_http::header::{self, HeaderMap, HeaderName};
use actix_http::ws::hash_key;
use actix_http::{HttpMessage, Method, Request, h1};
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::app::App;
use crate::guard::{Client, Guarded, is_too_long};
use crate::node::{NoApp, Permit};
use crate::protocol::CloseReason;
use crate::tls::Stream;
use crate::worker::Worker;

/// A request that asks for an upgrade, and the connection it came on.
pub type Upgrade = (Request, Framed<Guarded, h1::Codec>);

/// A handshake that cannot be completed.
#[derive(Clone, Copy, Debug)]
struct HttpError {
    status: &'static str,
    header: &'static str,
    text: &'static str,
}

impl HttpError {
    /// The number of its status.
    fn code(&self) -> &'static str {
        self.status.split_once(' ').map_or(self.status, |(code, _)| code)
    }
}

const NOT_FOUND: HttpError = HttpError { status: "404 Not Found", header: "", text: "Not found" };
const HEAD_TOO_LONG: HttpError =
    HttpError { status: "431 Request Header Fields Too Large", header: "", text: "Request head too large" };
const WRONG_METHOD: HttpError =
    HttpError { status: "405 Method Not Allowed", header: "Allow: GET\r\n", text: "Method not allowed" };
const WRONG_VERSION: HttpError = HttpError {
    status: "426 Upgrade Required",
    header: "Sec-WebSocket-Version: 13\r\n",
    text: "Unsupported Sec-WebSocket-Version: use 13",
};
const HAS_BODY: HttpError =
    HttpError { status: "400 Bad Request", header: "", text: "A WebSocket handshake has no body" };
const NOT_AN_UPGRADE: HttpError = HttpError {
    status: "400 Bad Request",
    header: "",
    text: "Not a WebSocket handshake: Connection must name upgrade",
};
const BAD_KEY: HttpError = HttpError {
    status: "400 Bad Request",
    header: "",
    text: "Missing or malformed Sec-WebSocket-Key: 16 bytes in base64",
};

/// How long a client may take to read what it is owed, and to end its side after an HTTP error.
const LINGER: Duration = Duration::from_secs(1);

/// Answers an upgrade request. `is_api` are paths that are no place for a WebSocket.
///
/// # Errors
/// When the client goes before it has its answer.
pub async fn upgrade(worker: &Rc<Worker>, (request, framed): Upgrade, is_api: bool) -> io::Result<()> {
    let mut parts = framed.into_parts();
    let caller = parts.io.caller();
    let mut io = parts.io.into_inner();
    // Whatever an earlier request on this connection is still owed goes first.
    timeout(LINGER, io.write_all(&parts.write_buf)).await??;
    let head = match handshake(&request, is_api) {
        Ok(head) => head,
        Err(error) => {
            worker.node().metrics().doors.no_handshake(error.code());
            return answer(io, error).await;
        }
    };
    let client = caller.client(request.headers(), &worker.node().config().server.trusted_proxies);
    let admitted = admit(worker, &request, client).await;
    let (line, early) = io.into_line();
    parts.read_buf.extend_from_slice(&early);
    match admitted {
        Ok((app, permit)) => worker.adopt(line, &head, &mut parts.read_buf, app, permit),
        Err(reason) => {
            tracing::debug!(address = %client.address, code = reason.code(), reason = reason.label(), "refused");
            worker.refuse(line, &head, reason);
        }
    }
    Ok(())
}

/// The 101 that completes the handshake (RFC 6455, 4.2).
fn handshake(request: &Request, is_api: bool) -> Result<Vec<u8>, HttpError> {
    let headers = request.headers();
    if is_api {
        return Err(NOT_FOUND);
    }
    if is_too_long(request.uri(), headers) {
        return Err(HEAD_TOO_LONG);
    }
    if request.method() != Method::GET {
        return Err(WRONG_METHOD);
    }
    let body = text(headers, header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if body || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(HAS_BODY);
    }
    let upgrades = |value: &str| value.split(',').any(|option| option.trim().eq_ignore_ascii_case("upgrade"));
    if !headers.get_all(header::CONNECTION).filter_map(|value| value.to_str().ok()).any(upgrades) {
        return Err(NOT_AN_UPGRADE);
    }
    let key = text(headers, header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key)).ok_or(BAD_KEY)?;
    if text(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(WRONG_VERSION);
    }
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    head.extend_from_slice(&hash_key(key.as_bytes()));
    // Some clients fail if none of what they offer is chosen; it does not matter which.
    let offered = text(headers, header::SEC_WEBSOCKET_PROTOCOL).and_then(|offered| offered.split(',').next());
    if let Some(protocol) = offered.map(str::trim).filter(|protocol| !protocol.is_empty()) {
        head.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        head.extend_from_slice(protocol.as_bytes());
    }
    head.extend_from_slice(b"\r\n\r\n");
    Ok(head)
}

/// Judges who may connect, in the order of the protocol.
async fn admit(
    worker: &Worker,
    request: &Request,
    client: Client,
) -> Result<(Arc<App>, Permit), CloseReason> {
    let node = worker.node();
    let now = Instant::now();
    node.knock(client.address, now)?;
    let key = app_key(request.path()).ok_or(CloseReason::UnknownPath)?;
    check_version(request.uri().query().unwrap_or_default())?;
    let app = node.app_by_key(&key).await.map_err(|no| match no {
        NoApp::Unknown => CloseReason::UnknownApp,
        NoApp::Away => CloseReason::StoreAway,
    })?;
    let headers = request.headers();
    if app.tls_only && !client.is_tls {
        return Err(CloseReason::TlsOnly);
    }
    if !app.enabled {
        return Err(CloseReason::AppDisabled);
    }
    if !app.allows_origin(text(headers, header::ORIGIN)) {
        return Err(CloseReason::OriginNotAllowed);
    }
    let permit = node.admit(&app, client.address, now)?;
    Ok((app, permit))
}

/// The key of `{any prefix}/app/{key}`.
pub fn app_key(path: &str) -> Option<String> {
    let (_, key) = path.rsplit_once("/app/")?;
    let key = key.strip_suffix('/').unwrap_or(key);
    if key.is_empty() || key.contains('/') {
        return None;
    }
    percent_decode_str(key).decode_utf8().ok().map(|key| key.into_owned())
}

/// Accepts protocols 4 to 7, which we speak alike.
fn check_version(query: &str) -> Result<(), CloseReason> {
    let given = query.split('&').find_map(|param| param.strip_prefix("protocol="));
    let version = given.filter(|version| !version.is_empty()).ok_or(CloseReason::MissingVersion)?;
    let digits = version.strip_prefix('-').unwrap_or(version);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CloseReason::InvalidVersion);
    }
    // A number too big for us is as unsupported as 8.
    match version.parse::<i64>() {
        Ok(4..=7) => Ok(()),
        _ => Err(CloseReason::UnsupportedVersion),
    }
}

/// 16 bytes in base64 are 22 characters and two of padding.
fn is_key(key: &str) -> bool {
    let (data, padding) = key.as_bytes().split_at(key.len().saturating_sub(2));
    data.len() == 22
        && padding == b"=="
        && data.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Sends an HTTP error and waits for the client to have read it.
async fn answer(mut io: Stream, HttpError { status, header, text }: HttpError) -> io::Result<()> {
    let length = text.len() + 1;
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n{header}\r\n{text}\n"
    );
    timeout(LINGER, io.write_all(response.as_bytes())).await??;
    timeout(LINGER, io.shutdown()).await??;
    // Ending with unread bytes would be a reset, which can overtake the answer.
    let mut rest = [0; 512];
    let drain = async { while io.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
    let _ = timeout(LINGER, drain).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p1_any_prefix_may_stand_before_the_key() {
        for path in ["/app/k", "/hub/app/k", "/a/app/b/app/k", "/app/k/"] {
            assert_eq!(app_key(path).as_deref(), Some("k"), "{path}");
        }
        for path in ["/", "/app", "/app/", "/app/a/b", "/apps/k", "/happ/k"] {
            assert_eq!(app_key(path), None, "{path}");
        }
    }

    #[test]
    fn p2_versions_4_to_7_are_spoken() {
        let check = |query: &str| check_version(query).err();
        for version in 4..=7 {
            assert_eq!(check(&format!("client=js&protocol={version}&flash=false")), None);
        }
        for version in ["3", "8", "0", "-1", "99999999999999999999"] {
            assert_eq!(
                check(&format!("protocol={version}")),
                Some(CloseReason::UnsupportedVersion),
                "{version}"
            );
        }
        for version in ["x", "7.0", "7x", "-", "+7", "%37"] {
            assert_eq!(check(&format!("protocol={version}")), Some(CloseReason::InvalidVersion), "{version}");
        }
        for query in ["", "client=js", "protocol=", "xprotocol=7"] {
            assert_eq!(check(query), Some(CloseReason::MissingVersion), "{query}");
        }
    }

    #[test]
    fn a_key_is_16_bytes() {
        assert!(is_key("dGhlIHNhbXBsZSBub25jZQ=="));
        for key in
            ["", "==", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ=a", "dGhlIHNhbXBsZSBub25j!Q=="]
        {
            assert!(!is_key(key), "{key}");
        }
    }
}
