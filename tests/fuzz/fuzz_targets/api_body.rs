//! Bodies of a backend that is signed but wrong: no panic, an answer that is JSON, or an error of one line.

#![no_main]

use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use fanfare::api::{Answer, Resource, Signed, dispatch};
use fanfare::app::Apps;
use fanfare::config::Config;
use fanfare::node::Node;
use fanfare::protocol::Query;
use libfuzzer_sys::fuzz_target;

static NODE: LazyLock<Arc<Node>> =
    LazyLock::new(|| Node::new(Config::default(), Apps::new([Config::demo_app()]).expect("one app")));

fuzz_target!(|body: &[u8]| {
    let app = NODE.apps().by_id("1").expect("the app").clone();
    let signed = Signed { app, query: Query::default() };
    for resource in [Resource::Events, Resource::BatchEvents, Resource::ChannelEvents("cache-a".to_owned())] {
        let answer = pin!(dispatch(&NODE, &signed, &resource, body));
        let Poll::Ready(answer) = answer.poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("a node that is alone has nothing to wait for");
        };
        match answer {
            Ok(Answer::Json(value)) => assert!(value.is_object()),
            Ok(Answer::Text(text)) => assert!(text.starts_with('{')),
            Ok(Answer::Accepted) => {}
            Err(error) => {
                assert_eq!(error.to_string().trim_end_matches('\n').lines().count().max(1), 1, "{error}")
            }
        }
    }
});
