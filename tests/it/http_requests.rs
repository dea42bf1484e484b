//! HTTP/1.1 in full: keep-alive, pipelining, chunks, methods and routes.

use serde_json::{Value, json};

use crate::support::{Broker, Http, JS_PATH, Reply, upgrade_request};

fn event(data: &str) -> Value {
    json!({ "name": "e", "channels": ["news"], "data": data })
}

/// Sends `bytes` on a connection of its own and reads one reply.
#[track_caller]
fn ask(broker: &Broker, bytes: impl AsRef<[u8]>) -> Reply {
    let mut http = Http::connect(broker.address());
    http.send(bytes);
    http.reply()
}

/// A signed request whose head gets `headers` instead of its length, followed by `body`.
fn with_body(broker: &Broker, event: &Value, version: &str, headers: &str, body: &str) -> String {
    let bytes = broker.post("/events", event).bytes();
    let text = String::from_utf8(bytes).expect("a request in UTF-8");
    let (line, _) = text.split_once(" HTTP/1.1\r\n").expect("a request line");
    format!("{line} HTTP/{version}\r\nHost: localhost\r\n{headers}\r\n{body}")
}

/// The chunks of a text, each of `size` bytes.
fn chunked(text: &str, size: usize) -> String {
    let mut chunks = String::new();
    for chunk in text.as_bytes().chunks(size) {
        let chunk = std::str::from_utf8(chunk).expect("ASCII");
        chunks.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }
    chunks + "0\r\n\r\n"
}

#[test]
fn a_connection_carries_many_requests() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let mut http = Http::connect(broker.address());
    for number in 0..50 {
        http.send(broker.post("/events", &event(&number.to_string())).bytes());
        http.reply().ok();
        client.expect_event("news", "e", &number.to_string());
        http.send(broker.get("/channels").bytes());
        assert_eq!(http.reply().ok(), json!({ "channels": { "news": {} } }));
    }
}

#[test]
fn a_connection_outlives_its_errors() {
    let broker = Broker::start();
    let mut http = Http::connect(broker.address());
    let api = broker.api();
    for _ in 0..3 {
        http.send("GET /apps/1/channels HTTP/1.1\r\nHost: x\r\n\r\n");
        http.reply().refused(401, "Missing parameter: auth_key");
        http.send("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(http.reply().status, 404);
        http.send("PUT /apps/1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
        assert_eq!(http.reply().status, 405);
        http.send(api.post_bytes("/events", "not json").bytes());
        http.reply().refused(400, "Invalid JSON provided");
        http.send(api.post("/events", &event(&"x".repeat(10_241))).bytes());
        assert_eq!(http.reply().status, 413);
        http.send(api.of_app("99", "x", "y").get("/channels").bytes());
        http.reply().refused(404, "Unknown app_id");
        http.send(api.get("/channels").bytes());
        http.reply().ok();
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let mut bytes = Vec::new();
    for number in 0..20 {
        bytes.extend(broker.post("/events", &event(&number.to_string())).bytes());
        bytes.extend(broker.get(&format!("/channels/bad name {number}").replace(' ', "%20")).bytes());
    }
    let mut http = Http::connect(broker.address());
    http.send(bytes);
    for number in 0..20 {
        http.reply().ok();
        http.reply().refused(400, &format!("Invalid channel name 'bad name {number}'"));
    }
    for number in 0..20 {
        client.expect_event("news", "e", &number.to_string());
    }
}

#[test]
fn a_request_may_arrive_in_pieces() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let bytes = broker.post("/events", &event("in pieces")).bytes();
    let mut http = Http::connect(broker.address());
    for byte in &bytes {
        http.send([*byte]);
    }
    http.reply().ok();
    client.expect_event("news", "e", "in pieces");
}

#[test]
fn a_request_in_http_1_0_is_answered_and_closed() {
    let broker = Broker::start();
    let body = event("old").to_string();
    let headers = format!("Content-Length: {}\r\n", body.len());
    let mut http = Http::connect(broker.address());
    http.send(with_body(&broker, &event("old"), "1.0", &headers, &body));
    http.reply().ok();
    http.expect_end();
}

#[test]
fn a_client_may_ask_for_the_end() {
    let broker = Broker::start();
    let body = event("last").to_string();
    let headers = format!("Connection: close\r\nContent-Length: {}\r\n", body.len());
    let mut http = Http::connect(broker.address());
    http.send(with_body(&broker, &event("last"), "1.1", &headers, &body));
    http.reply().ok();
    http.expect_end();
}

#[test]
fn a_client_may_stop_sending_after_its_request() {
    let broker = Broker::start();
    let mut http = Http::connect(broker.address());
    http.send(broker.get("/channels").bytes());
    http.finish();
    http.reply().ok();
}

#[test]
fn chunked_bodies_are_read_and_their_md5_is_that_of_the_decoded_body() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let mut http = Http::connect(broker.address());
    for size in [1, 7, 1_000] {
        let body = event("chunked").to_string();
        let headers = "Transfer-Encoding: chunked\r\n";
        http.send(with_body(&broker, &event("chunked"), "1.1", headers, &chunked(&body, size)));
        http.reply().ok();
        client.expect_event("news", "e", "chunked");
    }
}

#[test]
fn expect_100_continue_is_answered_before_the_body() {
    let broker = Broker::start();
    let body = event("patient").to_string();
    let headers = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", body.len());
    let mut http = Http::connect(broker.address());
    http.send(with_body(&broker, &event("patient"), "1.1", &headers, ""));
    let go_on = http.reply();
    assert_eq!((go_on.status, go_on.body.as_str()), (100, ""));
    http.send(&body);
    http.reply().ok();
}

#[test]
fn header_names_and_spaces_do_not_matter() {
    let broker = Broker::start();
    let body = event("loose").to_string();
    let headers = format!("content-LENGTH:{}\r\nX-Empty:\r\nX-Pusher-Library: x 1\r\n", body.len());
    ask(&broker, with_body(&broker, &event("loose"), "1.1", &headers, &body)).ok();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "nonsense", ""] {
        let headers = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        ask(&broker, with_body(&broker, &event("loose"), "1.1", &headers, &body)).ok();
    }
}

const ROUTES: [(&str, &str); 7] = [
    ("POST", "/apps/1/events"),
    ("POST", "/apps/1/batch_events"),
    ("GET", "/apps/1/channels"),
    ("GET", "/apps/1/channels/news"),
    ("GET", "/apps/1/channels/presence-room/users"),
    ("POST", "/apps/1/users/ann/terminate_connections"),
    ("POST", "/users/ann/terminate_connections"),
];

#[test]
fn other_methods_get_405_and_what_is_allowed() {
    let broker = Broker::start();
    for (allowed, path) in ROUTES {
        let other = if allowed == "GET" { "POST" } else { "GET" };
        for method in [other, "PUT", "DELETE", "PATCH", "HEAD", "BREW"] {
            let mut http = Http::connect(broker.address());
            http.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
            let reply = http.reply_to(method);
            assert_eq!(reply.status, 405, "{method} {path}: {reply:?}");
            let allow = reply.header("allow").unwrap_or_else(|| panic!("no Allow: {reply:?}"));
            assert!(allow.split(',').any(|each| each.trim() == allowed), "{method} {path}: {allow}");
            assert!(!allow.contains(method), "{method} {path}: {allow}");
            if method != "HEAD" {
                assert!(!reply.text().is_empty());
            }
        }
    }
}

#[test]
fn a_known_route_is_known_before_the_method() {
    let broker = Broker::start();
    let reply = ask(&broker, "PUT /apps/99/events HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(reply.status, 405);
}

#[test]
fn options_get_204_without_permissions() {
    let broker = Broker::start();
    for (_, path) in ROUTES {
        let reply = ask(
            &broker,
            format!(
                "OPTIONS {path} HTTP/1.1\r\nHost: x\r\nOrigin: https://page.example\r\n\
                 Access-Control-Request-Method: POST\r\n\r\n"
            ),
        );
        assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{path}");
        let mut names = reply.headers.iter().map(|(name, _)| name.to_lowercase());
        assert!(names.all(|name| !name.starts_with("access-control-allow-")), "{reply:?}");
    }
}

#[test]
fn unknown_routes_get_404_in_text() {
    let broker = Broker::start();
    for path in [
        "/",
        "/apps",
        "/apps/",
        "/apps/1",
        "/apps/1/",
        "/apps/1/event",
        "/apps/1/events/more",
        "/apps/1/channels/a/b",
        "/apps/1/users",
        "/events",
        "/apps/1/users/ann",
        "/favicon.ico",
    ] {
        let reply = ask(&broker, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(reply.status, 404, "{path}");
        assert!(!reply.text().is_empty());
    }
}

#[test]
fn a_websocket_address_without_an_upgrade_says_so() {
    let broker = Broker::start();
    let reply = ask(&broker, format!("GET {JS_PATH} HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!([400, 426].contains(&reply.status), "{reply:?}");
    assert!(!reply.text().is_empty());
}

#[test]
fn an_upgrade_without_its_key_gets_400() {
    let broker = Broker::start();
    let request = upgrade_request(JS_PATH, "");
    let without: Vec<&str> =
        request.split("\r\n").filter(|line| !line.starts_with("Sec-WebSocket-Key")).collect();
    assert_eq!(ask(&broker, without.join("\r\n")).status, 400);
}

#[test]
fn an_upgrade_of_another_version_or_method_is_refused() {
    let broker = Broker::start();
    let request = upgrade_request(JS_PATH, "");
    let old = request.replace("Version: 13", "Version: 8");
    assert!([400, 426].contains(&ask(&broker, old).status));
    let post = request.replace("GET ", "POST ").replace("Host:", "Content-Length: 0\r\nHost:");
    assert!((400..500).contains(&ask(&broker, post).status));
}

#[test]
fn an_offer_of_another_protocol_is_ignored() {
    // What the HTTP client of the Java standard library sends with each first request.
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let body = event("offer").to_string();
    let headers = format!(
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n\
         Content-Length: {}\r\n",
        body.len()
    );
    ask(&broker, with_body(&broker, &event("offer"), "1.1", &headers, &body)).ok();
    client.expect_event("news", "e", "offer");
}

#[test]
fn an_upgrade_on_an_api_route_gets_404() {
    let broker = Broker::start();
    for path in ["/apps/1/channels", "/apps/1/events", "/apps/1/channels/news"] {
        assert_eq!(ask(&broker, upgrade_request(path, "")).status, 404, "{path}");
    }
}
