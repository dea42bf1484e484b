//! `GET /channels`, `/channels/{name}` and `/channels/{name}/users`, and the old endpoints.

use serde_json::{Value, json};

use crate::support::{Broker, Client, member};

const INFO_TEXT: &str = "info should be a comma separated list of attributes";

#[test]
fn p82_only_occupied_channels_are_listed() {
    let broker = Broker::start();
    let channels = broker.get("/channels").send();
    assert_eq!(channels.body, r#"{"channels":{}}"#);
    channels.ok();
    let mut client = broker.connect();
    for channel in ["news", "private-room", "privatefoo"] {
        client.subscribe(channel);
    }
    client.join("presence-room", &member("ann"));
    broker.publish("nobody-listens", "e", "d");
    broker.publish("cache-nobody-listens", "e", "d");
    let all = json!({ "news": {}, "private-room": {}, "privatefoo": {}, "presence-room": {} });
    assert_eq!(broker.channels(), all);

    client.unsubscribe("news");
    client.expect_served();
    let rest = json!({ "private-room": {}, "privatefoo": {}, "presence-room": {} });
    assert_eq!(broker.channels(), rest);
}

#[test]
fn p82_a_prefix_filters() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for channel in ["news", "newsroom", "private-news"] {
        client.subscribe(channel);
    }
    let filtered = |prefix: &str| {
        broker.get("/channels").param("filter_by_prefix", prefix).send().ok()["channels"].clone()
    };
    assert_eq!(filtered("news"), json!({ "news": {}, "newsroom": {} }));
    assert_eq!(filtered("private-"), json!({ "private-news": {} }));
    assert_eq!(filtered("presence-"), json!({}));
    assert_eq!(filtered("News"), json!({}));
    assert_eq!(filtered("").as_object().map(|channels| channels.len()), Some(3));
}

#[test]
fn p82_counts_are_told_on_demand() {
    let broker = Broker::start();
    let _tabs = [broker.joined("presence-a", "ann"), broker.joined("presence-a", "ann")];
    let _bob = broker.joined("presence-b", "bob");
    let _listener = broker.subscriber("news");
    let presence = |info: &str| {
        let request = broker.get("/channels").param("filter_by_prefix", "presence-");
        request.param("info", info).send().ok()["channels"].clone()
    };
    let users = json!({ "presence-a": { "user_count": 1 }, "presence-b": { "user_count": 1 } });
    assert_eq!(presence("user_count"), users);
    let both = json!({
        "presence-a": { "user_count": 1, "subscription_count": 2 },
        "presence-b": { "user_count": 1, "subscription_count": 1 },
    });
    assert_eq!(presence("user_count,subscription_count"), both);

    let all = broker.get("/channels").param("info", "subscription_count").send().ok();
    assert_eq!(all["channels"]["news"], json!({ "subscription_count": 1 }));
    assert_eq!(all["channels"]["presence-a"], json!({ "subscription_count": 2 }));
}

#[test]
fn p82_user_count_needs_the_presence_prefix() {
    let broker = Broker::start();
    let text = "user_count may only be requested for presence channels - \
                please supply filter_by_prefix begining with presence-";
    let request = broker.get("/channels").param("info", "user_count");
    request.send().refused(400, text);
    for prefix in ["", "private-", "presence", "presenc", "Presence-"] {
        request.clone().param("filter_by_prefix", prefix).send().refused(400, text);
    }
    request.clone().param("filter_by_prefix", "presence-room").send().ok();
    let both = broker.get("/channels").param("info", "subscription_count,user_count");
    both.send().refused(400, text);
}

#[test]
fn unknown_attributes_are_refused() {
    let broker = Broker::start();
    for info in ["users", "user_count,users", "cache", "User_count"] {
        let request = broker.get("/channels").param("filter_by_prefix", "presence-");
        request.param("info", info).send().refused(400, INFO_TEXT);
    }
    for info in ["users", "subscription_count,x", "occupied"] {
        let request = broker.get("/channels/news").param("info", info);
        request.send().refused(400, INFO_TEXT);
    }
}

#[test]
fn p83_a_channel_is_occupied_or_not() {
    let broker = Broker::start();
    for name in ["news", "private-room", "presence-room", "cache-news"] {
        assert_eq!(broker.get(&format!("/channels/{name}")).send().body, r#"{"occupied":false}"#);
    }
    let client = broker.subscriber("news");
    let occupied = || broker.get("/channels/news").send().ok();
    assert_eq!(occupied(), json!({ "occupied": true }));
    client.leave();
    crate::support::until("the channel is vacated", || occupied() == json!({ "occupied": false }));
}

#[test]
fn p83_counts_of_one_channel() {
    let broker = Broker::start();
    let _listeners = [broker.subscriber("news"), broker.subscriber("news")];
    let api = broker.api();
    let expected = json!({ "occupied": true, "subscription_count": 2 });
    assert_eq!(api.channel("news", "subscription_count"), expected);
    let expected = json!({ "occupied": false, "subscription_count": 0 });
    assert_eq!(api.channel("empty", "subscription_count"), expected);
    let expected = json!({ "occupied": false, "user_count": 0, "subscription_count": 0 });
    assert_eq!(api.channel("presence-empty", "user_count,subscription_count"), expected);
    for name in ["news", "empty", "private-room", "presencefoo"] {
        let reply = api.get(&format!("/channels/{name}")).param("info", "user_count").send();
        let text = "Cannot retrieve the user count unless the channel is a presence channel";
        reply.refused(400, text);
    }
}

#[test]
fn p83_the_cache_of_a_channel() {
    let broker = Broker::start();
    let api = broker.api();
    let empty = json!({ "occupied": false, "cache": null });
    for name in ["cache-a", "private-cache-a", "private-encrypted-cache-a", "presence-cache-a"] {
        assert_eq!(api.channel(name, "cache"), empty);
    }
    broker.publish("cache-a", "e", "{\"x\" : 1}");
    let mut reply = api.channel("cache-a", "cache");
    let ttl = reply["cache"]["ttl"].take();
    assert!(ttl.as_u64().is_some_and(|ttl| (1790..=1800).contains(&ttl)), "{ttl}");
    let cache = json!({ "data": "{\"x\" : 1}", "ttl": null });
    assert_eq!(reply, json!({ "occupied": false, "cache": cache }));

    for name in ["news", "private-room", "presence-room", "cachefoo"] {
        let reply = api.get(&format!("/channels/{name}")).param("info", "cache").send();
        reply.refused(400, "Cannot retrieve the cache unless the channel is a cache channel");
    }
    let all = api.channel("presence-cache-a", "cache,user_count,subscription_count");
    let expected = json!({ "occupied": false, "cache": null, "user_count": 0, "subscription_count": 0 });
    assert_eq!(all, expected);
}

#[test]
fn p83_a_name_in_the_path_is_decoded_and_checked() {
    let broker = Broker::start();
    let _listener = broker.subscriber("a@b=c,d;e");
    let api = broker.api();
    for path in ["/channels/a@b=c,d;e", "/channels/a%40b%3Dc%2Cd%3Be", "/channels/%61%40b=c,d;e"] {
        assert_eq!(api.get(path).send().ok(), json!({ "occupied": true }), "{path}");
    }
    for path in ["/channels/a%20b", "/channels/a:b", "/channels/%C3%BC", "/channels/a%2Fb"] {
        let reply = api.get(path).send();
        reply.refused_with(400, "Invalid channel name '");
    }
    let reply = api.get(&format!("/channels/{}", "x".repeat(165))).send();
    reply.refused_with(400, "Invalid channel name 'xxx");
    assert_eq!(api.get("/channels/%ff").send().status, 400);
}

#[test]
fn p84_users_are_told_once_each_as_strings() {
    let broker = Broker::start();
    let _tabs = [broker.joined("presence-a", "ann"), broker.joined("presence-a", "ann")];
    let mut ten = broker.connect();
    ten.join("presence-a", r#"{"user_id":10}"#);
    assert_eq!(broker.users("presence-a"), ["10", "ann"]);
    let empty = broker.get("/channels/presence-empty/users").send();
    assert_eq!(empty.body, r#"{"users":[]}"#);
    empty.ok();
}

#[test]
fn p84_users_of_other_channels_are_refused() {
    let broker = Broker::start();
    let _listener = broker.subscriber("private-room");
    for name in ["private-room", "news", "presencefoo", "cache-a"] {
        let reply = broker.get(&format!("/channels/{name}/users")).send();
        reply.refused(400, "Users can only be retrieved for presence channels");
    }
}

#[test]
fn p85_users_and_connections_are_counted_apart() {
    let broker = Broker::start();
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..12 {
        clients.push(broker.joined("presence-a", &format!("u{}", number % 4)));
    }
    let counts = || broker.channel("presence-a", "user_count,subscription_count");
    let expected = json!({ "occupied": true, "user_count": 4, "subscription_count": 12 });
    assert_eq!(counts(), expected);
    for client in &mut clients[..9] {
        client.unsubscribe("presence-a");
        client.ping();
        while client.next()["event"] != "pusher:pong" {}
    }
    let expected = json!({ "occupied": true, "user_count": 3, "subscription_count": 3 });
    assert_eq!(counts(), expected);
}

#[test]
fn p86_extraneous_parameters_are_refused() {
    let broker = Broker::start();
    let text = |name| format!("The following query string parameters are extraneous: {name}");
    let users = broker.get("/channels/presence-a/users");
    users.clone().param("info", "user_count").send().refused(400, &text("info"));
    users.param("filter_by_prefix", "x").send().refused(400, &text("filter_by_prefix"));
    broker.get("/channels").param("page", "2").send().refused(400, &text("page"));
    broker
        .get("/channels/news")
        .param("filter_by_prefix", "x")
        .send()
        .refused(400, &text("filter_by_prefix"));
    let terminate = broker.post("/users/ann/terminate_connections", &json!({}));
    terminate.param("reason", "x").send().refused(400, &text("reason"));
}

#[test]
fn p86_extraneous_parameters_can_be_ignored() {
    let broker = Broker::with("api.extraneous_parameters = \"ignore\"");
    let api = broker.api();
    api.get("/channels/presence-a/users").param("info", "user_count").send().ok();
    api.get("/channels").param("page", "2").send().ok();
    api.get("/channels/news").param("page", "2").send().ok();
    api.post("/users/ann/terminate_connections", &json!({})).param("x", "y").send().ok();
}

#[test]
fn p87_no_reply_is_empty_or_a_redirect() {
    // The API client of these stories checks both for each reply it reads; here are the odd paths.
    let broker = Broker::start();
    for path in ["/", "", "/channels/", "/channels//users", "/events/", "/apps", "/users"] {
        let reply = broker.get(path).send();
        assert!(reply.status >= 400, "{path}: {reply:?}");
        assert!(!reply.body.is_empty(), "{path}: {reply:?}");
        assert_eq!(reply.header("location"), None);
    }
}

#[test]
fn the_old_publish_endpoint_answers_202() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let request = broker.post_bytes("/channels/news/events", "raw \"data\" 日本");
    let reply = request.clone().param("name", "e").send();
    assert_eq!((reply.status, reply.body.as_str()), (202, ""));
    client.expect_event("news", "e", "raw \"data\" 日本");
    request.clone().param("name", "e").param("socket_id", client.id()).send();
    client.expect_silence();
    assert_eq!(request.send().status, 400);
    let not_utf8 = broker.post_bytes("/channels/news/events", b"\xff".to_vec());
    assert_eq!(not_utf8.param("name", "e").send().status, 400);
    client.expect_silence();
}

#[test]
fn the_old_stats_endpoint_counts() {
    let broker = Broker::start();
    let _tabs = [broker.joined("presence-a", "ann"), broker.joined("presence-a", "ann")];
    let stats: Value = broker.get("/channels/presence-a/stats").send().ok();
    assert_eq!(stats["occupied"], true);
    assert_eq!(stats["user_count"], 1);
    assert_eq!(stats["connection_count"], 2);
}
