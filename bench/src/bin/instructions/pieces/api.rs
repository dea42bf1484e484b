//! What a backend calls.

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use fanfare::api::{Resource, Route, Signed, Unchecked, dispatch};
use fanfare::app::Apps;
use fanfare::config::Config;
use fanfare::hub::Subscription;
use fanfare::mirror::Ticket;
use fanfare::node::{Letter, Mailbox, Node};
use fanfare::protocol::{Query, Secret};
use md5::{Digest, Md5};

use super::{EVENT, KEY, PRIVATE_CHANNEL, Piece, SECRET, app, channel, counted_operation, data_literal};

pub(super) const PIECES: &[Piece] = &[
    Piece {
        name: "api-signature",
        about: "Key, time, signature and MD5 of a POST /events with 100 bytes of data are checked",
        times: 500,
        run: signature,
    },
    Piece {
        name: "api-publish",
        about: "A checked POST /events is read and put into the mailbox of a worker with 1 subscriber",
        times: 1000,
        run: publish,
    },
];

const PATH: &str = "/apps/1/events";
const TIMESTAMP: u64 = 1_353_088_179;

fn signature(times: u32) {
    let apps = Apps::new([app()]).expect("a valid app");
    let (route, body) = (Route::parse(PATH).expect("a route"), body());
    let query = signed_query(&body);
    let body = body.as_bytes();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(TIMESTAMP);
    for _ in 0..times {
        counted_operation(|| {
            let request = Unchecked { method: "POST", path: PATH, query: &query, body };
            let checked = Signed::check(black_box(request), &route, &apps, 600, now);
            assert!(checked.is_ok());
            checked
        });
    }
}

fn publish(times: u32) {
    let mut config = Config::default();
    config.server.workers = 1;
    let node = Node::new(config, Apps::new([app()]).expect("a valid app"));
    let app = node.apps().by_id("1").expect("the app just made").clone();
    let (worker, mut mailbox) = node.take_mailbox().expect("that of the one worker");
    let (channel, now) = (channel(PRIVATE_CHANNEL), Instant::now());
    let new = Subscription { app: &app, channel: &channel, worker, member: None, notice: None, now };
    node.subscribe(new, Ticket(0)).expect("room in a channel without presence");
    let body = body();
    let query = signed_query(&body);
    let query = Query::parse(&query).expect("a query");
    let signed = Signed { app, query };
    let mut letters = Vec::new();
    for _ in 0..times {
        counted_operation(|| {
            let answer = dispatch(&node, black_box(&signed), &Resource::Events, black_box(body.as_bytes()));
            let answer = pin!(answer).poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(answer, Poll::Ready(Ok(_))));
            answer
        });
        take_letter(&mut mailbox, &mut letters);
    }
}

/// Takes the letter that waits, so that every publish finds the mailbox empty. The worker's part: not counted.
fn take_letter(mailbox: &mut Mailbox<Letter>, letters: &mut Vec<Letter>) {
    let taken = pin!(mailbox.take(letters, 2)).poll(&mut Context::from_waker(Waker::noop()));
    assert!(taken.is_ready() && letters.len() == 1, "one event, one letter");
    letters.clear();
}

fn body() -> String {
    format!(r#"{{"name":{EVENT},"channels":["{PRIVATE_CHANNEL}"],"data":{}}}"#, data_literal(100))
}

/// The query string of a call, as the official SDKs put it together.
fn signed_query(body: &str) -> String {
    let md5 = hex::encode(Md5::digest(body));
    let query = format!("auth_key={KEY}&auth_timestamp={TIMESTAMP}&auth_version=1.0&body_md5={md5}");
    let signature = Secret::new(SECRET).sign(&[format!("POST\n{PATH}\n{query}").as_bytes()]);
    format!("{query}&auth_signature={signature}")
}
