//! The app's backend: signed calls of the HTTP API, each on a connection of its own, and what their answers mean.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_http::header::HttpDate;
use md5::{Digest, Md5};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{DATE, HeaderMap, HeaderName, LOCATION, SERVER, VIA};
use reqwest::{Client, Method, redirect};
use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::cli::doctor::place::{Credentials, Place};
use crate::cli::doctor::report::Finding;
use crate::cli::remote::innermost;
use crate::protocol::{SignedRequest, cut};

/// A backend of the app.
#[derive(Debug)]
pub(super) struct Backend {
    client: Client,
    place: Place,
    credentials: Credentials,
}

/// What was answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// What the answering program calls itself.
    pub(super) from: Option<String>,
    /// What time it is there.
    pub(super) date: Option<SystemTime>,
    pub(super) location: Option<String>,
    pub(super) text: String,
}

/// Much more than any answer has.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

impl Backend {
    /// Calls nobody yet.
    ///
    /// # Errors
    /// When there is no HTTP client to be had.
    pub(super) fn new(
        place: &Place,
        credentials: &Credentials,
        tls: Option<&Arc<ClientConfig>>,
        limit: Duration,
    ) -> Result<Self, Finding> {
        let mut builder = Client::builder()
            // As the clients of the server will come: neither by somebody in between nor to somebody else.
            .no_proxy()
            .redirect(redirect::Policy::none())
            // A new connection each time: behind one address may be many servers.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("fanfare-doctor/", env!("CARGO_PKG_VERSION")))
            .timeout(limit);
        if let Some(tls) = tls {
            builder = builder.tls_backend_preconfigured(ClientConfig::clone(tls));
        }
        let client = builder.build().map_err(|error| {
            Finding::failed(format!("no HTTP client: {}", innermost(&error)), "see what the error says")
        })?;
        Ok(Self { client, place: place.clone(), credentials: credentials.clone() })
    }

    /// Asks without a signature: somebody has to answer, if only that one is missing.
    pub(super) async fn knock(&self) -> Result<Answer, String> {
        let url = self.place.url(&self.path("/channels"));
        self.send(Method::GET, &url, None).await
    }

    /// Asks for a channel.
    pub(super) async fn channel(&self, name: &str) -> Result<Answer, String> {
        self.call(Method::GET, &format!("/channels/{name}"), None).await
    }

    /// Publishes an event.
    pub(super) async fn publish(&self, channel: &str, name: &str, data: &str) -> Result<Answer, String> {
        let body = json!({ "name": name, "channels": [channel], "data": data });
        self.call(Method::POST, "/events", Some(body.to_string())).await
    }

    fn path(&self, path: &str) -> String {
        format!("/apps/{}{path}", utf8_percent_encode(&self.credentials.app.id, NON_ALPHANUMERIC))
    }

    async fn call(&self, method: Method, path: &str, body: Option<String>) -> Result<Answer, String> {
        let path = self.path(path);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let key = utf8_percent_encode(&self.credentials.key, NON_ALPHANUMERIC);
        let mut query = format!("auth_key={key}&auth_timestamp={now}&auth_version=1.0");
        if let Some(body) = &body {
            query.push_str(&format!("&body_md5={}", hex::encode(Md5::digest(body))));
        }
        let request = SignedRequest { method: method.as_str(), path: &path, route: &path, query: &query };
        let signature = request.sign(&self.credentials.secret).map_err(|error| error.to_string())?;
        let url = self.place.url(&format!("{path}?{query}&auth_signature={signature}"));
        self.send(method, &url, body).await
    }

    async fn send(&self, method: Method, url: &str, body: Option<String>) -> Result<Answer, String> {
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        // The URL of the error has the signature, so only what is below it is said.
        let said = |error: reqwest::Error| match error.is_timeout() {
            true => "no answer in time".to_owned(),
            false => innermost(&error),
        };
        let mut response = request.send().await.map_err(said)?;
        let headers = response.headers();
        let mut answer = Answer {
            status: response.status().as_u16(),
            from: header(headers, SERVER).or_else(|| header(headers, VIA)),
            date: header(headers, DATE).and_then(|date| HttpDate::from_str(&date).ok()).map(SystemTime::from),
            location: header(headers, LOCATION),
            text: String::new(),
        };
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(said)? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > ANSWER_BYTES_MAX {
                break;
            }
        }
        answer.text = String::from_utf8_lossy(&bytes).trim().to_owned();
        Ok(answer)
    }

    /// What it means that a signed call was not answered with what was asked for.
    pub(super) fn refusal(&self, answer: &Answer) -> Finding {
        let Answer { status, text, .. } = answer;
        let key = &self.credentials.key;
        let id = &self.credentials.app.id;
        let has = |part: &str| text.contains(part);
        let failed = |detail: String, remedy: &str| Finding::failed(detail, remedy);
        match status {
            300..400 => redirected(answer),
            401 if has("Timestamp expired") => failed(
                format!("the server refuses the time of this machine: {}", first_line(text)),
                "set both clocks by NTP (timedatectl set-ntp true): calls are signed with the time",
            ),
            401 if has("Invalid signature") && !has(&format!("/apps/{id}/")) => failed(
                format!(
                    "the signature does not fit, since the path has changed on its way: {}",
                    signed_path(text)
                ),
                "have the proxy pass the path on as it is, or with a prefix taken away or added in front of /apps as a \
                 whole (nginx: proxy_pass without a path)",
            ),
            401 if has("Invalid signature") => failed(
                format!("the secret that belongs to key {key} is another one"),
                "compare the secret with that of the server's configuration; of two servers behind this address, one \
                 may have an old one",
            ),
            401 if has("Unknown auth_key") => failed(
                format!("app {id} has no key {key}"),
                "compare app id and key: they belong to different apps, or the key was taken away",
            ),
            404 if has("Unknown app_id") => failed(
                format!("the server has no app {id}"),
                "compare the app id with the server's configuration (fanfare app list)",
            ),
            404 if text == "Not found" => failed(
                format!(
                    "{} answers \"Not found\", as Fanfare does to a path that is none of its own",
                    answer.who()
                ),
                "have the proxy pass the path on as it is, or with a prefix taken away or added in front of /apps as a \
                 whole (nginx: proxy_pass without a path)",
            ),
            403 if has("Application disabled") => {
                failed(format!("app {id} is disabled"), "enable it: enabled = true, or fanfare app enable")
            }
            400..404 | 405..413 if answer.is_of_fanfare() => failed(
                format!("the server refuses the call with {status}: {}", first_line(text)),
                "a proxy may have changed query, body or method of the call",
            ),
            413 => failed(
                format!("{} refuses the body with 413", answer.who()),
                "raise the proxy's limit for bodies to 1 MB at least (nginx: client_max_body_size 1m)",
            ),
            429 => failed(
                format!("{} has had enough calls: {}", answer.who(), first_line(text)),
                "the app's requests_per_s or publishes_per_s is used up, or a proxy has a limit of its own: raise it",
            ),
            503 if answer.is_of_fanfare() => failed(
                format!("the server cannot serve the call: {}", first_line(text)),
                "see fanfare status and the server's log: Redis or the database may be away",
            ),
            502..=504 => unreachable(answer),
            _ => failed(
                format!("{} answers the API with {status}: {}", answer.who(), first_line(text)),
                "the proxy has to pass /apps/ on to Fanfare, as it does with /app/",
            ),
        }
    }
}

impl Answer {
    /// Who has answered, as far as one can tell.
    pub(super) fn who(&self) -> String {
        match &self.from {
            Some(from) => cut(from, 40).into_owned(),
            None => "something that does not say its name".to_owned(),
        }
    }

    /// Errors of Fanfare are one line of text.
    pub(super) fn is_of_fanfare(&self) -> bool {
        const BEGINNINGS: [&str; 24] = [
            "Missing ",
            "Unknown ",
            "Version ",
            "Timestamp ",
            "Invalid ",
            "Application ",
            "Expected ",
            "Event ",
            "Too many",
            "The data content",
            "The request",
            "The app ",
            "The server ",
            "The cluster ",
            "The following",
            "info should",
            "Batch too",
            "user_count may",
            "Cannot retrieve",
            "Users can",
            "Duplicate ",
            "Request ",
            "Method not allowed: use",
            "This is a WebSocket endpoint",
        ];
        !self.text.contains('\n') && BEGINNINGS.iter().any(|beginning| self.text.starts_with(beginning))
    }

    /// An answer as a JSON object.
    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.text).ok().filter(|value: &Value| value.is_object() && self.status == 200)
    }
}

/// A proxy that sends elsewhere whoever comes.
pub(super) fn redirected(answer: &Answer) -> Finding {
    let to = answer.location.as_deref().map_or("elsewhere", |to| to.split('?').next().unwrap_or(to));
    let remedy = match to.starts_with("https://") {
        true => {
            "connect by TLS: use the https:// address, in SDKs forceTLS or useTLS and the port 443; no SDK follows a \
             redirect"
        }
        false => {
            "name the address that it leads to, or have the proxy answer here: no SDK follows a redirect"
        }
    };
    Finding::failed(format!("{} answers with a redirect ({}) to {to}", answer.who(), answer.status), remedy)
}

/// A proxy that does not reach what is behind it.
pub(super) fn unreachable(answer: &Answer) -> Finding {
    let (what, remedy) = match answer.status {
        502 => (
            "cannot connect to Fanfare, or was not understood there (502)",
            "see that Fanfare runs, and that the proxy has its address and port: server.bind has to be reachable from \
             the proxy (127.0.0.1 is not, from another machine or container), and plain HTTP unless tls.certificate is set",
        ),
        503 => (
            "has no server to send this to (503)",
            "see that Fanfare runs and that the proxy's health check of it succeeds: it should ask /ready at metrics.bind",
        ),
        _ => (
            "waited in vain for an answer (504)",
            "see that nothing between proxy and Fanfare drops packets (firewall, security group, network policy)",
        ),
    };
    Finding::failed(format!("{} {what}", answer.who()), remedy)
}

/// The first line of a text of somebody else's, of bearable length.
pub(super) fn first_line(text: &str) -> String {
    if text.starts_with('<') {
        return "(a page)".to_owned();
    }
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() { "(no text)".to_owned() } else { cut(line, 160).into_owned() }
}

/// The path that the server has seen, from what it says should have been signed.
fn signed_path(text: &str) -> String {
    let path = text.split("\\n").nth(1).unwrap_or("to what is unknown");
    cut(path, 100).into_owned()
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
