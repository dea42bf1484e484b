//! Foreign names take their place between the file and `FANFARE_…`.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::{APP_PREFIX, Loading};
use crate::app::App;
use crate::config::field::{Input, pair_from};
use crate::config::foreign::{ForeignApp, Kind, Note, Said, Translation, from_environment, leaves_of_soketi};
use crate::config::settings::{APP_SETTINGS, SETTINGS};
use crate::config::{Config, ConfigError};

/// What was taken from a foreign configuration alone.
pub(in crate::config) struct Adopted {
    pub(in crate::config) config: Config,
    pub(in crate::config) origins: HashMap<String, String>,
    /// What has no counterpart or needs a look.
    pub(in crate::config) notes: Vec<Note>,
}

/// The configuration that a foreign one makes.
pub(in crate::config) fn adopt(translation: Translation) -> Result<Adopted, ConfigError> {
    let mut loading = Loading { apps_place: "apps".to_owned(), ..Loading::default() };
    loading.apply(translation, None);
    let taken: HashSet<String> = loading.taken.iter().map(|taken| taken.place.clone()).collect();
    let mut loaded = loading.finish()?;
    loaded.notes.retain(|note| note.warn || !taken.contains(&note.name));
    Ok(Adopted { config: loaded.config, origins: loaded.origins, notes: loaded.notes })
}

/// A setting that a foreign name became, to be told at the end, when it is known what stronger ones said.
pub(super) struct Taken {
    place: String,
    key: String,
    at_least: bool,
}

impl Loading {
    /// Keeps what stands in a foreign file for [`Loading::foreign`].
    pub(super) fn foreign_file(&mut self, kind: Kind, name: &str, text: &str) {
        if kind == Kind::Sockudo {
            let message = format!(
                "this is sockudo's configuration: make it Fanfare's with fanfare config convert {name} --out fanfare.toml"
            );
            return self.problem(name, message);
        }
        match leaves_of_soketi(name, text) {
            Ok(leaves) => self.leaves = leaves,
            Err(problem) => self.problems.push(problem),
        }
    }

    /// Takes what foreign names say in the environment, and in soketi's file if that is the configuration.
    pub(super) fn foreign(&mut self, environment: &[(String, String)]) {
        let own = environment.iter().find(|(name, _)| name.starts_with(APP_PREFIX)).map(|(name, _)| &**name);
        let leaves = std::mem::take(&mut self.leaves);
        self.apply(from_environment(environment, leaves), own);
    }

    /// `own` is a variable of ours that describes an app, if there is one.
    fn apply(&mut self, translation: Translation, own: Option<&str>) {
        self.listens_everywhere = translation.listens_everywhere;
        self.problems.extend(translation.problems);
        self.notes.extend(translation.notes);
        for address in translation.addresses {
            let metrics = address.key == "metrics.bind";
            let usual = || Config::default().metrics.bind;
            let before =
                if metrics { self.config.metrics.bind.or_else(usual) } else { Some(self.config.server.bind) };
            let Some(before) = before else { continue };
            let text: SocketAddr = address.complete(before);
            self.take(&address.place, address.key, &text.to_string(), false);
        }
        for said in translation.settings {
            self.say(&said);
        }
        for app in translation.apps {
            match own {
                Some(own) if app.variable => {
                    let message = format!("not used: {own} and the like describe the app");
                    self.notes.push(Note { name: app.place, message, warn: false });
                }
                _ => self.foreign_app(&app),
            }
        }
    }

    fn say(&mut self, said: &Said) {
        if said.default && self.origins.contains_key(said.key) {
            return;
        }
        if said.at_least && self.number(said.key) >= said.text.parse().ok() {
            // Nobody asked for less than that.
            return self.taken(&said.place, said.key, true);
        }
        self.take(&said.place, said.key, &said.text, said.at_least);
    }

    fn take(&mut self, place: &str, key: &str, text: &str, at_least: bool) {
        self.set(place, key, Input::Text(text));
        self.taken(place, key, at_least);
    }

    fn taken(&mut self, place: &str, key: &str, at_least: bool) {
        self.taken.push(Taken { place: place.to_owned(), key: key.to_owned(), at_least });
    }

    fn number(&mut self, key: &str) -> Option<u64> {
        let setting = SETTINGS.iter().find(|setting| setting.key == key)?;
        (setting.field)(&mut self.config).number()
    }

    /// An app of the environment changes the file's app with the same id; others stand beside it.
    fn foreign_app(&mut self, app: &ForeignApp) {
        let same = self.config.apps.iter().position(|known| *known.id == *app.id);
        let before = same.filter(|_| app.variable);
        let number = before.unwrap_or(self.config.apps.len());
        let prefix = format!("apps[{number}].");
        let mut ours = before.map_or_else(App::default, |at| self.config.apps[at].clone());
        if before.is_none() {
            self.set_in(APP_SETTINGS, &mut ours, &app.id_place, &prefix, "id", Input::Text(&app.id));
            self.taken(&app.id_place, &format!("{prefix}id"), false);
        }
        match pair_from((&app.key, &app.secret)) {
            Some(pair) if ours.keys.contains(&pair) => {}
            Some(pair) => {
                ours.keys = vec![pair];
                self.origins.insert(format!("{prefix}keys"), app.keys_place.clone());
                self.taken(&app.keys_place, &format!("{prefix}keys"), false);
            }
            None => self.problem(&app.place, "a key has no colon and no slash, and neither is empty"),
        }
        for said in app.said.iter().filter(|said| before.is_none() || !said.default) {
            if said.at_least && number_of(&mut ours, said.key) >= said.text.parse().ok() {
                continue;
            }
            self.set_in(APP_SETTINGS, &mut ours, &said.place, &prefix, said.key, Input::Text(&said.text));
            self.taken(&said.place, &format!("{prefix}{}", said.key), said.at_least);
        }
        if let Some((place, webhooks)) = &app.webhooks {
            ours.webhooks.clone_from(webhooks);
            self.origins.insert(format!("{prefix}webhooks"), place.clone());
            self.taken(place, &format!("{prefix}webhooks"), false);
        }
        for said in app.needs.iter().filter(|said| before.is_none() || !said.default) {
            self.say(said);
        }
        match before {
            Some(at) => self.config.apps[at] = ours,
            None => self.config.apps.push(ours),
        }
    }

    /// One line for each foreign name: what it became, or who said otherwise.
    pub(super) fn foreign_notes(&mut self) -> Vec<Note> {
        let mut notes = Vec::new();
        let mut taken = std::mem::take(&mut self.taken);
        while let Some(first) = taken.first() {
            let place = first.place.clone();
            let (of_place, rest) = taken.into_iter().partition(|taken| taken.place == place);
            taken = rest;
            notes.push(Note { message: self.became(&place, &of_place), name: place, warn: false });
        }
        notes.append(&mut self.notes);
        notes.extend(self.still_at_home(&notes));
        notes
    }

    fn became(&self, place: &str, taken: &[Taken]) -> String {
        let mut became: Vec<&str> = Vec::new();
        let mut parts = Vec::new();
        for Taken { key, at_least, .. } in taken {
            match self.origins.get(key) {
                Some(origin) if origin == place => became.push(key),
                Some(origin) => parts.push(format!("{key} is set by {origin}")),
                None if *at_least => parts.push(format!("{key} is no less by default")),
                None => {}
            }
        }
        became.dedup();
        if !became.is_empty() {
            parts.insert(0, format!("becomes {}", became.join(", ")));
        }
        if parts.is_empty() { "as it is".to_owned() } else { parts.join("; ") }
    }

    /// Who moves from a server that listens on every address may wonder why nobody can reach this one.
    fn still_at_home(&self, notes: &[Note]) -> Option<Note> {
        let server = self.listens_everywhere?;
        let bind = self.config.server.bind;
        let said = self.origins.get("server.bind");
        let by_us = said.is_some_and(|place| !notes.iter().any(|note| note.name == *place));
        (bind.ip().is_loopback() && !by_us).then(|| Note {
            name: "server.bind".to_owned(),
            message: format!(
                "{server} listens on every address unless told otherwise, Fanfare only on {bind}: to be reached from \
                 elsewhere, as in a container, set server.bind, or FANFARE_SERVER_BIND=0.0.0.0:{}",
                bind.port()
            ),
            warn: true,
        })
    }
}

fn number_of(app: &mut App, key: &str) -> Option<u64> {
    let setting = APP_SETTINGS.iter().find(|setting| setting.key == key)?;
    (setting.field)(app).number()
}
