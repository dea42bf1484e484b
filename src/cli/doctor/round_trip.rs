//! What clients and backends do all day: connect, subscribe, publish, receive; and stay.
//!
//! The channel is one that nobody else can have, so the app notices nothing but its webhooks.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use tokio::time::{Instant as Deadline, timeout, timeout_at};

use crate::cli::doctor::backend::Answer;
use crate::cli::doctor::place::Credentials;
use crate::cli::doctor::report::{Finding, Report};
use crate::cli::doctor::socket::{End, Socket, open};
use crate::cli::doctor::upgrade::{ended, goodbye, late, refused};
use crate::cli::doctor::way::Way;
use crate::protocol::cut;

/// Everything that is looked at here.
pub(super) const HOPS: [&str; 8] =
    ["upgrade", "app_key", "subscribe", "api", "publish", "delivery", "large_event", "long_connection"];

/// So many events are published, each on a connection of its own: of two servers behind one address both get some.
const EVENTS: usize = 8;

/// Pusher's longest event, 10 KB, with room for its name.
const LARGE: usize = 10_000;

const NAME: &str = "doctor";
const NAME_OF_LARGE: &str = "doctor-large";

/// One round trip.
pub(super) struct RoundTrip<'a> {
    pub(super) way: &'a Way,
    pub(super) credentials: &'a Credentials,
    pub(super) origin: Option<&'a str>,
    pub(super) hold: Duration,
    /// Seconds after which the server pings, if its configuration is known.
    pub(super) ping_after_s: Option<u64>,
}

impl RoundTrip<'_> {
    /// Makes it, and tells of every hop.
    pub(super) async fn make(&self, report: &mut Report) {
        let channel = format!("private-fanfare-doctor-{:016x}", rand::random::<u64>());
        let mut subscribed = None;
        match self.connect(report).await {
            Some(mut socket) => {
                let joined = report.check("subscribe", self.subscribe(&mut socket, &channel)).await;
                subscribed = joined.then_some(socket);
            }
            None => report.skip(&["subscribe"], "there is no connection"),
        }
        let called = report.check("api", self.call(&channel)).await;
        let published = match called {
            true => report.check("publish", self.publish(&channel)).await,
            false => {
                report.skip(&["publish"], "api failed");
                false
            }
        };
        let Some(mut socket) = subscribed else {
            report.skip(&["delivery", "large_event", "long_connection"], "there is no subscription");
            return;
        };
        let open = match published {
            true => self.receive(report, &mut socket, &channel).await,
            false => {
                report.skip(&["delivery", "large_event"], "nothing was published");
                true
            }
        };
        match open {
            true => drop(report.check("long_connection", self.stay(&mut socket)).await),
            false => report.skip(&["long_connection"], "the connection has ended"),
        }
        socket.leave().await;
    }

    /// Upgrades, and is greeted.
    async fn connect(&self, report: &mut Report) -> Option<Socket> {
        let began = Instant::now();
        let limit = self.way.limit();
        let place = self.way.place();
        let target = format!(
            "{}/app/{}?protocol=7&client=fanfare-doctor&version={}&flash=false",
            place.prefix,
            utf8_percent_encode(&self.credentials.key, NON_ALPHANUMERIC),
            env!("CARGO_PKG_VERSION")
        );
        let wire = match self.way.connect().await {
            Ok(wire) => wire,
            Err(error) => {
                let finding = Finding::failed(
                    format!("no second connection: {error}"),
                    "see whether something on the way limits connections",
                );
                report.add("upgrade", finding, began);
                report.skip(&["app_key"], "upgrade failed");
                return None;
            }
        };
        let opened = timeout(limit, open(wire, &place.authority(), &target, self.origin)).await;
        let (finding, socket) = match opened {
            Ok(Ok(socket)) => (Finding::ok("WebSockets are passed on"), Some(socket)),
            Ok(Err(no)) => (refused(&no), None),
            Err(_) => (late(limit.as_secs()), None),
        };
        report.add("upgrade", finding, began);
        let Some(mut socket) = socket else {
            report.skip(&["app_key"], "upgrade failed");
            return None;
        };
        report.check("app_key", self.greeting(&mut socket)).await.then_some(socket)
    }

    async fn greeting(&self, socket: &mut Socket) -> Finding {
        let first = ["pusher:connection_established", "pusher:error"];
        let event = match self.within(socket.wait_for(&first)).await {
            Ok(event) => event,
            Err(finding) => return finding.unwrap_or_else(|| {
                Finding::failed(
                    format!("the WebSocket is open, and nothing comes within {} s", self.way.limit().as_secs()),
                    "a proxy on the way holds back what the server sends: switch its buffering off for /app/ (nginx: \
                     proxy_buffering off), and have it pass WebSockets on as they are",
                )
            }),
        };
        let fields = event.fields();
        if event.name == "pusher:error" {
            let code = fields["code"].as_u64().and_then(|code| u16::try_from(code).ok());
            return goodbye(code, fields["message"].as_str().unwrap_or_default(), self.credentials);
        }
        let timeout_s = fields["activity_timeout"].as_u64().unwrap_or_default();
        let key = &self.credentials.key;
        Finding::ok(format!("key {key} is known; clients ping after {timeout_s} s of silence"))
    }

    async fn subscribe(&self, socket: &mut Socket, channel: &str) -> Finding {
        // Told in the greeting, which is read by now.
        let Some(socket_id) = socket.id().map(str::to_owned) else {
            return Finding::failed(
                "the greeting has no socket id",
                "see what answers there: it is no Fanfare",
            );
        };
        let auth = self.credentials.token(&socket_id, channel);
        let wish = json!({ "event": "pusher:subscribe", "data": { "channel": channel, "auth": auth } });
        if let Err(end) = socket.say(&wish).await {
            return ended(&end, self.credentials);
        }
        let answers = ["pusher_internal:subscription_succeeded", "pusher:subscription_error", "pusher:error"];
        let event = match self.within(socket.wait_for(&answers)).await {
            Ok(event) => event,
            Err(finding) => return finding.unwrap_or_else(|| {
                Finding::failed(
                    format!("no answer within {} s", self.way.limit().as_secs()),
                    "what the client sends does not arrive, or in a cluster Redis is away: see fanfare status and the \
                     server's log",
                )
            }),
        };
        if event.name.ends_with("succeeded") {
            return Finding::ok(format!("subscribed to {channel}"));
        }
        let fields = event.fields();
        let message = fields["message"].as_str().or(fields["error"].as_str()).unwrap_or_default();
        let key = &self.credentials.key;
        match message {
            // The server says what should have been signed, and repeats the signature.
            signature if signature.contains("Invalid signature") => Finding::failed(
                format!("the secret that belongs to key {key} is another one"),
                "compare the secret with that of the server's configuration: backends that authorize private channels \
                 need the same",
            ),
            other => Finding::failed(
                format!("refused: {}", cut(other, 200)),
                "see what the server says; limits are those of the app",
            ),
        }
    }

    /// Asks for the channel, with a signature.
    async fn call(&self, channel: &str) -> Finding {
        match self.way.backend.channel(channel).await {
            Err(error) => no_call(&error),
            Ok(answer) if answer.json().is_some() => Finding::ok("a signed call is answered"),
            Ok(answer) => self.way.backend.refusal(&answer),
        }
    }

    async fn publish(&self, channel: &str) -> Finding {
        for number in 0..EVENTS {
            let answer = self.way.backend.publish(channel, NAME, &number.to_string()).await;
            let bad = match answer {
                Ok(answer) if answer.json().is_some() => continue,
                Ok(answer) => self.way.backend.refusal(&answer),
                Err(error) => no_call(&error),
            };
            let which = if number == 0 { String::new() } else { format!("{number} were accepted, then: ") };
            return Finding { detail: format!("{which}{}", bad.detail), ..bad };
        }
        Finding::ok(format!("{EVENTS} events were accepted"))
    }

    /// Waits for what was published. Gives whether the connection is still there.
    async fn receive(&self, report: &mut Report, socket: &mut Socket, channel: &str) -> bool {
        let began = Instant::now();
        let mut seen = BTreeSet::new();
        let deadline = Deadline::now() + self.way.limit();
        let end = loop {
            if seen.len() == EVENTS {
                break None;
            }
            match timeout_at(deadline, socket.next()).await {
                Err(_) => break None,
                Ok(Err(end)) => break Some(end),
                Ok(Ok(event)) if event.name == NAME && event.channel.as_deref() == Some(channel) => {
                    seen.extend(event.data.as_str().and_then(|data| data.parse::<usize>().ok()));
                }
                Ok(Ok(_)) => {}
            }
        };
        if let Some(end) = end {
            report.add("delivery", ended(&end, self.credentials), began);
            report.skip(&["large_event"], "the connection has ended");
            return false;
        }
        let finding = match seen.len() {
            EVENTS => Finding::ok(format!("all {EVENTS} events arrived")),
            count => self.missing(channel, count).await,
        };
        if !report.add("delivery", finding, began) {
            report.skip(&["large_event"], "delivery failed");
            return true;
        }
        report.check("large_event", self.large(socket, channel)).await;
        true
    }

    /// Why accepted events have not arrived.
    async fn missing(&self, channel: &str, arrived: usize) -> Finding {
        let (mut knows, mut knows_not) = (0, 0);
        for _ in 0..EVENTS {
            let occupied = |answer: Answer| answer.json()?["occupied"].as_bool();
            match self.way.backend.channel(channel).await.ok().and_then(occupied) {
                Some(true) => knows += 1,
                Some(false) => knows_not += 1,
                None => {}
            }
        }
        let seen = format!(
            "every publish was answered with 200, but {} of {EVENTS} events did not arrive within {} s",
            EVENTS - arrived,
            self.way.limit().as_secs()
        );
        let one_cluster = "give all servers behind this address the same redis.url and redis.prefix, so that they are \
                           one cluster (fanfare nodes lists who is in it)";
        match (knows, knows_not) {
            (0, 0) => Finding::failed(seen, "see the server's log, and fanfare status"),
            (_, 0) => Finding::failed(
                format!("{seen}, though every answer says that the channel has a subscriber"),
                "a proxy on the way holds back what the server sends: switch its buffering off for /app/; in a cluster, \
                 see in fanfare status whether Redis is away",
            ),
            (0, _) => Finding::failed(
                format!("{seen}: who answers the API knows of no subscriber"),
                format!("/app/ and /apps/ lead to different servers that do not share Redis: {one_cluster}"),
            ),
            _ => Finding::failed(
                format!("{seen}: some answers know of the subscriber and some do not"),
                format!("there are several servers that do not share Redis: {one_cluster}"),
            ),
        }
    }

    /// The longest event that Pusher allows.
    async fn large(&self, socket: &mut Socket, channel: &str) -> Finding {
        let length = LARGE.min(self.credentials.app.event_data_bytes_max);
        let data = "x".repeat(length);
        match self.way.backend.publish(channel, NAME_OF_LARGE, &data).await {
            Err(error) => return no_call(&error),
            Ok(answer) if answer.json().is_some() => {}
            Ok(answer) if answer.text.contains("exceeds the allowed maximum") => {
                return Finding::warning(
                    format!("the app takes no event of {length} bytes"),
                    "raise its event_data_bytes_max if such events are wanted",
                );
            }
            Ok(answer) => return self.way.backend.refusal(&answer),
        }
        match self.within(socket.wait_for(&[NAME_OF_LARGE])).await {
            Ok(event) if event.data.as_str() == Some(&data) => {
                Finding::ok(format!("an event of {length} bytes arrived whole"))
            }
            Ok(_) => Finding::failed(
                format!("an event of {length} bytes arrived changed"),
                "something on the way changes what passes: switch compression, rewriting and inspection off for /app/",
            ),
            Err(Some(finding)) => finding,
            Err(None) => Finding::failed(
                format!("small events arrive, one of {length} bytes does not"),
                "a proxy on the way limits or holds back long messages: raise its limit for WebSocket messages to 64 KB \
                 and switch buffering off for /app/",
            ),
        }
    }

    /// Stays connected and silent, then asks whether the other end is still there.
    async fn stay(&self, socket: &mut Socket) -> Finding {
        let began = Instant::now();
        let deadline = Deadline::now() + self.hold;
        loop {
            match timeout_at(deadline, socket.next()).await {
                Err(_) => break,
                Ok(Ok(_)) => {}
                Ok(Err(end)) => return self.cut_short(&end, began.elapsed()),
            }
        }
        if let Err(end) = socket.say(&json!({ "event": "pusher:ping", "data": {} })).await {
            return self.cut_short(&end, began.elapsed());
        }
        let held = self.hold.as_secs();
        match self.within_or_end(socket.wait_for(&["pusher:pong"])).await {
            Err(Some(end)) => self.cut_short(&end, began.elapsed()),
            Err(None) => Finding::failed(
                format!("after {held} s of silence a ping is not answered, and the connection is not closed"),
                format!("a proxy or firewall on the way has forgotten the connection: {}", self.patience()),
            ),
            Ok(_) if held < self.interval_s() => Finding::ok(format!(
                "open after {held} s; --hold-s {} finds proxies that cut silent connections",
                self.interval_s() + 30
            )),
            Ok(_) => Finding::ok(format!("open after {held} s")),
        }
    }

    /// The longest silence that a connection in order has.
    fn interval_s(&self) -> u64 {
        self.ping_after_s.unwrap_or(60)
    }

    fn patience(&self) -> String {
        let interval_s = self.interval_s();
        format!(
            "raise its time-out for idle connections above {interval_s} s, after which the server pings (nginx: \
             proxy_read_timeout {}s), or lower connection.ping_after_s",
            interval_s + 30
        )
    }

    fn cut_short(&self, end: &End, after: Duration) -> Finding {
        let after_s = after.as_secs();
        match end {
            // In Fanfare's own words.
            End::Closed(Some(4000..5000), _) | End::Nonsense(_) => ended(end, self.credentials),
            End::Closed(..) | End::Cut(_) => Finding::failed(
                format!("the connection was cut after {after_s} s of silence, by somebody on the way"),
                self.patience(),
            ),
        }
    }

    /// What comes in time; otherwise what it means that the connection has ended, if it has.
    async fn within<T>(&self, what: impl Future<Output = Result<T, End>>) -> Result<T, Option<Finding>> {
        let end = |end: Option<End>| end.map(|end| ended(&end, self.credentials));
        self.within_or_end(what).await.map_err(end)
    }

    async fn within_or_end<T>(&self, what: impl Future<Output = Result<T, End>>) -> Result<T, Option<End>> {
        match timeout(self.way.limit(), what).await {
            Err(_) => Err(None),
            Ok(Err(end)) => Err(Some(end)),
            Ok(Ok(done)) => Ok(done),
        }
    }
}

fn no_call(error: &str) -> Finding {
    Finding::failed(
        format!("no answer: {error}"),
        "something on the way answers some calls and not others: see the log of the proxy and of each server behind it",
    )
}
