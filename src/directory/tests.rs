use tempfile::TempDir;

use super::*;
use crate::app::{Apps, KeyPair};
use crate::config::{Config, Masked};
use crate::node::NoApp;
use crate::protocol::Secret;
use crate::store::{Pair, Record};

fn app(id: &str, key: &str) -> App {
    let keys = vec![KeyPair { key: key.to_owned(), secret: Secret::new("s") }];
    App { id: id.into(), keys, ..App::default() }
}

fn record(id: &str, key: &str) -> Record {
    let keys = vec![Pair { key: key.to_owned(), secret: Masked::new("s") }];
    Record { id: id.to_owned(), enabled: true, keys, settings: serde_json::Map::new() }
}

fn node(files: Vec<App>, folder: &TempDir) -> Arc<Node> {
    let mut config = Config { apps: files.clone(), ..Config::default() };
    config.store.url = Masked::new(format!("sqlite:{}", folder.path().join("apps.db").display()));
    Node::new(config, Apps::new(files).expect("valid"))
}

fn run(story: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(story);
}

#[test]
fn without_a_store_the_apps_of_the_file_are_all_there_are() {
    run(async {
        let folder = TempDir::new().expect("a folder");
        let node = node(vec![app("1", "a"), app("2", "b")], &folder);
        let directory = Directory::start(&node, None);
        assert!(!node.has_store());
        assert_eq!(node.app_by_key("c").await.err(), Some(NoApp::Unknown));
        let before = node.apps().by_id("2").cloned();
        let refreshed = directory.refresh(vec![app("2", "b"), app("3", "c")]).await;
        assert_eq!(refreshed, Refreshed { apps: 2, problem: None });
        assert!(node.apps().by_key("c").is_some() && node.apps().by_id("1").is_none());
        // An app that is as it was is the same one.
        assert!(before.zip(node.apps().by_id("2").cloned()).is_some_and(|(was, is)| Arc::ptr_eq(&was, &is)));
    });
}

#[test]
fn a_refresh_reads_the_apps_of_the_store_again_and_the_file_wins() {
    run(async {
        let folder = TempDir::new().expect("a folder");
        let node = node(vec![app("1", "a")], &folder);
        let store = Store::open(&node.config().store).await.expect("a store");
        let beside = Store::open(&node.config().store).await.expect("a store");
        for (id, key) in [("7", "seven"), ("8", "eight"), ("9", "nine")] {
            beside.insert(&record(id, key)).await.expect("written");
        }
        let directory = Directory::start(&node, Some(store));
        let unasked = directory.refresh(vec![app("1", "a")]).await;
        assert_eq!(unasked.apps, 1);
        let (seven, eight) = tokio::join!(node.app_by_key("seven"), node.look_up(AppName::Id("8".into())));
        assert!(seven.is_ok() && eight.is_ok() && node.apps().by_key("eight").is_some());

        beside.delete("7").await.expect("deleted");
        assert!(beside.update(&record("8", "other")).await.expect("written"));
        assert!(!beside.update(&record("7", "seven")).await.expect("nothing to write"));
        assert!(matches!(beside.insert(&record("8", "x")).await, Err(StoreError::Taken)));
        assert!(matches!(beside.insert(&record("x", "nine")).await, Err(StoreError::Taken)));
        let refreshed = directory.refresh(vec![app("1", "a"), app("2", "nine")]).await;
        assert_eq!(refreshed, Refreshed { apps: 3, problem: None });
        let apps = node.apps();
        assert!(
            apps.by_id("7").is_none() && apps.by_key("eight").is_none() && apps.by_key("other").is_some()
        );
        assert!(node.look_up(AppName::Id("9".into())).await.is_ok());
        assert!(node.apps().by_id("9").is_none(), "the file has its key");

        // The file gives its key back.
        directory.file_apps(vec![app("1", "a")]);
        assert!(directory.refresh(vec![app("1", "a")]).await.problem.is_none());
        assert_eq!(node.apps().by_key("nine").map(|app| &*app.id), Some("9"));
    });
}

#[test]
fn a_store_that_fails_leaves_everything_as_it_was() {
    run(async {
        let folder = TempDir::new().expect("a folder");
        let node = node(Vec::new(), &folder);
        let store = Store::open(&node.config().store).await.expect("a store");
        store.insert(&record("7", "seven")).await.expect("written");
        let directory = Directory::start(&node, Some(store));
        assert!(node.app_by_key("seven").await.is_ok());
        std::fs::write(folder.path().join("apps.db"), "no database at all").expect("written");
        let refreshed = directory.refresh(Vec::new()).await;
        assert_eq!(refreshed.apps, 1);
        assert!(refreshed.problem.is_some_and(|problem| problem.contains("store.url")));
        assert!(node.store_is_away() && node.app_by_key("seven").await.is_ok());
        assert_eq!(node.app_by_key("eight").await.err(), Some(NoApp::Away));
    });
}
