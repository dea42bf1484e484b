//! What others call things: environment names of Pusher, soketi and Reverb, configuration files of soketi and sockudo.
//!
//! Every name is one row of a table (`names`, `soketi`, `sockudo`): what it becomes here, or why it has no effect. The
//! loader and `config convert` both work on the [`Translation`] of what was found, so they cannot disagree.
//!
//! File < these names < `FANFARE_…` < flags. Where several servers' names describe an app, soketi's are taken first,
//! then Reverb's, then Pusher's, which are often a client's.
//!
//! Not here: putting it into the configuration (`load`), writing it as TOML (`convert`).

mod address;
mod dotenv;
mod environment;
mod file;
mod names;
mod redis;
mod sockudo;
mod soketi;
mod store;
mod table;
mod translate;
mod unit;
mod webhooks;

#[cfg(test)]
mod tests;

use crate::app::Webhook;
use crate::config::Problem;

pub(super) use address::Address;
pub(super) use environment::from_environment;
pub(super) use file::{Kind, kind_of, leaves_of_soketi, translate as translate_file};

/// Something found in a foreign configuration, and what became of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    /// The foreign name, or its place in a file.
    pub name: String,
    /// What it became, or why it has no effect. Never a value.
    pub message: String,
    /// Someone should look at it.
    pub warn: bool,
}

/// A foreign value at its place, by the path that the table knows it by.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// How it is named to people.
    pub(super) place: String,
    /// Keys joined by dots; those of an app begin with its number.
    pub(super) path: String,
    pub(super) value: serde_json::Value,
    /// From the environment, not from a file.
    pub(super) variable: bool,
}

/// A value in our words.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) place: String,
    /// The setting; of an app the name alone.
    pub(super) key: &'static str,
    /// The value as the environment would give it.
    pub(super) text: String,
    /// Only if the setting is smaller than that.
    pub(super) at_least: bool,
    /// Nobody said it: it is how that server behaves.
    pub(super) default: bool,
}

/// An app that a foreign configuration describes.
#[derive(Clone, Debug)]
pub(super) struct ForeignApp {
    /// Where its key is.
    pub(super) place: String,
    /// Where its key and its secret are.
    pub(super) keys_place: String,
    /// Where its id is.
    pub(super) id_place: String,
    pub(super) id: String,
    pub(super) key: String,
    pub(super) secret: String,
    /// Its settings.
    pub(super) said: Vec<Said>,
    /// Settings of the server that it needs.
    pub(super) needs: Vec<Said>,
    /// Its receivers of webhooks, if it says something of them.
    pub(super) webhooks: Option<(String, Vec<Webhook>)>,
    /// From the environment, not from a file.
    pub(super) variable: bool,
}

/// A foreign configuration in our words.
#[derive(Debug, Default)]
pub(super) struct Translation {
    pub(super) settings: Vec<Said>,
    pub(super) addresses: Vec<Address>,
    pub(super) apps: Vec<ForeignApp>,
    pub(super) notes: Vec<Note>,
    pub(super) problems: Vec<Problem>,
    /// A server whose configuration this is listens on every address unless told otherwise.
    pub(super) listens_everywhere: Option<&'static str>,
}

impl Translation {
    fn problem(&mut self, place: &str, message: impl Into<String>) {
        self.problems.push(Problem { place: place.to_owned(), message: message.into() });
    }

    /// Says something about a name, once.
    fn note(&mut self, name: &str, message: impl Into<String>, warn: bool) {
        let note = Note { name: name.to_owned(), message: message.into(), warn };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn append(&mut self, mut other: Self) {
        self.settings.append(&mut other.settings);
        self.addresses.append(&mut other.addresses);
        self.apps.append(&mut other.apps);
        self.notes.append(&mut other.notes);
        self.problems.append(&mut other.problems);
        self.listens_everywhere = self.listens_everywhere.or(other.listens_everywhere);
    }
}

/// The nearest of some names, to be proposed.
pub(super) fn nearest<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> String {
    let near = |known: &str| strsim::jaro_winkler(known, name);
    let nearest = all.max_by(|a, b| near(a).total_cmp(&near(b)));
    nearest.map(|nearest| format!(": did you mean {nearest}?")).unwrap_or_default()
}
