//! `webhooks/dead-letters…`: what could not be delivered, and trying it again.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::admin::call::{self, Call};
use crate::admin::{Admin, AdminError, Answer};
use crate::app::AppId;
use crate::webhook::{DeadLetter, Question, Selection};

/// Seconds whoever delivers webhooks has to answer.
const TIMEOUT_S: u64 = 5;

const EXPECTED: &str = r#"one of {"id": "…"}, {"app": "…"}, {"all": true}"#;

/// `GET webhooks/dead-letters`: newest first.
pub(super) async fn list(admin: &Admin, call: &Call<'_>) -> Result<Answer, AdminError> {
    let limit = call.limit()?;
    let selection = match call.parameter("app") {
        Some(app) => Selection::App(call::app(admin, app).await?.id.clone()),
        None => Selection::All,
    };
    let letters = ask(admin, |reply| Question::DeadLetters(selection, reply)).await?;
    let shown: Vec<Value> = letters.iter().take(limit).map(dead_letter).collect();
    Ok(Answer::ok(&json!({ "dead_letters": shown, "total": letters.len() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replay {
    id: Option<String>,
    app: Option<String>,
    all: Option<bool>,
}

/// `POST webhooks/dead-letters/replay`: try them again.
pub(super) async fn replay(admin: &Admin, call: Call<'_>) -> Result<Answer, AdminError> {
    let peer = call.peer();
    let body: Replay = call.json(EXPECTED).await?;
    let (selection, id) = match (body.id, body.app, body.all) {
        (Some(id), None, None) => (Selection::Id(id.clone()), Some(id)),
        (None, Some(app), None) => (Selection::App(call::app(admin, &app).await?.id.clone()), None),
        (None, None, Some(true)) => (Selection::All, None),
        _ => return Err(AdminError::BadBody { expected: EXPECTED }),
    };
    know_receivers(admin, &selection).await?;
    let count = ask(admin, |reply| Question::Replay(selection, reply)).await?;
    match id {
        Some(id) if count == 0 => return Err(AdminError::UnknownDeadLetter(id)),
        _ => {}
    }
    tracing::info!(count, ?peer, "dead letters replayed by an operator");
    Ok(Answer::accepted(&json!({ "replayed": count })))
}

/// Has the node know the apps of dead letters: those of a store may have been forgotten since.
async fn know_receivers(admin: &Admin, selection: &Selection) -> Result<(), AdminError> {
    let letters = ask(admin, |reply| Question::DeadLetters(selection.clone(), reply)).await?;
    let apps: BTreeSet<AppId> = letters.into_iter().map(|letter| letter.app).collect();
    for id in apps {
        match call::app(admin, &id).await {
            // Those of deleted apps stay where they are.
            Ok(_) | Err(AdminError::UnknownApp(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn ask<T>(
    admin: &Admin,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Result<T, AdminError> {
    let desk = admin.webhooks.as_ref().ok_or(AdminError::NoWebhooks)?;
    let (reply, answer) = oneshot::channel();
    desk.send(question(reply)).map_err(|_| AdminError::NoWebhooks)?;
    let limit_s = TIMEOUT_S;
    let answer = timeout(Duration::from_secs(limit_s), answer).await;
    answer.map_err(|_| AdminError::Silent { limit_s })?.map_err(|_| AdminError::NoWebhooks)
}

fn dead_letter(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "app": &*letter.app,
        "url": letter.url,
        "body": letter.body,
        "time_ms": letter.time_ms,
        "attempts": letter.attempts,
        "error": letter.error,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actix_web::http::StatusCode;
    use actix_web::test::{TestRequest, call_service, init_service, read_body};
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::admin::{Addresses, service};
    use crate::app::Apps;
    use crate::config::{Config, Masked};
    use crate::node::Node;

    const TOKEN: &str = "a-token-of-some-length";

    fn letter(id: &str) -> DeadLetter {
        DeadLetter {
            id: id.to_owned(),
            app: "1".into(),
            url: "https://a.example/hook".to_owned(),
            body: "{}".to_owned(),
            time_ms: 5,
            attempts: 3,
            error: "503".to_owned(),
        }
    }

    /// Asks an API whose desk knows these letters.
    async fn ask(request: TestRequest, letters: &'static [&'static str]) -> (StatusCode, Value) {
        let mut config = Config { apps: vec![Config::demo_app()], ..Config::default() };
        config.admin.token = Masked::new(TOKEN);
        let apps = Apps::new(config.apps.clone()).expect("good apps");
        let (orders, _ours) = unbounded_channel();
        let (desk, mut questions) = unbounded_channel();
        actix_rt::spawn(async move {
            while let Some(question) = questions.recv().await {
                let known = |which: &Selection| -> Vec<DeadLetter> {
                    let all = letters.iter().map(|id| letter(id));
                    all.filter(|one| !matches!(which, Selection::Id(id) if *id != one.id)).collect()
                };
                match question {
                    Question::DeadLetters(which, reply) => drop(reply.send(known(&which))),
                    Question::Replay(which, reply) => drop(reply.send(known(&which).len())),
                }
            }
        });
        let address = "127.0.0.1:1".parse().expect("an address");
        let addresses = Addresses { clients: address, metrics: None, admin: address };
        let admin = Admin::new(Node::new(config, apps), orders, Some(desk), addresses);
        let api = init_service(service(Arc::clone(&admin))).await;
        let request = request.insert_header(("Authorization", format!("Bearer {TOKEN}")));
        let response = call_service(&api, request.to_request()).await;
        let status = response.status();
        (status, serde_json::from_slice(&read_body(response).await).expect("JSON"))
    }

    #[actix_rt::test]
    async fn the_newest_are_listed_first() {
        let request = TestRequest::get().uri("/admin/v1/webhooks/dead-letters?limit=1&app=1");
        let one = json!({
            "id": "b", "app": "1", "url": "https://a.example/hook", "body": "{}", "time_ms": 5, "attempts": 3,
            "error": "503",
        });
        let expected = json!({ "dead_letters": [one], "total": 2 });
        assert_eq!(ask(request, &["b", "a"]).await, (StatusCode::OK, expected));
    }

    #[actix_rt::test]
    async fn one_or_all_are_replayed_and_an_unknown_one_is_refused() {
        let post = |body: &'static str| {
            TestRequest::post().uri("/admin/v1/webhooks/dead-letters/replay").set_payload(body)
        };
        let accepted = |count: usize| (StatusCode::ACCEPTED, json!({ "replayed": count }));
        assert_eq!(ask(post(r#"{"all":true}"#), &["b", "a"]).await, accepted(2));
        assert_eq!(ask(post(r#"{"app":"1"}"#), &["b", "a"]).await, accepted(2));
        assert_eq!(ask(post(r#"{"id":"a"}"#), &["b", "a"]).await, accepted(1));
        assert_eq!(ask(post(r#"{"app":"1"}"#), &[]).await, accepted(0));
        assert_eq!(ask(post(r#"{"id":"c"}"#), &["b", "a"]).await.0, StatusCode::NOT_FOUND);
        assert_eq!(ask(post(r#"{"id":"a","all":true}"#), &["a"]).await.0, StatusCode::BAD_REQUEST);
    }
}
