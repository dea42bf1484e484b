//! `POST /events`: one event to one or more channels.

use serde_json::{Value, json};

use crate::support::{Broker, Client, JS_PATH, member};

/// An event with `fields` laid over a valid one; `null` removes a field.
fn event(fields: Value) -> Value {
    let mut event = json!({ "name": "e", "channels": ["news"], "data": "d" });
    for (key, value) in fields.as_object().expect("fields") {
        if value == "REMOVED" {
            event.as_object_mut().expect("an event").remove(key);
        } else {
            event[key] = value.clone();
        }
    }
    event
}

/// Asserts that each of these events is refused and nothing is published.
#[track_caller]
fn check_refused(status: u16, message: &str, events: &[Value]) {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    for event in events {
        broker.trigger(event).refused(status, message);
    }
    client.expect_silence();
}

#[test]
fn p74_success_is_an_empty_object() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let reply = broker.trigger(&event(json!({})));
    assert_eq!(reply.body, "{}");
    assert_eq!(reply.ok(), json!({}));
    client.expect_event("news", "e", "d");
}

#[test]
fn p75_a_body_that_is_no_object_is_refused() {
    let broker = Broker::start();
    for body in ["", " ", "x", "[]", "7", "null", "\"text\"", "{", "{\"name\":}", "{}{}"] {
        let reply = broker.post_bytes("/events", body).send();
        if body.is_empty() {
            assert_eq!(reply.status, 400, "{reply:?}");
            assert!(!reply.text().is_empty());
        } else {
            reply.refused(400, "Invalid JSON provided");
        }
    }
    let not_utf8 = b"{\"name\":\"\xff\",\"channel\":\"a\",\"data\":\"\"}".to_vec();
    broker.post_bytes("/events", not_utf8).send().refused(400, "Invalid JSON provided");
}

#[test]
fn p75_a_missing_name_is_refused() {
    let events = [event(json!({ "name": "REMOVED" })), event(json!({ "name": null }))];
    check_refused(400, "Missing required parameter: name", &events);
    let broker = Broker::start();
    assert_eq!(broker.trigger(&event(json!({ "name": "" }))).status, 400);
}

#[test]
fn p75_a_name_that_is_no_string_is_refused() {
    let names = [json!(7), json!(["e"]), json!({}), json!(true)];
    let events = names.map(|name| event(json!({ "name": name })));
    check_refused(400, "Expected name parameter to be a string", &events);
}

#[test]
fn p75_a_name_has_at_most_200_characters() {
    let long = event(json!({ "name": "x".repeat(201) }));
    check_refused(400, "Event name too long (201 > 200)", &[long]);
    let wide = event(json!({ "name": "日".repeat(201) }));
    check_refused(400, "Event name too long (201 > 200)", &[wide]);
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    for name in ["x".repeat(200), "日".repeat(200)] {
        broker.publish("news", &name, "d");
        client.expect_event("news", &name, "d");
    }
}

#[test]
fn p75_missing_channels_are_refused() {
    let message = "Missing required parameter: channels";
    let events = [
        event(json!({ "channels": "REMOVED" })),
        event(json!({ "channels": null })),
        event(json!({ "channels": "REMOVED", "channel": null })),
    ];
    check_refused(400, message, &events);
}

#[test]
fn p75_channels_that_are_no_array_of_strings_are_refused() {
    let lists = [json!("news"), json!({}), json!(7), json!(["news", 7]), json!([null]), json!([[]])];
    let events = lists.map(|list| event(json!({ "channels": list })));
    check_refused(400, "Expected channels parameter to be an array of strings", &events);
}

#[test]
fn p75_missing_data_is_refused() {
    let message = "Missing required parameter: data";
    check_refused(400, message, &[event(json!({ "data": "REMOVED" })), event(json!({ "data": null }))]);
}

#[test]
fn p76_channel_and_channels_both_work() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for channel in ["a", "b", "c"] {
        client.subscribe(channel);
    }
    broker.trigger(&json!({ "name": "e", "channel": "a", "data": "1" })).ok();
    client.expect_event("a", "e", "1");
    broker.trigger(&json!({ "name": "e", "channels": ["b"], "data": "2" })).ok();
    client.expect_event("b", "e", "2");
    let both = json!({ "name": "e", "channel": "a", "channels": ["a", "c"], "data": "3" });
    broker.trigger(&both).ok();
    let mut heard = [client.next(), client.next()].map(|frame| frame["channel"].to_string());
    heard.sort();
    assert_eq!(heard, ["\"a\"", "\"c\""]);
    client.expect_silence();
}

#[test]
fn p76_a_channel_named_twice_hears_once() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let body = event(json!({ "channels": ["news", "other", "news"], "info": "subscription_count" }));
    let reply = broker.trigger(&body).ok();
    let channels = json!({ "news": { "subscription_count": 1 }, "other": { "subscription_count": 0 } });
    assert_eq!(reply, json!({ "channels": channels }));
    client.expect_event("news", "e", "d");
    client.expect_silence();
}

#[test]
fn p76_one_to_a_hundred_channels() {
    let names = |count| -> Vec<String> { (0..count).map(|number| format!("c{number}")).collect() };
    let broker = Broker::start();
    let mut client = broker.subscriber("c99");
    broker.trigger(&event(json!({ "channels": names(100) }))).ok();
    client.expect_event("c99", "e", "d");

    let reply = broker.trigger(&event(json!({ "channels": names(101) })));
    reply.refused(400, "Too many channels (101 > 100)");
    let reply = broker.trigger(&event(json!({ "channels": [] })));
    assert_eq!(reply.status, 400);
    assert!(!reply.text().is_empty());
    client.expect_silence();
}

#[test]
fn p77_data_has_at_most_10240_bytes() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let wide = "日".repeat(3_413) + "x";
    assert_eq!(wide.len(), 10_240);
    for fits in ["x".repeat(10_240), wide.clone(), "\n".repeat(10_240), "\u{1}".repeat(10_240)] {
        broker.publish("news", "e", &fits);
        client.expect_event("news", "e", &fits);
    }
    for too_much in ["x".repeat(10_241), wide + "x"] {
        let reply = broker.trigger(&event(json!({ "data": too_much })));
        let message = "The data content of this event exceeds the allowed maximum (10240 bytes)";
        reply.refused(413, message);
    }
    client.expect_silence();
}

#[test]
fn p77_the_limits_can_be_set() {
    let app = "event_data_bytes_max = 20000\nevent_name_max = 10\npublish_channels_max = 2";
    let broker = Broker::with_app(app);
    let mut client = broker.subscriber("news");
    broker.publish("news", "e", &"x".repeat(20_000));
    client.expect_event("news", "e", &"x".repeat(20_000));
    let reply = broker.trigger(&event(json!({ "data": "x".repeat(20_001) })));
    reply.refused(413, "The data content of this event exceeds the allowed maximum (20000 bytes)");
    let reply = broker.trigger(&event(json!({ "name": "x".repeat(11) })));
    reply.refused(400, "Event name too long (11 > 10)");
    let reply = broker.trigger(&event(json!({ "channels": ["a", "b", "c"] })));
    reply.refused(400, "Too many channels (3 > 2)");
}

#[test]
fn p78_names_of_the_server_are_refused() {
    for name in ["pusher:x", "pusher_internal:x", "pusher:", "pusher_internal:", "pusher:error"] {
        let message = format!("Invalid event name '{name}'");
        check_refused(400, &message, &[event(json!({ "name": name }))]);
    }
}

#[test]
fn p78_other_names_pass() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    for name in [
        "client-x",
        "App\\Events\\Shipped",
        ".Shipped",
        "pusher",
        "pusherx:y",
        "Pusher:x",
        "my:pusher:x",
        "pusher_internal",
        "a b",
        "日本",
    ] {
        broker.publish("news", name, "d");
        client.expect_event("news", name, "d");
    }
}

#[test]
fn p79_a_socket_can_be_excluded() {
    let broker = Broker::start();
    let mut clients: Vec<Client> = (0..6).map(|_| broker.subscriber("news")).collect();
    for excluded in 0..clients.len() {
        let body = event(json!({ "socket_id": clients[excluded].id() }));
        broker.trigger(&body).ok();
        for (number, client) in clients.iter_mut().enumerate() {
            if number == excluded {
                client.expect_silence();
            } else {
                client.expect_event("news", "e", "d");
            }
        }
    }
}

#[test]
fn p79_a_malformed_socket_id_is_refused() {
    let malformed = ["abc", "1", "1.", ".1", "1.2.3", "", "1.2 ", "a1.2", "1.2\n", "-1.2", "１.２"];
    for id in malformed {
        let message = format!("Invalid socket_id '{id}'");
        let broker = Broker::start();
        let reply = broker.trigger(&event(json!({ "socket_id": id })));
        if id.contains('\n') {
            reply.refused_with(400, "Invalid socket_id '1.2");
        } else {
            reply.refused(400, &message);
        }
    }
    let broker = Broker::start();
    for id in [json!(12), json!(["1.2"]), json!({}), json!(true)] {
        assert_eq!(broker.trigger(&event(json!({ "socket_id": id }))).status, 400);
    }
}

#[test]
fn p79_unknown_and_null_socket_ids_exclude_nobody() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let huge = format!("{}.{}", "9".repeat(30), "9".repeat(30));
    for id in [json!("1234.1234"), json!(null), json!("0.0"), json!(huge)] {
        broker.trigger(&event(json!({ "socket_id": id, "info": null }))).ok();
        client.expect_event("news", "e", "d");
    }
}

#[test]
fn p80_info_tells_what_applies_to_each_channel() {
    let broker = Broker::start();
    let _tabs = [broker.joined("presence-a", "ann"), broker.joined("presence-a", "ann")];
    let _other = broker.joined("presence-a", "bob");
    let _listener = broker.subscriber("b");
    let channels = ["presence-a", "b", "c", "presence-empty"];
    let ask = |info: &str| {
        broker.trigger(&event(json!({ "channels": channels, "info": info }))).ok()["channels"].clone()
    };
    assert_eq!(
        ask("user_count,subscription_count"),
        json!({
            "presence-a": { "user_count": 2, "subscription_count": 3 },
            "b": { "subscription_count": 1 },
            "c": { "subscription_count": 0 },
            "presence-empty": { "user_count": 0, "subscription_count": 0 },
        })
    );
    assert_eq!(
        ask("user_count"),
        json!({
            "presence-a": { "user_count": 2 }, "b": {}, "c": {},
            "presence-empty": { "user_count": 0 },
        })
    );
}

#[test]
fn p80_unknown_attributes_are_refused() {
    let message = "info should be a comma separated list of attributes";
    let infos = [json!("users"), json!("user_count,x"), json!(7), json!(["user_count"]), json!({})];
    let events = infos.map(|info| event(json!({ "info": info })));
    check_refused(400, message, &events);
}

#[test]
fn one_bad_channel_stops_the_whole_event() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let reply = broker.trigger(&event(json!({ "channels": ["news", "b@d name"] })));
    reply.refused(400, "Invalid channel name 'b@d name'");
    client.expect_silence();
}

#[test]
fn data_that_is_no_string_is_written_compactly() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    for (sent, heard) in [
        (r#"{ "a" : [ 1 , 2.5 ] }"#, r#"{"a":[1,2.5]}"#),
        ("17", "17"),
        ("true", "true"),
        ("[]", "[]"),
        ("12345678901234567890123", "12345678901234567890123"),
        (r#""""#, ""),
    ] {
        let body = format!(r#"{{"name":"e","channel":"news","data":{sent}}}"#);
        broker.post_bytes("/events", body).send().ok();
        client.expect_event("news", "e", heard);
    }
}

#[test]
fn unknown_fields_and_other_content_types_are_ignored() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    broker.trigger(&event(json!({ "extra": { "x": 1 }, "user_id": "forged" }))).ok();
    client.expect_event("news", "e", "d");
}

#[test]
fn parameters_may_stand_in_the_query() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for channel in ["a", "b"] {
        client.subscribe(channel);
    }
    let request = broker.request("POST", "/apps/1/events", "");
    let reply = request
        .clone()
        .param("name", "e")
        .param("data", "{\"x\": 1}")
        .param("channels[]", "a")
        .param("channels[]", "b")
        .param("info", "subscription_count")
        .send()
        .ok();
    let channels = json!({ "a": { "subscription_count": 1 }, "b": { "subscription_count": 1 } });
    assert_eq!(reply, json!({ "channels": channels }));
    let mut heard = [client.next(), client.next()];
    heard.sort_by_key(|frame| frame["channel"].to_string());
    for (frame, channel) in heard.iter().zip(["a", "b"]) {
        assert_eq!(frame, &json!({ "event": "e", "channel": channel, "data": "{\"x\": 1}" }));
    }

    let id = client.id().to_owned();
    let request = request.param("name", "e").param("data", "").param("channel", "a");
    request.clone().param("socket_id", &id).send().ok();
    client.expect_silence();
    request.send().ok();
    client.expect_event("a", "e", "");
}

#[test]
fn the_body_wins_over_the_query() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let body = json!({ "data": "from the body", "channel": "news" });
    let request = broker.post("/events", &body).param("name", "from-the-query");
    request.param("data", "from the query").send().ok();
    client.expect_event("news", "from-the-query", "from the body");
}

#[test]
fn an_event_to_nobody_is_accepted() {
    let broker = Broker::start();
    broker.publish("empty", "e", "d");
    broker.publish("presence-empty", "e", "d");
    broker.publish("#server-to-user-nobody", "e", "d");
    assert_eq!(broker.channels(), json!({}));
}

#[test]
fn a_publish_that_was_answered_reaches_every_subscriber() {
    let broker = Broker::start();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(broker.api(), JS_PATH)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.join("presence-room", &member(&number.to_string()));
    }
    broker.publish("presence-room", "e", "d");
    for (number, client) in clients.iter_mut().enumerate() {
        for later in number + 1..20 {
            client.expect_member_added("presence-room", &later.to_string());
        }
        client.expect_event("presence-room", "e", "d");
    }
}
