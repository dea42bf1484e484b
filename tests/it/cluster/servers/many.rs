//! Servers that take over from each other, and those that share the work.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use deadpool_redis::redis::Value;
use fanfare::config::{Masked, Redis};
use tokio::time::sleep;

use super::{DEADLINE, Node, settings, tell};
use crate::support::{PASSWORD, RedisCluster, RedisServer, Sentinels};

#[test]
fn a_user_of_a_redis_cluster_needs_few_rights() {
    tell(async || {
        let cluster = RedisCluster::start();
        let rights = [
            "~fanfare:*",
            "&fanfare:*",
            "+eval",
            "+evalsha",
            "+info",
            "+ssubscribe",
            "+sunsubscribe",
            "+cluster|slots",
        ];
        let own = ["+incr", "+spublish"]; // what the scripts of this story do
        let password = format!(">{PASSWORD}");
        for redis in &cluster.nodes {
            let user = ["ACL", "SETUSER", "ann", "on", "resetchannels", &password];
            redis.command::<()>(&[&user[..], &rights, &own].concat());
        }
        let mut node =
            Node::up(&cluster.url().replace("redis://", &format!("redis://ann:{PASSWORD}@"))).await;
        for tag in ["1", "2", "3", "4"] {
            let topic = format!("fanfare:{{{tag}}}:a");
            node.listen(&topic).await;
            node.say(tag, &topic, "x").await.expect("run");
            node.expect_message(&topic, "x").await;
            node.servers.unlisten(topic.as_bytes());
            node.listen(&format!("fanfare:{{{tag}}}:b")).await;
        }
        for redis in &cluster.nodes {
            assert_eq!(redis.command::<Vec<Value>>(&["ACL", "LOG"]), [], "nothing was tried that it may not");
        }
    });
}

#[test]
fn a_redis_cluster_speaks_tls_too() {
    tell(async || {
        let cluster = RedisCluster::secure();
        let file = |name: &str| cluster.nodes[0].pki().file(name).display().to_string();
        let mut node = Node::with(&Redis {
            tls_ca_file: file("ca.pem"),
            tls_cert_file: file("client.pem"),
            tls_key_file: file("client.key"),
            ..settings(&cluster.url())
        });
        node.expect_up().await;
        for tag in ["1", "2", "3", "4"] {
            let topic = format!("fanfare:{{{tag}}}:a");
            node.listen(&topic).await;
            node.say(tag, &topic, "x").await.expect("run");
            node.expect_message(&topic, "x").await;
        }
    });
}

#[test]
fn sentinels_lead_to_the_promoted_replica() {
    tell(async || {
        let mut all = Sentinels::start();
        // Who watches needs to know us no better than this.
        for sentinel in &all.sentinels {
            let user = ["ACL", "SETUSER", "ann", "on", ">ann", "+sentinel|get-master-addr-by-name"];
            sentinel.command::<()>(&user);
        }
        let urls: Vec<String> =
            all.sentinels.iter().map(|it| format!("redis://ann:ann@127.0.0.1:{}", it.port())).collect();
        let settings = Redis { sentinels: Masked::new(urls.join(",")), ..settings(&all.url()) };
        let mut node = Node::with(&settings);
        node.expect_up().await;
        assert_eq!(node.servers.is_sharded(), Some(false));
        let topic = "fanfare:{1}:a";
        node.listen(topic).await;
        node.say("1", topic, "before").await.expect("run");
        node.expect_message(topic, "before").await;

        assert_eq!(all.master(), 0);
        all.servers[0].kill();
        node.expect_deaf(topic).await;
        node.expect_listening(topic).await;
        node.say_at_last("1", topic, "after").await;
        node.expect_message(topic, "after").await;
        all.expect_master(1);
        node.expect_up().await;

        // Back again, it is a replica, and nobody's business.
        all.servers[0].restart();
        node.say_at_last("1", topic, "still").await;
        node.expect_message(topic, "still").await;
        assert_eq!(
            all.servers[1].command::<String>(&["GET", "fanfare:{1}:count"]).parse::<u64>().map(|it| it >= 2),
            Ok(true)
        );
    });
}

#[test]
fn a_master_that_has_become_a_replica_is_left() {
    tell(async || {
        let all = Sentinels::start();
        let settings = Redis { sentinels: Masked::new(all.sentinel_urls()), ..settings(&all.url()) };
        let mut node = Node::with(&settings);
        node.expect_up().await;
        let topic = "fanfare:{1}:a";
        node.listen(topic).await;
        let began = Instant::now();
        // Refused as long as the Sentinels do not know that there is a replica to promote.
        while all.sentinels[0].try_command::<()>(&["SENTINEL", "FAILOVER", "mymaster"]).is_err() {
            assert!(began.elapsed() < DEADLINE, "no fail-over");
            sleep(Duration::from_millis(50)).await;
        }
        node.expect_deaf(topic).await;
        node.expect_listening(topic).await;
        node.say_at_last("1", topic, "after").await;
        node.expect_message(topic, "after").await;
        all.expect_master(1);
    });
}

#[test]
fn a_redis_cluster_gets_each_script_where_its_keys_are() {
    tell(async || {
        let cluster = RedisCluster::start();
        // One of its servers is enough.
        let mut node = Node::up(cluster.url().split(',').next().expect("a URL")).await;
        assert_eq!(node.servers.is_sharded(), Some(true));
        let mut owners = BTreeSet::new();
        for tag in 0..64 {
            let (tag, topic) = (tag.to_string(), format!("fanfare:{{{tag}}}:a"));
            owners.insert(cluster.owner(cluster.slot(&topic)));
            node.servers.listen(topic.into_bytes());
            node.expect_listening(&format!("fanfare:{{{tag}}}:a")).await;
            assert_eq!(node.say(&tag, &format!("fanfare:{{{tag}}}:a"), &tag).await, Ok(Value::Int(1)));
            node.expect_message(&format!("fanfare:{{{tag}}}:a"), &tag).await;
        }
        assert_eq!(owners, BTreeSet::from([0, 1, 2]));
    });
}

#[test]
fn a_slot_that_moves_while_all_goes_on_is_followed() {
    tell(async || {
        let cluster = RedisCluster::start();
        let mut node = Node::up(&cluster.url()).await;
        let (tag, topic) = ("17", "fanfare:{17}:a");
        let (other_tag, other) = ("18", "fanfare:{18}:a");
        node.listen(topic).await;
        node.listen(other).await;
        let slot = cluster.slot(topic);
        let from = cluster.owner(slot);
        let to = (from + 1) % 3;
        assert_eq!(node.say(tag, topic, "before").await, Ok(Value::Int(1)));
        node.expect_message(topic, "before").await;

        cluster.begin_move(slot, to);
        assert_eq!(node.say(tag, topic, "begun").await, Ok(Value::Int(2)), "the keys are still here");
        node.expect_message(topic, "begun").await;
        cluster.move_keys(slot, to);
        // The keys are there, the slot is not: who comes here is told to ask there.
        assert_eq!(node.say_at_last(tag, topic, "asked").await, Value::Int(3));
        cluster.finish_move(slot, to);
        node.expect_deaf(topic).await;
        node.expect_listening(topic).await;
        assert_eq!(node.say_at_last(tag, topic, "after").await, Value::Int(4));
        node.expect_message(topic, "after").await;

        // Nobody else has noticed.
        assert_eq!(node.say(other_tag, other, "still").await, Ok(Value::Int(1)));
        node.expect_message(other, "still").await;
        assert_eq!(node.servers.health().losses, 0);
    });
}

#[test]
fn a_slot_that_has_moved_unseen_is_found_by_who_sends_there() {
    tell(async || {
        let cluster = RedisCluster::start();
        let mut node = Node::up(&cluster.url()).await;
        let slot = cluster.slot("fanfare:{17}:a");
        let to = (cluster.owner(slot) + 1) % 3;
        cluster.begin_move(slot, to);
        cluster.finish_move(slot, to);
        // At once: by a redirect, not by the next look at the slots.
        assert_eq!(node.say("17", "fanfare:{17}:a", "x").await, Ok(Value::Int(1)));
        node.listen("fanfare:{17}:a").await;
        node.say("17", "fanfare:{17}:a", "y").await.expect("run");
        node.expect_message("fanfare:{17}:a", "y").await;
    });
}

#[test]
fn a_redis_cluster_that_loses_a_master_goes_on_with_its_replica() {
    tell(async || {
        let mut cluster = RedisCluster::with_replicas();
        let mut node = Node::up(&cluster.url()).await;
        let tags: Vec<String> = (0..64).map(|tag: u8| tag.to_string()).collect();
        let topic = |tag: &str| format!("fanfare:{{{tag}}}:a");
        let lost = cluster.owner(cluster.slot(&topic("17")));
        for tag in &tags {
            node.listen(&topic(tag)).await;
        }
        cluster.nodes[lost].kill();
        node.expect_deaf(&topic("17")).await;
        node.expect_listening(&topic("17")).await;
        for tag in &tags {
            node.say_at_last(tag, &topic(tag), tag).await;
            node.expect_message(&topic(tag), tag).await;
        }
        node.expect_up().await;
        // It comes back as a replica, and nobody goes there.
        cluster.nodes[lost].restart();
        cluster.expect_owner(cluster.slot(&topic("17")), lost + 3);
        node.say_at_last("17", &topic("17"), "still").await;
        node.expect_message(&topic("17"), "still").await;
    });
}

#[test]
fn a_master_of_a_redis_cluster_that_hands_over_is_left() {
    tell(async || {
        let cluster = RedisCluster::with_replicas();
        let mut node = Node::up(&cluster.url()).await;
        let topic = "fanfare:{17}:a";
        let slot = cluster.slot(topic);
        let replica = cluster.owner(slot) + 3;
        node.listen(topic).await;
        cluster.nodes[replica].command::<()>(&["CLUSTER", "FAILOVER"]);
        node.expect_deaf(topic).await;
        node.expect_listening(topic).await;
        cluster.expect_owner(slot, replica);
        node.say_at_last("17", topic, "after").await;
        node.expect_message(topic, "after").await;
        node.expect_up().await;
    });
}

#[test]
fn one_server_is_not_several() {
    tell(async || {
        let (one, other) = (RedisServer::start(), RedisServer::start());
        let node = Node::new(&format!("{},{}", one.url(), other.url()));
        node.until("refused", |servers| servers.health().is_refused).await;
        let text = node.servers.health().trouble.expect("a trouble");
        assert!(text.contains("not of a Redis Cluster"), "{text}");
    });
}
