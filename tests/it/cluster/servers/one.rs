//! One server.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::mpsc::{TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use deadpool_redis::redis::{Value, cmd};
use fanfare::cluster::script::{Invocation, Script};
use fanfare::cluster::servers::{BusEvent, RunError, Servers};
use fanfare::config::{Masked, Redis};
use tokio::time::sleep;

use super::{DEADLINE, Node, settings, tell};
use crate::support::{PASSWORD, RedisServer};

static FAIL: Script = Script { name: "fail", source: "return redis.error_reply('BEHIND 7')" };

#[test]
fn messages_of_a_topic_arrive_from_when_it_is_listened_to() {
    tell(async || {
        let redis = RedisServer::with_password(&[]);
        let mut node = Node::up(&format!("{}3", redis.url())).await;
        assert_eq!(node.servers.is_sharded(), Some(false));
        let topic = "fanfare:{1}:a";
        node.say("1", topic, "too early").await.expect("run");
        node.listen(topic).await;
        assert_eq!(node.say("1", topic, "now").await, Ok(Value::Int(2)));
        node.expect_message(topic, "now").await;
        node.servers.unlisten(topic.as_bytes());
        node.listen("fanfare:{1}:b").await;
        node.say("1", topic, "too late").await.expect("run");
        node.say("1", "fanfare:{1}:b", "marker").await.expect("run");
        node.expect_message("fanfare:{1}:b", "marker").await;
        assert_eq!(redis.command::<Option<String>>(&["GET", "fanfare:{1}:count"]), None, "in database 3");
    });
}

#[test]
fn scripts_are_known_again_after_they_were_forgotten_and_speak_for_themselves() {
    tell(async || {
        let redis = RedisServer::start();
        let node = Node::up(&redis.url()).await;
        node.say("1", "t", "a").await.expect("run");
        redis.command::<()>(&["SCRIPT", "FLUSH"]);
        assert_eq!(node.say("1", "t", "b").await, Ok(Value::Int(2)));
        let invocation = Invocation { script: &FAIL, keys: vec!["k".into()], args: Vec::new() };
        assert_eq!(node.servers.run(&invocation).await, Err(RunError::Script("BEHIND 7".into())));
        redis.command::<()>(&["SET", "fanfare:{2}:count", "x"]);
        let error = node.say("2", "t", "c").await.expect_err("no number");
        assert!(matches!(&error, RunError::Script(text) if text.starts_with("ERR ")), "{error:?}");
        redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
        let error = node.say("1", "t", "d").await.expect_err("no memory");
        assert!(matches!(&error, RunError::NotRun(text) if text.contains("OOM")), "{error:?}");
    });
}

#[test]
fn many_scripts_under_way_share_a_connection() {
    tell(async || {
        let redis = RedisServer::start();
        let node = Rc::new(Node::up(&redis.url()).await);
        let all = (0..64).map(|lane: usize| {
            let node = Rc::clone(&node);
            tokio::task::spawn_local(async move {
                for turn in 1..=20 {
                    assert_eq!(node.say(&lane.to_string(), "t", "x").await, Ok(Value::Int(turn)));
                }
            })
        });
        for lane in all.collect::<Vec<_>>() {
            lane.await.expect("a lane");
        }
        assert_eq!(node.servers.health().connects, 2);
    });
}

#[test]
fn thousands_of_topics_are_listened_to_again() {
    tell(async || {
        let mut redis = RedisServer::start();
        let mut node = Node::up(&redis.url()).await;
        let names: BTreeSet<Vec<u8>> =
            (0..20_000).map(|number| format!("fanfare:{{{}}}:{number}", number % 64).into_bytes()).collect();
        for name in &names {
            node.servers.listen(name.clone());
        }
        let all_told = async |node: &mut Node, deaf: bool| {
            let mut left = names.clone();
            while !left.is_empty() {
                let told = node.event("topics", |event| match event {
                    BusEvent::Listening(topics) if !deaf => Some(topics.clone()),
                    BusEvent::Deaf(topics) if deaf => Some(topics.clone()),
                    _ => None,
                });
                for topic in told.await {
                    assert!(left.remove(&topic), "told twice");
                }
            }
        };
        all_told(&mut node, false).await;
        redis.kill();
        all_told(&mut node, true).await;
        redis.restart();
        all_told(&mut node, false).await;
        node.say_at_last("9", "fanfare:{9}:9", "x").await;
        node.expect_message("fanfare:{9}:9", "x").await;
    });
}

#[test]
fn a_user_needs_few_rights() {
    tell(async || {
        let redis = RedisServer::start();
        let rights = ["~fanfare:*", "&fanfare:*", "+eval", "+evalsha", "+info", "+subscribe", "+unsubscribe"];
        let own = ["+incr", "+publish"]; // what the scripts of this story do
        let user = ["ACL", "SETUSER", "ann", "on", "resetchannels"];
        let password = format!(">{PASSWORD}");
        redis.command::<()>(&[&user[..], &[&password], &rights, &own].concat());
        let mut node = Node::up(&format!("redis://ann:{PASSWORD}@127.0.0.1:{}", redis.port())).await;
        node.listen("fanfare:{1}:a").await;
        node.say("1", "fanfare:{1}:a", "x").await.expect("run");
        node.expect_message("fanfare:{1}:a", "x").await;
        node.servers.unlisten(b"fanfare:{1}:a");
        node.listen("fanfare:{1}:b").await;
        assert_eq!(redis.command::<Vec<Value>>(&["ACL", "LOG"]), [], "nothing was tried that it may not");

        // Rights that are taken away are missed.
        for right in ["-incr", "-evalsha"] {
            redis.command::<()>(&["ACL", "SETUSER", "ann", right]);
            let error = node.say("1", "fanfare:{1}:a", "x").await.expect_err("no right");
            assert!(matches!(&error, RunError::Refused(text) if text.contains("lacks rights")), "{error:?}");
        }
        redis.command::<()>(&["ACL", "SETUSER", "ann", "-subscribe"]);
        node.servers.listen(b"fanfare:{1}:c".to_vec());
        let refused =
            |servers: &Servers| servers.health().trouble.is_some_and(|it| it.contains("lacks rights"));
        node.until("refused", refused).await;
    });
}

#[test]
fn a_wrong_password_is_said_and_never_shown_and_a_right_one_helps() {
    tell(async || {
        let redis = RedisServer::with_password(&[]);
        for (credentials, said) in
            [("", "a password is missing in redis.url"), (":wrong-secret@", "are wrong")]
        {
            let node = Node::new(&format!("redis://{credentials}127.0.0.1:{}", redis.port()));
            node.until("refused", |servers| servers.health().is_refused).await;
            let text = node.servers.health().trouble.expect("a trouble");
            assert!(text.contains(said) && text.contains("redis.url"), "{text}");
            let error = node.say("1", "t", "x").await.expect_err("not connected");
            assert_eq!(error, RunError::Refused(text));
            let shown = format!("{error:?} {:?} {:?}", node.servers, node.servers.health());
            assert!(!shown.contains("wrong-secret"), "{shown}");
        }
        let node = Node::new(&format!("redis://:another@127.0.0.1:{}", redis.port()));
        node.until("refused", |servers| servers.health().is_refused).await;
        redis.command::<()>(&["CONFIG", "SET", "requirepass", "another"]);
        node.expect_up().await;
        node.say("1", "t", "x").await.expect("run");
    });
}

#[test]
fn tls_is_spoken_with_an_authority_and_a_certificate_of_ones_own() {
    tell(async || {
        let redis = RedisServer::secure();
        let file = |name: &str| redis.pki().file(name).display().to_string();
        let trusting = Redis { tls_ca_file: file("ca.pem"), ..settings(&redis.url()) };
        let shown =
            Redis { tls_cert_file: file("client.pem"), tls_key_file: file("client.key"), ..trusting.clone() };
        let mut node = Node::with(&shown);
        node.expect_up().await;
        let topic = "fanfare:{1}:a";
        node.listen(topic).await;
        let text = "x".repeat(300_000);
        node.say("1", topic, &text).await.expect("run");
        node.expect_message(topic, &text).await;

        let refused = async |settings: &Redis, part: &str| {
            let node = Node::with(settings);
            let says = |servers: &Servers| servers.health().trouble.is_some_and(|it| it.contains(part));
            node.until(part, says).await;
            assert!(node.servers.health().is_refused);
        };
        refused(&settings(&redis.url()), "redis.tls_ca_file").await;
        refused(&trusting, "redis.tls_cert_file").await;
        let plain = RedisServer::start();
        let wrong =
            Redis { url: Masked::new(plain.url().replace("redis://", "rediss://")), ..trusting.clone() };
        // One that speaks no TLS does not answer its greeting at all, or in its own words.
        let node = Node::with(&wrong);
        node.until("some trouble", |servers| servers.health().trouble.is_some()).await;
    });
}

#[test]
fn connections_end_with_their_owner() {
    tell(async || {
        let redis = RedisServer::start();
        let node = Node::up(&redis.url()).await;
        drop(node);
        let began = Instant::now();
        // The one that asks.
        while redis.command::<String>(&["CLIENT", "LIST"]).lines().count() > 1 {
            assert!(began.elapsed() < DEADLINE, "connections are left");
            sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn a_redis_that_was_killed_is_found_again_and_listened_to() {
    tell(async || {
        let mut redis = RedisServer::start();
        let mut node = Node::up(&redis.url()).await;
        let topic = "fanfare:{1}:a";
        node.listen(topic).await;
        redis.kill();
        node.expect_deaf(topic).await;
        node.expect_away().await;
        node.until("not run", |servers| servers.health().commands_away_since.is_some()).await;
        let error = node.say("1", topic, "x").await.expect_err("away");
        assert!(matches!(&error, RunError::NotRun(_)), "{error:?}");
        redis.restart();
        node.expect_listening(topic).await;
        node.expect_up().await;
        assert_eq!(node.say("1", topic, "again").await, Ok(Value::Int(1)));
        node.expect_message(topic, "again").await;
        let health = node.servers.health();
        assert!(health.connects == 4 && health.losses == 2 && health.trouble.is_none(), "{health:?}");
    });
}

#[test]
fn a_redis_that_is_there_and_says_nothing_is_lost() {
    tell(async || {
        let redis = RedisServer::start();
        let mut node = Node::with(&Redis { timeout_ms: 500, ..settings(&redis.url()) });
        node.expect_up().await;
        let topic = "fanfare:{1}:a";
        node.listen(topic).await;
        assert_eq!(node.say("1", topic, "before").await, Ok(Value::Int(1)));
        redis.pause();
        let error = node.say("1", topic, "x").await.expect_err("no answer");
        assert!(matches!(&error, RunError::Unknown(_)), "{error:?}");
        node.expect_deaf(topic).await;
        node.until("both lost", |servers| {
            let health = servers.health();
            health.commands_away_since.is_some() && health.bus_away_since.is_some()
        })
        .await;
        let error = node.say("1", topic, "x").await.expect_err("away");
        assert!(matches!(&error, RunError::NotRun(_)), "{error:?}");
        redis.resume();
        node.expect_listening(topic).await;
        node.expect_up().await;
        // What was unknown was done after all.
        assert_eq!(node.say("1", topic, "again").await, Ok(Value::Int(3)));
    });
}

#[test]
fn a_connection_that_is_cut_is_made_again_at_once() {
    tell(async || {
        let redis = RedisServer::start();
        let mut node = Node::up(&redis.url()).await;
        let topic = "fanfare:{1}:a";
        node.listen(topic).await;
        for kind in ["normal", "pubsub"] {
            redis.command::<i64>(&["CLIENT", "KILL", "TYPE", kind]);
            if kind == "pubsub" {
                node.expect_deaf(topic).await;
                node.expect_listening(topic).await;
            }
            node.expect_up().await;
        }
        node.say_at_last("1", topic, "x").await;
        node.expect_message(topic, "x").await;
    });
}

#[test]
fn nothing_is_missed_without_a_word() {
    tell(async || {
        let redis = RedisServer::start();
        let mut node = Node::up(&redis.url()).await;
        let topic = "fanfare:{1}:a";
        node.listen(topic).await;
        let (mut says, (end, ended)) = (redis.connect(), channel::<()>());
        let saying = thread::spawn(move || {
            let mut said = 0;
            while ended.try_recv() == Err(TryRecvError::Empty) {
                said += 1;
                cmd("PUBLISH").arg(topic).arg(said).exec(&mut says).expect("published");
            }
            said
        });
        let (mut losses, mut last) = (0, None);
        while losses < 5 {
            let event = node.event("anything", |event| Some(event.clone())).await;
            match event {
                BusEvent::Message { payload, .. } => {
                    let number: u64 = std::str::from_utf8(&payload).expect("text").parse().expect("a number");
                    assert!(last.is_none_or(|last| number == last + 1), "{last:?}, then {number}");
                    last = Some(number);
                    if number.is_multiple_of(500) {
                        redis.command::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
                    }
                }
                BusEvent::Deaf(_) => (losses, last) = (losses + 1, None),
                BusEvent::Listening(_) => {}
            }
        }
        drop(end);
        assert!(saying.join().expect("an end") >= 2500);
    });
}

#[test]
fn a_script_that_runs_long_keeps_others_out_and_breaks_nothing() {
    tell(async || {
        let redis = RedisServer::with(&["--busy-reply-threshold", "50"]);
        let mut node = Node::up(&redis.url()).await;
        node.listen("fanfare:{1}:a").await;
        let (mut other, mut mercy) = (redis.connect(), redis.connect());
        let long = thread::spawn(move || {
            let _ = cmd("EVAL").arg("while true do end").arg(0).exec(&mut other);
        });
        let began = Instant::now();
        loop {
            match node.say("1", "fanfare:{1}:a", "x").await {
                Err(RunError::NotRun(text)) if text.contains("BUSY") => break,
                Ok(_) if began.elapsed() < DEADLINE => {}
                answer => panic!("{answer:?}"),
            }
        }
        assert_eq!(node.servers.health().away_since(), None);
        cmd("SCRIPT").arg("KILL").exec(&mut mercy).expect("an end of the script");
        long.join().expect("an end");
        node.say_at_last("1", "fanfare:{1}:a", "after").await;
        assert_eq!(node.servers.health().losses, 0);
    });
}
