//! Foreign values become ours, row by row.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::app::Webhook;
use crate::config::foreign::address::Parts;
use crate::config::foreign::redis::Redis;
use crate::config::foreign::store::Store;
use crate::config::foreign::table::{Becomes, Dialect, Part, Row};
use crate::config::foreign::unit::{Unit, flag, plain};
use crate::config::foreign::{ForeignApp, Leaf, Said, Translation, nearest, webhooks};

/// What a configuration in one server's words says in ours.
pub(super) fn translate(dialect: &'static Dialect, leaves: &[Leaf]) -> Translation {
    let mut translator = Translator::new(dialect);
    for leaf in leaves {
        translator.leaf(leaf);
    }
    translator.finish()
}

struct Translator {
    dialect: &'static Dialect,
    out: Translation,
    bind: Parts,
    metrics: Parts,
    store: Store,
    redis: Redis,
    authentication_timeout_s: (String, String),
    /// Limits of all apps.
    every_app: Vec<Said>,
    apps: BTreeMap<usize, Draft>,
}

/// An app, as far as it is known.
#[derive(Default)]
struct Draft {
    id: Option<(String, String)>,
    key: Option<(String, String)>,
    secret: Option<(String, String)>,
    said: Vec<Said>,
    webhooks: Option<(String, Vec<Webhook>)>,
    must_authenticate: bool,
    place: String,
    variable: bool,
}

impl Translator {
    fn new(dialect: &'static Dialect) -> Self {
        Self {
            dialect,
            out: Translation::default(),
            bind: Parts::default(),
            metrics: Parts::default(),
            store: Store::default(),
            redis: Redis::default(),
            authentication_timeout_s: (String::new(), dialect.authentication_timeout_s.to_owned()),
            every_app: Vec::new(),
            apps: BTreeMap::new(),
        }
    }

    fn leaf(&mut self, leaf: &Leaf) {
        if leaf.value.is_null() || leaf.value.as_str() == Some("") {
            return;
        }
        let in_app = leaf.path.strip_prefix(self.dialect.apps_path).and_then(|rest| rest.strip_prefix('.'));
        let in_app = in_app.and_then(|rest| rest.split_once('.'));
        let (app, path, rows) = match in_app.and_then(|(at, path)| Some((at.parse::<usize>().ok()?, path))) {
            Some((app, path)) => (Some(app), path, self.dialect.app_rows),
            None => (None, &*leaf.path, self.dialect.rows),
        };
        if let Some(app) = app {
            let place = leaf.place.strip_suffix(&format!(".{path}")).unwrap_or(&leaf.place).to_owned();
            // What stands in a file comes first, and an app that began there is the file's.
            self.apps.entry(app).or_insert_with(|| Draft {
                place,
                variable: leaf.variable,
                ..Draft::default()
            });
        }
        match row_at(rows, path) {
            Some((row, whole)) => self.row(app, row, whole, leaf),
            None => self.unknown(path, rows, leaf),
        }
    }

    fn unknown(&mut self, path: &str, rows: &'static [Row], leaf: &Leaf) {
        let block = format!("{path}.");
        if path == self.dialect.apps_path {
            self.out.problem(&leaf.place, "expected a list of apps, each a block of settings");
        } else if rows.iter().any(|row| row.path.starts_with(&block)) {
            self.out.problem(&leaf.place, "expected a block of settings");
        } else if leaf.value.as_object().is_none_or(|object| !object.is_empty()) {
            let known = rows.iter().flat_map(|row| row.path.split('|'));
            let message = format!("unknown to {}{}", self.dialect.server, nearest(path, known));
            self.out.note(&leaf.place, message, true);
        }
    }

    /// One value by its row. `whole` is false if the row is for the block it stands in.
    fn row(&mut self, app: Option<usize>, row: &Row, whole: bool, leaf: &Leaf) {
        match row.becomes {
            Becomes::Setting(key, unit) => self.say(app, key, unit, false, leaf),
            Becomes::AtLeast(key, unit) => self.say(app, key, unit, true, leaf),
            Becomes::EveryApp(key, unit) => {
                if let Some(said) = self.said(key, unit, leaf) {
                    self.every_app.push(said);
                }
            }
            Becomes::Part(part) => self.part(app, part, leaf),
            Becomes::Nothing(why) => {
                let rest = (!whole).then(|| block_of(&leaf.place, &leaf.path, row.path)).flatten();
                self.out.note(
                    rest.as_deref().unwrap_or(&leaf.place),
                    format!("no effect here: {why}"),
                    false,
                );
            }
            Becomes::Missing { fine, why } => {
                if !plain(&leaf.value).is_some_and(|text| fine.contains(&&*text)) {
                    self.out.note(&leaf.place, format!("not supported: {why}"), true);
                }
            }
        }
    }

    fn said(&mut self, key: &'static str, unit: Unit, leaf: &Leaf) -> Option<Said> {
        match unit.read(&leaf.value) {
            Ok(text) => text.map(|text| Said {
                place: leaf.place.clone(),
                key,
                text,
                at_least: false,
                default: false,
            }),
            Err(expected) => {
                self.out.problem(&leaf.place, format!("bad value: expected {expected}"));
                None
            }
        }
    }

    fn say(&mut self, app: Option<usize>, key: &'static str, unit: Unit, at_least: bool, leaf: &Leaf) {
        let Some(said) = self.said(key, unit, leaf) else { return };
        let said = Said { at_least, ..said };
        match app {
            Some(app) => self.apps.entry(app).or_default().said.push(said),
            None => self.out.settings.push(said),
        }
    }

    fn part(&mut self, app: Option<usize>, part: Part, leaf: &Leaf) {
        match part {
            Part::Host | Part::Port => {
                if let Err(expected) = self.bind.take(part == Part::Host, leaf) {
                    self.out.problem(&leaf.place, expected);
                }
            }
            Part::MetricsHost | Part::MetricsPort => {
                if let Err(expected) = self.metrics.take(part == Part::MetricsHost, leaf) {
                    self.out.problem(&leaf.place, expected);
                }
            }
            Part::MetricsEnabled => match flag(plain(&leaf.value).as_deref()) {
                Some(true) => {}
                Some(false) => self.out.settings.push(Said {
                    place: leaf.place.clone(),
                    key: "metrics.bind",
                    text: String::new(),
                    at_least: false,
                    default: false,
                }),
                None => self.out.problem(&leaf.place, "bad value: expected true or false"),
            },
            Part::UserAuthenticationTimeout(unit) => {
                if let Some(said) = self.said("authorized_timeout_s", unit, leaf) {
                    self.authentication_timeout_s = (said.place, said.text);
                }
            }
            Part::StoreDriver | Part::Store(_) => match plain(&leaf.value) {
                Some(text) => self.store.take(part, &leaf.place, &text),
                None => self.out.problem(&leaf.place, "bad value: expected a text"),
            },
            Part::Redis(part) => self.redis.take(part, self.dialect.prefix, leaf),
            Part::Url => self.url(app.unwrap_or(0), leaf),
            _ => self.part_of_app(app.unwrap_or(0), part, leaf),
        }
    }

    fn part_of_app(&mut self, app: usize, part: Part, leaf: &Leaf) {
        let draft = self.apps.entry(app).or_default();
        if part == Part::Webhooks {
            let (webhooks, notes) = webhooks::read(&leaf.place, &leaf.value, &mut self.out.problems);
            draft.webhooks = Some((leaf.place.clone(), webhooks));
            self.out.notes.extend(notes);
            return;
        }
        let Some(text) = plain(&leaf.value) else {
            return self.out.problem(&leaf.place, "bad value: expected a text");
        };
        if part == Part::UserAuthentication {
            match flag(Some(&text)) {
                Some(must) => draft.must_authenticate = must,
                None => self.out.problem(&leaf.place, "bad value: expected true or false"),
            }
            return;
        }
        self.credential(app, part, leaf.place.clone(), text);
    }

    /// One of an app's three credentials; two places must not disagree.
    fn credential(&mut self, app: usize, part: Part, place: String, text: String) {
        let draft = self.apps.entry(app).or_default();
        let slot = match part {
            Part::Id => &mut draft.id,
            Part::Key => &mut draft.key,
            _ => &mut draft.secret,
        };
        match slot {
            // Later is stronger: the environment comes after the file.
            Some((before, known)) if *known != text && self.dialect.prefix == "PUSHER_" => {
                let message = format!("names another app than {before}: keep one of them");
                self.out.problem(&place, message);
            }
            _ => *slot = Some((place, text)),
        }
    }

    fn url(&mut self, app: usize, leaf: &Leaf) {
        let Some(credentials) = leaf.value.as_str().and_then(credentials_of) else {
            let message = "describes no app: expected https://KEY:SECRET@HOST/apps/ID";
            return self.out.note(&leaf.place, message, true);
        };
        for (part, text) in credentials {
            self.credential(app, part, leaf.place.clone(), text);
        }
    }

    fn finish(mut self) -> Translation {
        for (key, parts) in [("server.bind", &self.bind), ("metrics.bind", &self.metrics)] {
            self.out.addresses.extend(parts.address(key));
        }
        std::mem::take(&mut self.store).finish(&mut self.out);
        std::mem::take(&mut self.redis).finish(&mut self.out);
        let drafts = std::mem::take(&mut self.apps);
        for draft in drafts.into_values() {
            self.app(draft);
        }
        if self.out.apps.is_empty() {
            for said in &self.every_app {
                let message = format!("describes no app to set apps.{} of: set it in [[apps]]", said.key);
                self.out.note(&said.place, message, false);
            }
        } else {
            let place = format!("how {} behaves", self.dialect.server);
            self.out.settings.extend(self.dialect.server_defaults.iter().map(|(key, text)| Said {
                place: place.clone(),
                key,
                text: (*text).to_owned(),
                at_least: false,
                default: true,
            }));
        }
        let everywhere = !self.out.apps.is_empty() || self.bind.address("server.bind").is_some();
        if self.dialect.listens_everywhere && everywhere && !self.bind.has_host() {
            self.out.listens_everywhere = Some(self.dialect.server);
        }
        self.out
    }

    fn app(&mut self, draft: Draft) {
        let dialect = self.dialect;
        let default_id = || Some((String::new(), dialect.default_id?.to_owned()));
        let whole = (draft.id.clone().or_else(default_id), draft.key.clone(), draft.secret.clone());
        let (Some(id), Some(key), Some(secret)) = whole else { return self.incomplete(&draft) };
        self.notes_on_credentials(&draft, &id.1, &key, &secret.1);
        let mut said = self.every_app.clone();
        said.retain(|said| !draft.said.iter().any(|own| own.key == said.key));
        if draft.must_authenticate {
            let (place, text) = self.authentication_timeout_s.clone();
            let place = if place.is_empty() { draft.place.clone() } else { place };
            said.push(Said { place, key: "authorized_timeout_s", text, at_least: false, default: false });
        }
        said.extend(draft.said);
        for (key, text) in dialect.app_defaults {
            if !said.iter().any(|said| said.key == *key) {
                let place = format!("how {} behaves", dialect.server);
                said.push(Said { place, key, text: (*text).to_owned(), at_least: false, default: true });
            }
        }
        // Of a file one place is enough.
        let inside = |place: &str| !draft.variable && place.starts_with(&draft.place);
        let place_of = |place: &str| if inside(place) { draft.place.clone() } else { place.to_owned() };
        let (place, secret_place) = (place_of(&key.0), place_of(&secret.0));
        self.out.apps.push(ForeignApp {
            id_place: if id.0.is_empty() { place.clone() } else { place_of(&id.0) },
            keys_place: if secret_place == place { secret_place } else { format!("{place}, {secret_place}") },
            place,
            id: id.1,
            key: key.1,
            secret: secret.1,
            needs: room_for(&said),
            said,
            webhooks: draft.webhooks,
            variable: draft.variable,
        });
    }

    fn notes_on_credentials(&mut self, draft: &Draft, id: &str, key: &(String, String), secret: &str) {
        let server = self.dialect.server;
        if self.dialect.public_pair == Some((&*key.1, secret)) {
            let message = format!("the credentials in {server}'s documentation: everybody knows them");
            self.out.note(&key.0, message, true);
        }
        if draft.id.is_none() {
            self.out.note(&draft.place, format!("the id of the app is {id}, as {server} has it"), false);
        }
    }

    /// An app without credentials: an error in a file, often a mere leftover in an environment.
    fn incomplete(&mut self, draft: &Draft) {
        let named = |part: Part, slot: &Option<(String, String)>| {
            let row = self
                .dialect
                .app_rows
                .iter()
                .find(|row| matches!(row.becomes, Becomes::Part(own) if own == part));
            let row = row.filter(|_| slot.is_none())?;
            Some(if draft.variable { row.variable } else { row.path.split('|').next().unwrap_or_default() })
        };
        let missing: Vec<&str> =
            [(Part::Id, &draft.id), (Part::Key, &draft.key), (Part::Secret, &draft.secret)]
                .into_iter()
                .filter_map(|(part, slot)| named(part, slot))
                .filter(|name| self.dialect.default_id.is_none() || !name.ends_with("ID") && *name != "id")
                .collect();
        let missing = missing.join(" and ");
        if draft.variable {
            let message = format!("describes no app without {missing}: not used");
            self.out.note(&draft.place, message, true);
        } else {
            self.out.problem(&draft.place, format!("the app has no {missing}"));
        }
    }
}

/// The parts of `https://key:secret@host/apps/id`.
fn credentials_of(url: &str) -> Option<[(Part, String); 3]> {
    let url = reqwest::Url::parse(url).ok()?;
    let id = url.path().trim_end_matches('/').rsplit_once("/apps/")?.1;
    let decoded = |text: &str| {
        let text = percent_encoding::percent_decode_str(text).decode_utf8().ok()?;
        (!text.is_empty()).then(|| text.into_owned())
    };
    Some([
        (Part::Key, decoded(url.username())?),
        (Part::Secret, decoded(url.password()?)?),
        (Part::Id, decoded(id)?),
    ])
}

/// The row for a path, and whether it is for exactly that path, not for a block around it.
pub(super) fn row_at(rows: &'static [Row], path: &str) -> Option<(&'static Row, bool)> {
    if let Some(row) = rows.iter().find(|row| row.is_at(path)) {
        return Some((row, true));
    }
    let (block, _) = path.rsplit_once('.')?;
    row_at(rows, block)
        .filter(|(row, _)| matches!(row.becomes, Becomes::Nothing(_)))
        .map(|(row, _)| (row, false))
}

/// The place of the block that a row is for, from the place of something in it.
fn block_of(place: &str, path: &str, row: &str) -> Option<String> {
    row.split('|').find_map(|row| {
        let at = path.find(row)?;
        let inside = &path[at + row.len()..];
        place.strip_suffix(inside).map(str::to_owned)
    })
}

/// Larger events need room in messages and requests.
fn room_for(said: &[Said]) -> Vec<Said> {
    let number = |key: &str, default: u64| {
        let said = said.iter().rfind(|said| said.key == key);
        let value = said.and_then(|said| said.text.parse::<u64>().ok()).unwrap_or(default);
        (value, said)
    };
    let (bytes, Some(why)) = number("event_data_bytes_max", 0) else { return Vec::new() };
    let (events, _) = number("batch_events_max", 10);
    // An event stands in a JSON string, where quotes take two bytes; and there are names around it.
    let body = bytes.saturating_mul(2).saturating_add(32 * 1024);
    let needs = |key, bytes: u64| Said { key, text: bytes.to_string(), at_least: true, ..why.clone() };
    vec![
        needs("connection.message_bytes_max", body),
        needs("api.body_bytes_max", body),
        needs("api.batch_body_bytes_max", body.saturating_mul(events)),
    ]
}

/// A value that is a text of JSON, or JSON itself.
pub(super) fn json_of(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => serde_json::from_str(text).ok(),
        _ => Some(value.clone()),
    }
}
