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

#[test]
fn an_app_may_move_between_file_and_store() {
    run(async {
        let folder = TempDir::new().expect("a folder");
        let node = node(vec![app("1", "a"), app("2", "b")], &folder);
        let store = Store::open(&node.config().store).await.expect("a store");
        store.insert(&Record { enabled: false, ..record("1", "a") }).await.expect("written");
        let directory = Directory::start(&node, Some(store));
        assert_eq!(directory.refresh(Vec::new()).await, Refreshed { apps: 1, problem: None });
        assert_eq!(node.apps().by_id("1").map(|app| app.enabled), Some(false), "as the store has it");
        assert!(node.apps().by_id("2").is_none(), "it is in neither");
        assert_eq!(directory.refresh(vec![app("1", "a")]).await.apps, 1);
        assert_eq!(node.apps().by_key("a").map(|app| app.enabled), Some(true), "as the file has it");
    });
}

#[test]
fn an_app_that_the_file_has_no_longer_is_gone_if_the_store_is_away() {
    run(async {
        let folder = TempDir::new().expect("a folder");
        let node = node(vec![app("1", "a"), app("2", "b")], &folder);
        let store = Store::open(&node.config().store).await.expect("a store");
        let directory = Directory::start(&node, Some(store));
        std::fs::write(folder.path().join("apps.db"), "no database at all").expect("written");
        let refreshed = directory.refresh(vec![app("1", "a")]).await;
        assert!(refreshed.apps == 1 && refreshed.problem.is_some(), "{refreshed:?}");
        assert!(node.apps().by_id("2").is_none());
    });
}

#[test]
fn a_refresh_forgets_who_was_unknown() {
    run(async {
        let folder = TempDir::new().expect("a folder");
        let node = node(Vec::new(), &folder);
        let store = Store::open(&node.config().store).await.expect("a store");
        let beside = Store::open(&node.config().store).await.expect("a store");
        let directory = Directory::start(&node, Some(store));
        assert_eq!(node.app_by_key("seven").await.err(), Some(NoApp::Unknown));
        beside.insert(&record("7", "seven")).await.expect("written");
        assert_eq!(node.app_by_key("seven").await.err(), Some(NoApp::Unknown), "remembered");
        directory.refresh(Vec::new()).await;
        assert!(node.app_by_key("seven").await.is_ok());
    });
}

#[test]
fn those_who_guess_keep_no_change_from_being_seen() {
    run(async {
        let folder = TempDir::new().expect("a folder");
        let node = node(Vec::new(), &folder);
        let store = Store::open(&node.config().store).await.expect("a store");
        let mut task = Task::new(
            node,
            (0..NAMES_MAX).map(|at| app(&at.to_string(), &at.to_string())).collect(),
            Some(store),
        );
        let guess = |task: &mut Task| {
            let (answer, _) = oneshot::channel();
            task.waiting.push_back(Lookup { name: AppName::Key("guess".to_owned()), answer });
        };
        let (answer_to, mut refreshed) = oneshot::channel();
        guess(&mut task);
        task.refresh(Refresh { files: vec![app("x", "x")], answer: answer_to });
        for _ in 0..2 {
            task.ask();
            guess(&mut task);
            let rows = answer(&mut task.asked).await;
            task.answered(rows);
        }
        assert_eq!(refreshed.try_recv(), Ok(Refreshed { apps: 1, problem: None }));
    });
}

#[test]
fn an_idle_app_is_let_go_unless_the_store_is_away() {
    run(async {
        let folder = TempDir::new().expect("a folder");
        let node = node(Vec::new(), &folder);
        let store = Store::open(&node.config().store).await.expect("a store");
        store.insert(&record("7", "seven")).await.expect("written");
        let mut task = Task::new(node.clone(), Vec::new(), Some(store));
        let later = Instant::now() + Duration::from_secs(2 * 3600);
        task.stale.push_back("7".into());
        task.ask();
        let rows = answer(&mut task.asked).await;
        task.answered(rows);
        assert!(node.apps().by_id("7").is_some());

        task.is_away(&StoreError::Scheme, Vec::new());
        task.look_again(later);
        assert!(node.apps().by_id("7").is_some() && task.stale.len() == 1, "it could not be had back");
        task.is_back();
        task.look_again(later);
        assert!(node.apps().by_id("7").is_none() && task.stale.is_empty());
    });
}
