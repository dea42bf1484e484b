//! Signed requests: the shapes the SDKs send, and everything that must not pass.

use serde_json::json;

use crate::support::{Api, Broker, Http, KEY, Reply, SECRET, hmac_hex, md5_hex, string_to_sign, unix_now};

/// Sends `target` with `query` in which `SIGNATURE` stands for the signature of `signed`.
#[track_caller]
fn send(broker: &Broker, method: &str, target: &str, query: &str, signed: &str, body: &str) -> Reply {
    let query = query.replace("SIGNATURE", &hmac_hex(SECRET, signed));
    let mut http = Http::connect(broker.address());
    http.send(format!(
        "{method} {target}?{query} HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    http.reply()
}

/// The parameters every request has, in their sorted order.
fn auth_params() -> String {
    format!("auth_key={KEY}&auth_timestamp={}&auth_version=1.0", unix_now())
}

#[test]
fn p70_the_documented_vectors_are_what_these_stories_sign() {
    let auth = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0";
    let h1 = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    let h4 = "filter_by_prefix=presence-&info=user_count,subscription_count";
    for (request, tail, signature) in [
        (
            "POST\n/apps/3/events",
            format!("body_md5={}", md5_hex(h1.as_bytes())),
            "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c",
        ),
        (
            "GET\n/apps/3/channels",
            h4.to_owned(),
            "ff97d40ab3fbbd15394386a29c12998c33635305357b2e2abd18dc67efe3f87d",
        ),
        (
            "GET\n/apps/3/channels/presence-foobar",
            format!("body_md5={}&info=user_count", md5_hex(b"")),
            "69e9e932a5e0d34a2bd43ab5c1b30239ef5abbaf79f646be12d717d87ae0edfe",
        ),
        (
            "GET\n/apps/3/channels/presence-a@b=c,d;e.f_g",
            "info=user_count".to_owned(),
            "91b4c3432f045e5b1c8c9e644de5c4518d53a41019fe26e16fddc042ab919f51",
        ),
        (
            "POST\n/users/12345/terminate_connections",
            format!("body_md5={}", md5_hex(b"{}")),
            "e3c6b279be14c04728803c2f54d90bef57357d2bb2e1b8ae90507149cd3308d7",
        ),
    ] {
        let params: Vec<(String, String)> = format!("{auth}&{tail}")
            .split('&')
            .map(|pair| pair.split_once('=').expect("an equals sign"))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let (method, path) = request.split_once('\n').expect("method and path");
        let text = string_to_sign(method, path, &params);
        assert_eq!(hmac_hex("7ad3773142a6692b25b8", &text), signature, "{text}");
    }
}

#[test]
fn p70_commas_arrive_raw_or_escaped() {
    let broker = Broker::start();
    let _member = broker.joined("presence-room", "ann");
    let auth = auth_params();
    let tail = "filter_by_prefix=presence-&info=user_count,subscription_count";
    let signed = format!("GET\n/apps/1/channels\n{auth}&{tail}");
    let expected = json!({ "channels": {
        "presence-room": { "user_count": 1, "subscription_count": 1 },
    }});
    for tail in [tail.to_owned(), tail.replace(',', "%2C"), tail.replace(',', "%2c")] {
        let query = format!("{auth}&{tail}&auth_signature=SIGNATURE");
        let reply = send(&broker, "GET", "/apps/1/channels", &query, &signed, "");
        assert_eq!(reply.ok(), expected, "{tail}");
    }
}

#[test]
fn p70_parameters_come_in_any_order() {
    let broker = Broker::start();
    let now = unix_now();
    let signed = format!(
        "GET\n/apps/1/channels\nauth_key={KEY}&auth_timestamp={now}&auth_version=1.0&\
         filter_by_prefix=presence-&info=user_count,subscription_count"
    );
    let mut parts = [
        "auth_signature=SIGNATURE".to_owned(),
        "info=user_count%2Csubscription_count".to_owned(),
        format!("auth_key={KEY}"),
        "auth_version=1.0".to_owned(),
        "filter_by_prefix=presence-".to_owned(),
        format!("auth_timestamp={now}"),
    ];
    for _ in 0..parts.len() {
        parts.rotate_left(1);
        let reply = send(&broker, "GET", "/apps/1/channels", &parts.join("&"), &signed, "");
        assert_eq!(reply.ok(), json!({ "channels": {} }), "{parts:?}");
    }
}

#[test]
fn p70_a_plus_is_a_plus_or_a_space() {
    let broker = Broker::start();
    let auth = auth_params();
    for value in ["a b", "a+b"] {
        let signed = format!("GET\n/apps/1/channels\n{auth}&filter_by_prefix={value}");
        let query = format!("{auth}&filter_by_prefix=a+b&auth_signature=SIGNATURE");
        send(&broker, "GET", "/apps/1/channels", &query, &signed, "").ok();
    }
    let signed = format!("GET\n/apps/1/channels\n{auth}&filter_by_prefix=a b");
    let query = format!("{auth}&filter_by_prefix=a%20b&auth_signature=SIGNATURE");
    send(&broker, "GET", "/apps/1/channels", &query, &signed, "").ok();
}

#[test]
fn p70_a_percent_encoded_path_is_signed_raw_or_decoded() {
    let broker = Broker::start();
    let name = "presence-a@b=c,d;e.f_g";
    let _member = broker.joined(name, "ann");
    let auth = auth_params();
    let encoded = "/apps/1/channels/presence-a%40b%3Dc%2Cd%3Be.f_g";
    let plain = format!("/apps/1/channels/{name}");
    for (target, path) in [(encoded, encoded), (encoded, plain.as_str()), (&plain, &plain)] {
        let signed = format!("GET\n{path}\n{auth}&info=user_count");
        let query = format!("{auth}&info=user_count&auth_signature=SIGNATURE");
        let reply = send(&broker, "GET", target, &query, &signed, "");
        assert_eq!(reply.ok(), json!({ "occupied": true, "user_count": 1 }), "{target} {path}");
    }
}

#[test]
fn p70_a_prefix_is_signed_or_not() {
    let broker = Broker::start();
    let auth = auth_params();
    for path in ["/apps/1/channels", "/some/prefix/apps/1/channels"] {
        let signed = format!("GET\n{path}\n{auth}");
        let query = format!("{auth}&auth_signature=SIGNATURE");
        let reply = send(&broker, "GET", "/some/prefix/apps/1/channels", &query, &signed, "");
        assert_eq!(reply.ok(), json!({ "channels": {} }));
    }
    let signed = format!("GET\n/some/prefix/apps/1/channels\n{auth}");
    let query = format!("{auth}&auth_signature=SIGNATURE");
    send(&broker, "GET", "/apps/1/channels", &query, &signed, "").refused_with(401, "signature");
}

#[test]
fn p70_a_post_in_each_shape_is_accepted() {
    let broker = Broker::start();
    let mut client = broker.subscriber("project-3");
    for body in [
        r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#,
        r#"{"name":"foo","data":"{\"some\":\"data\"}","channels":["project-3"]}"#,
        r#"{"name": "foo", "channels": ["project-3"], "data": "{\"some\": \"data\"}"}"#,
        r#"{"name":"foo","data":"{\"some\":\"data\"}","channel":"project-3"}"#,
    ] {
        let params = format!("{}&body_md5={}", auth_params(), md5_hex(body.as_bytes()));
        let signed = format!("POST\n/apps/1/events\n{params}");
        // Go and Python put the signature into its sorted place, Node last, .NET first.
        for query in [
            params.replace("&auth_timestamp", "&auth_signature=SIGNATURE&auth_timestamp"),
            format!("{params}&auth_signature=SIGNATURE"),
            format!("auth_signature=SIGNATURE&{params}"),
        ] {
            let reply = send(&broker, "POST", "/apps/1/events", &query, &signed, body);
            assert_eq!(reply.ok(), json!({}));
            assert_eq!(client.next()["event"], "foo");
        }
    }
}

#[test]
fn p70_array_parameters_are_signed_in_their_order() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for channel in ["b", "a", "c"] {
        client.subscribe(channel);
    }
    let auth = auth_params();
    let tail = "channels[]=b&channels[]=a&channels[]=c&data=hello&name=e";
    let signed = format!("POST\n/apps/1/events\n{auth}&{tail}");
    for tail in [tail.to_owned(), tail.replace("[]", "%5B%5D")] {
        let query = format!("{auth}&{tail}&auth_signature=SIGNATURE");
        send(&broker, "POST", "/apps/1/events", &query, &signed, "").ok();
        let mut heard: Vec<String> = (0..3).map(|_| client.next()["channel"].to_string()).collect();
        heard.sort();
        assert_eq!(heard, ["\"a\"", "\"b\"", "\"c\""]);
    }
    let sorted = "channels[]=a&channels[]=b&channels[]=c&data=hello&name=e";
    let signed = format!("POST\n/apps/1/events\n{auth}&{sorted}");
    let query = format!("{auth}&{tail}&auth_signature=SIGNATURE");
    send(&broker, "POST", "/apps/1/events", &query, &signed, "").refused_with(401, "signature");
}

#[test]
fn p70_every_endpoint_demands_a_signature() {
    let broker = Broker::start();
    for (method, path) in [
        ("POST", "/apps/1/events"),
        ("POST", "/apps/1/batch_events"),
        ("GET", "/apps/1/channels"),
        ("GET", "/apps/1/channels/news"),
        ("GET", "/apps/1/channels/presence-room/users"),
        ("POST", "/apps/1/users/ann/terminate_connections"),
        ("POST", "/users/ann/terminate_connections"),
    ] {
        let mut http = Http::connect(broker.address());
        http.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
        http.reply().refused(401, "Missing parameter: auth_key");
        broker.request(method, path, "").send_signed("00").refused_with(401, "signature");
    }
}

fn channels(broker: &Broker) -> crate::support::Request {
    broker.get("/channels")
}

#[test]
fn p71_a_missing_or_unknown_key_is_refused() {
    let broker = Broker::start();
    channels(&broker).without("auth_key").send().refused(401, "Missing parameter: auth_key");
    for key in ["nobody", "APP-KEY", "app-key ", ""] {
        let reply = channels(&broker).with("auth_key", key).send();
        if key.is_empty() {
            assert_eq!(reply.status, 401);
        } else {
            reply.refused(401, "Unknown auth_key");
        }
    }
}

#[test]
fn p71_the_key_of_another_app_is_refused() {
    let apps = r#"
[[apps]]
id = "1"
keys = [{ key = "app-key", secret = "app-secret" }]
[[apps]]
id = "2"
keys = [{ key = "other-key", secret = "other-secret" }]
"#;
    let broker = Broker::with_apps("", apps);
    let mixed: Api = broker.of_app("1", "other-key", "other-secret");
    mixed.get("/channels").send().refused(401, "Unknown auth_key");
    broker.of_app("2", "other-key", "other-secret").get("/channels").send().ok();
}

#[test]
fn p71_every_key_of_an_app_signs_with_its_own_secret() {
    let apps = r#"
[[apps]]
id = "1"
keys = [{ key = "app-key", secret = "app-secret" }, { key = "new-key", secret = "new-secret" }]
"#;
    let broker = Broker::with_apps("", apps);
    broker.get("/channels").send().ok();
    broker.of_app("1", "new-key", "new-secret").get("/channels").send().ok();
    let crossed = broker.of_app("1", "new-key", "app-secret");
    crossed.get("/channels").send().refused_with(401, "Invalid signature");
}

#[test]
fn p71_the_version_must_be_one() {
    let broker = Broker::start();
    channels(&broker).without("auth_version").send().refused(401, "Version required");
    for version in ["2.0", "1", "1.00", "01.0", "1.0 "] {
        let reply = channels(&broker).with("auth_version", version).send();
        reply.refused(401, "Version not supported");
    }
}

#[test]
fn p71_the_clock_may_differ_by_ten_minutes() {
    let broker = Broker::start();
    for skew in [-590, -1, 0, 1, 590] {
        channels(&broker).at(unix_now() + skew).send().ok();
    }
    for skew in [-610, 610, -1_000_000, 1_000_000] {
        let text = channels(&broker).at(unix_now() + skew).send();
        assert_eq!(text.status, 401);
        let text = text.text();
        let rest = text.strip_prefix("Timestamp expired: Given timestamp (").expect("its text");
        let (given, server) = rest.split_once(") not within 600s of server time (").expect("both times");
        let server = server.strip_suffix(')').expect("a closing parenthesis");
        for time in [given, server] {
            let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            assert!(shape.starts_with("0000-00-00T00:00:00"), "{time} is not ISO 8601");
        }
    }
}

#[test]
fn p71_a_timestamp_must_be_there_and_be_a_number() {
    let broker = Broker::start();
    channels(&broker).without("auth_timestamp").send().refused(401, "Timestamp required");
    for timestamp in ["soon", "", "99999999999999999999999", "-9223372036854775808", "1e9"] {
        let reply = channels(&broker).with("auth_timestamp", timestamp).send();
        reply.refused_with(401, "Timestamp");
    }
}

#[test]
fn p71_a_wrong_signature_is_refused_and_shown() {
    let broker = Broker::start();
    let request = channels(&broker);
    let right = request.signature();
    let other = broker.of_app("1", KEY, "other-secret").get("/channels").signature();
    for wrong in [right.to_uppercase(), right[..63].to_owned(), format!("{right}0"), other] {
        let text = request.send_signed(&wrong);
        assert_eq!(text.status, 401);
        let text = text.text();
        let start = "Invalid signature: you should have sent HmacSHA256Hex(\"GET";
        assert!(text.starts_with(start), "{text}");
        let end = format!("\", your_secret_key), but you sent \"{wrong}\"");
        assert!(text.ends_with(&end), "{text}");
        assert!(text.contains("/apps/1/channels"), "{text}");
        assert!(!text.contains(&right) || wrong.contains(&right), "it tells the right one: {text}");
    }
    for (position, byte) in right.bytes().enumerate() {
        let mut wrong = right.clone().into_bytes();
        wrong[position] = if byte == b'0' { b'1' } else { b'0' };
        let wrong = String::from_utf8(wrong).expect("hex");
        request.send_signed(&wrong).refused_with(401, "Invalid signature");
    }
}

#[test]
fn p71_a_missing_signature_is_refused() {
    let broker = Broker::start();
    let query = auth_params();
    let reply = send(&broker, "GET", "/apps/1/channels", &query, "", "");
    assert_eq!(reply.status, 401);
    assert!(!reply.text().is_empty());
}

#[test]
fn p71_a_signature_for_another_path_or_method_is_refused() {
    let broker = Broker::start();
    let api = broker.api();
    for other in [
        api.get("/channels/"),
        api.get("/channels/news"),
        api.get("/events"),
        api.request("POST", "/apps/1/channels", ""),
        api.request("get", "/apps/1/channels", ""),
        api.request("GET", "/channels", ""),
        api.request("GET", "/apps/2/channels", ""),
    ] {
        api.get("/channels").send_signed(&other.signature()).refused_with(401, "Invalid signature");
    }
}

#[test]
fn p71_the_body_needs_its_md5() {
    let broker = Broker::start();
    let body = json!({ "name": "e", "channels": ["news"], "data": "" });
    let request = broker.post("/events", &body);
    request.send().ok();
    request.clone().without("body_md5").send().refused(401, "Missing parameter: body_md5");
    let right = md5_hex(body.to_string().as_bytes());
    for wrong in [md5_hex(b"other"), right.to_uppercase(), right[..31].to_owned(), String::new()] {
        let reply = request.clone().with("body_md5", &wrong).send();
        reply.refused(401, "Invalid body_md5");
    }
    let spaced = format!(" {body}");
    let reply = broker.post_bytes("/events", spaced).with("body_md5", &right).send();
    reply.refused(401, "Invalid body_md5");
}

#[test]
fn p71_an_extra_parameter_must_be_signed() {
    let broker = Broker::with("api.extraneous_parameters = \"ignore\"");
    channels(&broker).param("extra", "1").send().ok();
    channels(&broker).unsigned("extra", "1").send().refused_with(401, "Invalid signature");
    channels(&broker).unsigned("info", "").send().refused_with(401, "Invalid signature");
    let post = broker.post("/events", &json!({ "name": "e", "channel": "a", "data": "" }));
    post.clone().param("extra", "1").send().ok();
    post.unsigned("extra", "1").send().refused_with(401, "Invalid signature");
}

#[test]
fn p72_a_get_may_carry_the_md5_of_nothing() {
    let broker = Broker::start();
    let _member = broker.joined("presence-room", "ann");
    let empty = "d41d8cd98f00b204e9800998ecf8427e";
    for path in ["/channels", "/channels/news", "/channels/presence-room/users"] {
        broker.get(path).param("body_md5", empty).send().ok();
        let wrong = broker.get(path).param("body_md5", &md5_hex(b"x"));
        wrong.send().refused(401, "Invalid body_md5");
    }
}

#[test]
fn p73_keys_are_lower_cased_for_the_signature() {
    let broker = Broker::start();
    let auth = auth_params();
    let signed = format!("GET\n/apps/1/channels\n{auth}&filter_by_prefix=presence-&info=user_count");
    for query in [
        auth.replace("auth_key", "AUTH_KEY") + "&filter_by_prefix=presence-&INFO=user_count",
        auth.replace("auth_", "Auth_") + "&Filter_By_Prefix=presence-&info=user_count",
    ] {
        let query = format!("auth_signature=SIGNATURE&{query}");
        send(&broker, "GET", "/apps/1/channels", &query, &signed, "").ok();
    }
    let mut client = broker.subscriber("news");
    let signed = format!("POST\n/apps/1/events\n{auth}&channel=news&data=d&name=e");
    let query = format!("{auth}&Channel=news&DATA=d&Name=e&auth_signature=SIGNATURE");
    send(&broker, "POST", "/apps/1/events", &query, &signed, "").ok();
    client.expect_event("news", "e", "d");
}

#[test]
fn a_repeated_parameter_is_refused() {
    let broker = Broker::start();
    for (key, value) in [
        ("info", "user_count"),
        ("filter_by_prefix", "presence-"),
        ("auth_key", KEY),
        ("auth_version", "1.0"),
    ] {
        let request = channels(&broker)
            .with("info", "user_count")
            .with("filter_by_prefix", "presence-")
            .param(key, value);
        request.send().refused(400, &format!("Duplicate parameter: {key}"));
    }
}

#[test]
fn the_first_failure_in_order_is_told() {
    let broker = Broker::with_app("client_events = true");
    let api = broker.api();
    let unknown_app = api.of_app("99", "nobody", "nothing");
    unknown_app.get("/channels").send().refused(404, "Unknown app_id");
    unknown_app.get("/channels").without("auth_key").send().refused(404, "Unknown app_id");
    let bad = |key: &str| channels(&broker).with("auth_version", "2.0").without(key).at(1);
    bad("auth_key").send_signed("00").refused(401, "Missing parameter: auth_key");
    bad("nothing").send_signed("00").refused(401, "Version not supported");
    channels(&broker).at(1).send_signed("00").refused_with(401, "Timestamp expired");
    let request = api.post_bytes("/events", "not json").without("body_md5");
    request.send_signed("00").refused_with(401, "Invalid signature");
    request.send().refused(401, "Missing parameter: body_md5");
    api.post_bytes("/events", "not json").send().refused(400, "Invalid JSON provided");
}

#[test]
fn an_app_that_is_switched_off_answers_403_to_its_owner_only() {
    let apps = r#"
[[apps]]
id = "1"
keys = [{ key = "app-key", secret = "app-secret" }]
enabled = false
"#;
    let broker = Broker::with_apps("", apps);
    let reply = channels(&broker).send();
    assert_eq!(reply.status, 403);
    assert!(!reply.text().is_empty());
    assert_eq!(broker.post_bytes("/events", "not json").send().status, 403);
    channels(&broker).send_signed("00").refused_with(401, "Invalid signature");
}
