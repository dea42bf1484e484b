//! One attempt: a signed POST, and what the receiver makes of it.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::redirect::Policy;
use reqwest::{Client, Request, Response};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot::{Sender, channel};
use tokio::task::JoinSet;

use crate::config::Webhooks;
use crate::webhook::address::{Permitted, Refused};
use crate::webhook::delivery::{Attempt, Failure};

/// How much of an answer is read, so that its connection can be used again. Nobody looks at it.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// And for how long: the status has said everything.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a connection is kept for the next request. Many servers close theirs after 5 seconds; a request that meets
/// such a close fails and has to wait for its next attempt.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);

/// The thread on which requests are made.
///
/// A receiver can keep the HTTP client busy for as long as a request may take, with interim answers without end. That
/// must cost neither the hubs nor the probes of health anything.
#[derive(Debug)]
pub(super) struct Outside {
    thread: Handle,
    poster: Poster,
    // The thread ends with it.
    _end: Sender<Infallible>,
}

impl Outside {
    /// # Errors
    /// When the system has no more threads or files.
    pub(super) fn new(settings: &Webhooks) -> io::Result<Self> {
        let poster = Poster::new(settings).map_err(io::Error::other)?;
        // Time limits are looked at after every step: a flood delays them less.
        let runtime = Builder::new_current_thread().event_interval(1).enable_all().build()?;
        let (end, ended) = channel();
        let thread = runtime.handle().clone();
        std::thread::Builder::new()
            .name("webhooks".to_owned())
            .spawn(move || drop(runtime.block_on(ended)))?;
        Ok(Self { thread, poster, _end: end })
    }

    /// Begins an attempt there, among others.
    pub(super) fn post<T: Send + 'static>(
        &self,
        attempts: &mut JoinSet<T>,
        attempt: Attempt,
        done: impl FnOnce(Result<(), Failure>) -> T + Send + 'static,
    ) {
        let poster = self.poster.clone();
        attempts.spawn_on(async move { done(poster.post(attempt).await) }, &self.thread);
    }
}

/// Posts to receivers. Cloning shares the connections.
#[derive(Clone, Debug)]
struct Poster {
    client: Client,
    permitted: Permitted,
    timeout: Duration,
}

impl Poster {
    /// # Errors
    /// When there is no way to make HTTP requests.
    fn new(settings: &Webhooks) -> Result<Self, reqwest::Error> {
        let permitted = Permitted::new(&settings.allowed_networks);
        let timeout = Duration::from_secs(settings.timeout_s);
        let builder = || {
            Client::builder()
                .dns_resolver(permitted.clone())
                // A proxy would connect where we must not, and a redirect lead there.
                .no_proxy()
                .redirect(Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                // Some receivers look headers up as the documentation writes them.
                .http1_title_case_headers()
                .timeout(timeout)
                .pool_max_idle_per_host(settings.concurrency)
                .pool_idle_timeout(IDLE_TIME_MAX)
        };
        let client = builder().build().or_else(|error| {
            tracing::warn!(
                error = %told(&error),
                "receivers of webhooks cannot be reached by https: install the system's CA certificates"
            );
            builder().tls_certs_only([]).build()
        })?;
        Ok(Self { client, permitted, timeout })
    }

    /// Makes an attempt.
    async fn post(&self, attempt: Attempt) -> Result<(), Failure> {
        let request = self.request(attempt)?;
        self.permitted.check_url(request.url())?;
        let response = self.client.execute(request).await.map_err(|error| self.failure(error))?;
        let status = response.status();
        read_out(response).await;
        if status.is_success() { Ok(()) } else { Err(Failure::Status(status.as_u16())) }
    }

    fn request(&self, attempt: Attempt) -> Result<Request, Failure> {
        let headers = headers(&attempt)?;
        // The client makes a header of credentials in the URL.
        let request = self.client.post(&attempt.endpoint.url).headers(headers).body(attempt.body);
        request.build().map_err(|error| Failure::Request(told(&error.without_url())))
    }

    fn failure(&self, error: reqwest::Error) -> Failure {
        if let Some(refused) = causes(&error).find_map(|cause| cause.downcast_ref::<Refused>()) {
            return Failure::Address(*refused);
        }
        match error.is_timeout() {
            true => Failure::Timeout(self.timeout),
            false => Failure::Connection(told(&error.without_url())),
        }
    }
}

fn headers(attempt: &Attempt) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("fanfare/", env!("CARGO_PKG_VERSION"))));
    for (name, value) in &attempt.endpoint.headers {
        // Values may be credentials: the error names none.
        let wrong = || Failure::Request("a header of the webhook is not valid".to_owned());
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| wrong())?);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let ours = [
        ("x-pusher-key", attempt.key.clone()),
        ("x-pusher-signature", attempt.signature.clone()),
        ("x-fanfare-delivery", attempt.id.to_string()),
        ("x-fanfare-attempt", attempt.number.to_string()),
    ];
    if attempt.again {
        headers.insert(HeaderName::from_static("x-fanfare-redelivery"), HeaderValue::from_static("true"));
    }
    for (name, value) in ours {
        let wrong =
            |_| Failure::Request(format!("{name} cannot be sent: the app's key does not fit a header"));
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(wrong)?;
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(headers)
}

/// Reads what else the receiver says, within bounds.
async fn read_out(mut response: Response) {
    let reading = async {
        let mut read = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            read += chunk.len();
            if read > ANSWER_BYTES_MAX {
                return;
            }
        }
    };
    // Whatever comes of it, the answer is known.
    let _ = tokio::time::timeout(ANSWER_TIME_MAX, reading).await;
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The innermost cause, which is the one that says something.
fn told(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}
