//! The body of a webhook, byte for byte (Pusher docs, "Webhooks").

use std::fmt::Write;

use crate::hub::{Fact, Occurrence};

/// Appends an event as JSON. What a client sent is put out as it came in, escapes included.
pub(super) fn push_event(out: &mut String, occurrence: &Occurrence) {
    out.push_str(r#"{"name":""#);
    out.push_str(occurrence.fact.event().as_str());
    out.push_str(r#"","channel":"#);
    push_text(out, occurrence.channel.as_str());
    match &occurrence.fact {
        Fact::Occupied | Fact::Vacated | Fact::CacheMissed => {}
        Fact::MemberAdded(user_id) | Fact::MemberRemoved(user_id) => {
            out.push_str(r#","user_id":"#);
            push_text(out, user_id);
        }
        Fact::Counted(count) => {
            let _ = write!(out, r#","subscription_count":{count}"#);
        }
        Fact::ClientEvent(fact) => {
            let (event, data, socket_id) = (&fact.event, &fact.data, fact.socket_id);
            let _ = write!(out, r#","event":{event},"data":{data},"socket_id":"{socket_id}""#);
            if let Some(user_id) = &fact.user_id {
                out.push_str(r#","user_id":"#);
                push_text(out, user_id);
            }
        }
    }
    out.push('}');
}

/// The whole body. `events` are one or more, with commas between them.
pub(super) fn body(time_ms: u64, events: &str) -> String {
    format!(r#"{{"time_ms":{time_ms},"events":[{events}]}}"#)
}

fn push_text(out: &mut String, text: &str) {
    // A text has a JSON literal, always.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::hub::ClientEventFact;
    use crate::protocol::{ChannelName, Secret, SocketId};

    const TIME_MS: u64 = 1_353_088_179_000;

    fn told(channel: &str, fact: Fact) -> String {
        let channel = ChannelName::parse(channel, 200).expect("a name");
        let mut events = String::new();
        push_event(&mut events, &Occurrence { app: "1".into(), channel, fact });
        events
    }

    fn client_event(data: &str, user_id: Option<&str>) -> Fact {
        let socket_id = SocketId::parse("1234.1234").expect("an id").expect("one of ours");
        let (event, user_id) = (r#""client-x""#.into(), user_id.map(Box::from));
        Fact::ClientEvent(Box::new(ClientEventFact { event, data: data.into(), socket_id, user_id }))
    }

    #[track_caller]
    fn check_vector(fact: Fact, channel: &str, wanted: &str, signature: &str) {
        let body = body(TIME_MS, &told(channel, fact));
        assert_eq!(body, wanted);
        assert_eq!(Secret::new("7ad3773142a6692b25b8").sign(&[body.as_bytes()]), signature);
    }

    #[test]
    fn p90_bodies_and_signatures_are_those_of_the_vectors() {
        check_vector(
            Fact::Occupied,
            "test_channel",
            r#"{"time_ms":1353088179000,"events":[{"name":"channel_occupied","channel":"test_channel"}]}"#,
            "06f2eb530e72a1a9711d494ec6072ea3268aa851481c75994d99ea5885fabad4",
        );
        check_vector(
            client_event(r#""{\"a\":1}""#, Some("10")),
            "presence-foobar",
            r#"{"time_ms":1353088179000,"events":[{"name":"client_event","channel":"presence-foobar","event":"client-x","data":"{\"a\":1}","socket_id":"1234.1234","user_id":"10"}]}"#,
            "b5905c4756604ed40bd967d28d59d6abfdbd328f2f0fed1fce0b7a74adcc4792",
        );
    }

    #[track_caller]
    fn check(channel: &str, fact: Fact, wanted: &Value) {
        let text = told(channel, fact);
        let event: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(&event, wanted);
    }

    #[test]
    fn p92_each_event_has_its_fields_and_no_others() {
        check("a", Fact::Occupied, &json!({"name": "channel_occupied", "channel": "a"}));
        check("a", Fact::Vacated, &json!({"name": "channel_vacated", "channel": "a"}));
        check("cache-a", Fact::CacheMissed, &json!({"name": "cache_miss", "channel": "cache-a"}));
        let room = "presence-a";
        let member = |name| json!({"name": name, "channel": room, "user_id": "ann \"\\\n😀"});
        check(room, Fact::MemberAdded("ann \"\\\n😀".into()), &member("member_added"));
        check(room, Fact::MemberRemoved("ann \"\\\n😀".into()), &member("member_removed"));
        let counted = json!({"name": "subscription_count", "channel": "a", "subscription_count": 12});
        check("a", Fact::Counted(12), &counted);
        let mut said = json!({
            "name": "client_event", "channel": "private-a", "event": "client-x", "data": "1",
            "socket_id": "1234.1234",
        });
        check("private-a", client_event(r#""1""#, None), &said);
        said["user_id"] = json!("ann");
        said["channel"] = json!(room);
        check(room, client_event(r#""1""#, Some("ann")), &said);
    }

    #[test]
    fn p92_what_a_client_sent_is_put_out_as_it_came_in() {
        let literal = r#""\u005a\/ \ud800 é""#;
        assert!(told("private-a", client_event(literal, None)).contains(&format!(r#""data":{literal},"#)));
    }
}
