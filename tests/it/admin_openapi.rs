//! The OpenAPI document and the running admin API say the same.

use std::collections::{BTreeMap, BTreeSet};

use fanfare::admin::Endpoint;
use serde_json::{Map, Value, json};

use crate::support::{Broker, Operator, Reply, admin_settings, member, user};

/// The document as a broker serves it.
struct Document(Value);

/// An operation of the document: method and path.
type Operation = (String, String);

impl Document {
    fn operations(&self) -> BTreeMap<Operation, &Value> {
        let mut operations = BTreeMap::new();
        for (path, methods) in self.0["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                operations.insert((method.to_uppercase(), path.clone()), operation);
            }
        }
        operations
    }

    /// Follows a reference, if it is one.
    #[track_caller]
    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(target) => {
                let found = self.0.pointer(target.strip_prefix('#').expect("a place in the document"));
                found.unwrap_or_else(|| panic!("{target} leads nowhere"))
            }
            None => value,
        }
    }

    /// Asserts that a reply is one that the document describes.
    #[track_caller]
    fn check_reply(&self, operation: &Value, reply: &Reply) {
        let described = &operation["responses"][reply.status.to_string()];
        assert!(described.is_object(), "not described for {}: {reply:?}", operation["operationId"]);
        let described = self.resolved(described);
        for (name, _) in described["headers"].as_object().into_iter().flatten() {
            assert!(reply.header(name).is_some(), "no {name}: {reply:?}");
        }
        assert_eq!(reply.header("content-type"), Some("application/json"), "{reply:?}");
        let body: Value = serde_json::from_str(&reply.body).expect("JSON");
        self.check(&described["content"]["application/json"]["schema"], &body, "the answer");
    }

    /// Asserts that a value is as a schema says. It knows only what our schemas use, and insists on it.
    #[track_caller]
    fn check(&self, schema: &Value, value: &Value, place: &str) {
        if schema.get("$ref").is_some() {
            return self.check(self.resolved(schema), value, place);
        }
        let properties = schema["properties"].as_object();
        for (keyword, rule) in schema.as_object().unwrap_or_else(|| panic!("{place}: no schema")) {
            let holds = match keyword.as_str() {
                "description" | "properties" => true,
                "type" => match rule {
                    Value::Array(types) => types.iter().any(|kind| is_a(kind, value)),
                    kind => is_a(kind, value),
                },
                "enum" => rule.as_array().is_some_and(|values| values.contains(value)),
                "minimum" => value.is_null() || value.as_u64() >= rule.as_u64(),
                "pattern" => {
                    assert_eq!(rule, r"^\d+\.\d+$", "the one pattern that is known here");
                    let halves = value.as_str().and_then(|text| text.split_once('.'));
                    let digits = |half: &str| !half.is_empty() && half.bytes().all(|b| b.is_ascii_digit());
                    halves.is_some_and(|(left, right)| digits(left) && digits(right))
                }
                "format" => {
                    assert_eq!(rule, "date-time", "the one format that is known here");
                    value.as_str().is_some_and(|text| text.len() == 20 && text.ends_with('Z'))
                }
                "required" => {
                    let names = rule.as_array().into_iter().flatten().filter_map(Value::as_str);
                    value.is_null() || names.into_iter().all(|name| value.get(name).is_some())
                }
                "additionalProperties" => {
                    let others = value.as_object().into_iter().flatten();
                    let mut others =
                        others.filter(|(name, _)| properties.is_none_or(|all| !all.contains_key(*name)));
                    match rule {
                        Value::Bool(false) => others.next().is_none(),
                        rule => {
                            others.for_each(|(name, value)| self.check(rule, value, name));
                            true
                        }
                    }
                }
                "items" => {
                    let items = value.as_array().into_iter().flatten();
                    items.for_each(|item| self.check(rule, item, place));
                    true
                }
                other => panic!("{place}: this test does not know the keyword {other}"),
            };
            assert!(holds, "{place} breaks {keyword} {rule}: {value}");
        }
        for (name, rule) in properties.into_iter().flatten() {
            if let Some(value) = value.get(name) {
                self.check(rule, value, name);
            }
        }
    }
}

fn is_a(kind: &Value, value: &Value) -> bool {
    match kind.as_str().expect("a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type: {other}"),
    }
}

#[test]
fn the_document_has_exactly_the_routes_and_parameters_of_the_server() {
    let document = Document(serde_json::from_str(fanfare::admin::OPENAPI).expect("JSON"));
    let served = Endpoint::ALL.map(|each| (each.method().to_string(), each.path().to_owned()));
    let described: BTreeSet<Operation> = document.operations().into_keys().collect();
    assert_eq!(described, served.iter().cloned().collect(), "left the document, right the server");
    assert_eq!(described.len(), served.len(), "a route is served twice");
    let mut ids = BTreeSet::new();
    for (endpoint, served) in Endpoint::ALL.into_iter().zip(served) {
        let operation = document.operations()[&served];
        assert!(ids.insert(operation["operationId"].as_str().expect("an id").to_owned()), "{served:?}");
        let (mut query, mut path) = (BTreeSet::new(), BTreeSet::new());
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let parameter = document.resolved(parameter);
            let place = if parameter["in"] == "path" { &mut path } else { &mut query };
            place.insert(parameter["name"].as_str().expect("a name"));
        }
        assert_eq!(query, endpoint.parameters().iter().copied().collect(), "{served:?}");
        let in_path = served.1.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        assert_eq!(path, in_path.collect(), "{served:?}");
    }
}

#[test]
fn every_reference_leads_somewhere_and_nothing_is_described_in_vain() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(target)) = fields.get("$ref") {
                    found.insert(target.clone());
                }
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = Document(serde_json::from_str(fanfare::admin::OPENAPI).expect("JSON"));
    let mut found = BTreeSet::new();
    references(&document.0, &mut found);
    let mut described = BTreeSet::new();
    for kind in ["schemas", "responses", "parameters"] {
        for name in document.0["components"][kind].as_object().expect("components").keys() {
            described.insert(format!("#/components/{kind}/{name}"));
        }
    }
    assert_eq!(found, described, "left what is used, right what is described");
}

/// What is asked of one operation: paths below `/admin/v1`, bodies, and the status that comes.
fn cases(socket_ids: [&str; 2]) -> Vec<(Operation, String, String, u16)> {
    let [one, two] = socket_ids;
    let case = |method: &str, pattern: &str, path: &str, body: &str, status: u16| {
        let operation = (method.to_owned(), format!("/admin/v1/{pattern}"));
        (operation, path.to_owned(), body.to_owned(), status)
    };
    let get = |pattern: &str, path: &str, status: u16| case("GET", pattern, path, "", status);
    let replay = |body: &str, status: u16| {
        let path = "webhooks/dead-letters/replay";
        case("POST", path, path, body, status)
    };
    let (app, channel, connection) =
        ("apps/{app}", "apps/{app}/channels/{channel}", "connections/{socket_id}");
    let user = "apps/{app}/users/{user}";
    vec![
        get("openapi.json", "openapi.json", 200),
        get("status", "status", 200),
        get("config", "config", 200),
        get("nodes", "nodes", 200),
        get("apps", "apps", 200),
        get("apps", "apps?limit=1", 200),
        get("apps", "apps?after=1&limit=5", 200),
        get("apps", "apps?limit=x", 400),
        get(app, "apps/1", 200),
        get(app, "apps/9", 404),
        get("apps/{app}/channels", "apps/1/channels?prefix=p&after=a&limit=1", 200),
        get("apps/{app}/channels", "apps/9/channels", 404),
        get(channel, "apps/1/channels/presence-room?after=a&limit=1", 200),
        get(channel, "apps/1/channels/nobody-there", 200),
        get(channel, "apps/9/channels/news", 404),
        get("connections", "connections?limit=1", 200),
        get("connections", "connections?app=1&user=ann&channel=presence-room&after=1.1", 200),
        get("connections", "connections?app=9", 404),
        get(connection, &format!("connections/{one}"), 200),
        get(connection, "connections/1.1", 404),
        case("DELETE", connection, &format!("connections/{one}"), "", 200),
        case("DELETE", connection, &format!("connections/{two}?final=true"), "", 200),
        case("DELETE", connection, "connections/1.1", "", 404),
        case("DELETE", user, "apps/1/users/ann", "", 202),
        case("DELETE", user, "apps/9/users/ann", "", 404),
        get("webhooks/dead-letters", "webhooks/dead-letters?app=1&limit=5", 200),
        get("webhooks/dead-letters", "webhooks/dead-letters?app=9", 404),
        replay(r#"{"all":true}"#, 202),
        replay(r#"{"id":"x"}"#, 404),
        replay(r#"{"app":"9"}"#, 404),
        replay(r#"{"all":false}"#, 400),
        replay(&" ".repeat(70_000), 413),
        case("POST", "reload", "reload", "", 200),
        case("POST", "drain", "drain", "", 202),
        case("POST", "reload", "reload", "", 503),
    ]
}

#[test]
fn every_operation_answers_as_the_document_says() {
    let webhook = "client_events = true\n[[apps.webhooks]]\nurl = \"https://a.example/hook\"";
    let settings = format!("{}\ndrain.delay_s = 60\nserver.watch_config = false", admin_settings());
    let broker = Broker::of(&settings, webhook);
    let operator = Operator::of(&broker);
    let document = Document(operator.get("openapi.json"));
    let operations = document.operations();
    let mut ann = broker.connect();
    ann.join("presence-room", &member("ann"));
    ann.sign_in(&user("ann"));
    let _cid = broker.joined("presence-room", "cid");
    let (one, two) = (broker.subscriber("news"), broker.subscriber("private-news"));

    let mut seen: BTreeMap<Operation, BTreeSet<u16>> = BTreeMap::new();
    let mut note = |operation: &Operation, reply: &Reply| {
        document.check_reply(operations[operation], reply);
        seen.entry(operation.clone()).or_default().insert(reply.status);
    };
    for operation in operations.keys() {
        let path = operation.1.strip_prefix("/admin/v1/").expect("the prefix");
        let path = path.replace("{app}", "1").replace("{channel}", "news").replace("{user}", "ann");
        let path = path.replace("{socket_id}", one.id());
        let refused = operator.send_with(&operation.0, &path, "", "");
        assert_eq!(refused.status, 401, "{operation:?}: {refused:?}");
        note(operation, &refused);
        let refused = operator.send(&operation.0, &format!("{path}?nonsense=1"), "");
        assert_eq!(refused.status, 400, "{operation:?}: {refused:?}");
        note(operation, &refused);
    }
    for (operation, path, body, status) in cases([one.id(), two.id()]) {
        let reply = operator.send(&operation.0, &path, &body);
        assert_eq!(reply.status, status, "{operation:?} {path}: {reply:?}");
        note(&operation, &reply);
    }
    // A configuration that is wrong, on another broker: this one leaves.
    let other = Broker::with(&format!("{}\nserver.watch_config = false", admin_settings()));
    other.rewrite("nonsense = 1");
    note(&("POST".into(), "/admin/v1/reload".into()), &Operator::of(&other).send("POST", "reload", ""));

    let rare = [408, 503];
    for (operation, description) in &operations {
        let described: BTreeSet<u16> = description["responses"]
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .filter_map(|s| s.parse().ok())
            .collect();
        let never: Vec<&u16> =
            described.difference(&seen[operation]).filter(|s| !rare.contains(*s)).collect();
        assert!(never.is_empty(), "{operation:?} never answered {never:?}");
    }
    broker.signal("INT");
    broker.finish();
}

#[test]
fn the_checker_of_this_test_finds_mistakes() {
    let document = Document(json!({ "components": { "schemas": { "S": {
        "type": "object", "properties": { "n": { "type": ["integer", "null"], "minimum": 2 } },
        "required": ["n"], "additionalProperties": false,
    } } } }));
    let fits = |value: Value| {
        let schema = json!({ "$ref": "#/components/schemas/S" });
        std::panic::catch_unwind(|| document.check(&schema, &value, "it")).is_ok()
    };
    assert!(fits(json!({ "n": 2 })) && fits(json!({ "n": null })));
    for wrong in [json!({}), json!({ "n": 1 }), json!({ "n": "2" }), json!({ "n": 2, "m": 1 }), json!([])] {
        assert!(!fits(wrong.clone()), "{wrong}");
    }
}
