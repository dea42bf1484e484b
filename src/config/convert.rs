//! A foreign configuration written as ours: `config convert`.
//!
//! It is put together by the loader, so the text says what the foreign configuration would have said itself.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use crate::app::{App, Webhook};
use crate::config::field::{Field, quoted};
use crate::config::foreign::{self, Kind, Note, Translation};
use crate::config::load::{Adopted, adopt};
use crate::config::settings::{APP_SETTINGS, SETTINGS};
use crate::config::{Config, ConfigError, Problem};

/// A configuration in TOML, and what could not be said in it.
#[derive(Debug)]
pub struct Converted {
    /// The file, with secrets.
    pub toml: String,
    /// What has no counterpart or needs a look; it stands in the file too.
    pub notes: Vec<Note>,
}

/// Writes another server's configuration as ours.
///
/// # Errors
/// When the file is none that is understood, or says what cannot be.
pub fn convert(path: &Path, text: &str) -> Result<Converted, ConfigError> {
    let name = path.display().to_string();
    let problem = |message: &str| ConfigError {
        problems: vec![Problem { place: name.clone(), message: message.to_owned() }],
    };
    let kind = foreign::kind_of(path, text);
    let whose = match kind {
        Kind::Soketi => "soketi's configuration",
        Kind::Sockudo => "sockudo's configuration",
        Kind::Dotenv => "environment variables",
        Kind::Php => {
            return Err(problem(
                "PHP is not read: config/reverb.php takes its values from .env, so convert that",
            ));
        }
        Kind::Toml => {
            return Err(problem(
                "neither soketi's JSON, sockudo's JSON or TOML, nor an .env file: if it is Fanfare's, it needs no change",
            ));
        }
    };
    let translation = foreign::translate_file(kind, &name, text)
        .map_err(|problem| ConfigError { problems: vec![problem] })?;
    if translation.is_empty() {
        return Err(problem(
            "nothing in it is understood: expected names of soketi, Reverb, Pusher or sockudo",
        ));
    }
    let secrets = translation.apps.iter();
    let secrets = secrets.map(|app| (app.id.clone(), (app.key.clone(), app.secret.clone()))).collect();
    let Adopted { config, origins, mut notes } = adopt(translation)?;
    notes.sort_by_key(|note| !note.warn);
    let file = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let mut writer = Writer { toml: String::new(), origins, secrets };
    writer.comment(&format!("Made from {file} ({whose}) by fanfare config convert."));
    writer.comment("Only what differs from the defaults; all settings: fanfare config default.");
    writer.settings(config);
    writer.notes(&notes);
    Ok(Converted { toml: writer.toml, notes })
}

impl Translation {
    fn is_empty(&self) -> bool {
        self.settings.is_empty()
            && self.addresses.is_empty()
            && self.apps.is_empty()
            && self.notes.is_empty()
            && self.problems.is_empty()
    }
}

struct Writer {
    toml: String,
    origins: HashMap<String, String>,
    /// Key and secret by id.
    secrets: HashMap<String, (String, String)>,
}

impl Writer {
    fn comment(&mut self, text: &str) {
        let _ = writeln!(self.toml, "# {}", one_line(text));
    }

    /// A setting with its meaning and where it is from.
    fn line(&mut self, doc: &str, name: &str, value: &str, key: &str) {
        for line in doc.lines() {
            self.comment(line);
        }
        let origin =
            self.origins.get(key).map(|origin| format!("  # {}", one_line(origin))).unwrap_or_default();
        let _ = writeln!(self.toml, "{name} = {value}{origin}");
    }

    fn settings(&mut self, mut config: Config) {
        let mut default = Config::default();
        let mut section = "";
        for setting in SETTINGS {
            let field = (setting.field)(&mut config);
            let value = field.hidden().map_or_else(|| field.show(), literal);
            if value == (setting.field)(&mut default).show() {
                continue;
            }
            let (of, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
            if of != section {
                section = of;
                let _ = write!(self.toml, "\n[{section}]\n");
            }
            self.line(setting.doc, name, &value, setting.key);
        }
        for (number, app) in config.apps.iter_mut().enumerate() {
            self.app(number, app);
        }
    }

    fn app(&mut self, number: usize, app: &mut App) {
        // The demo app is no part of anybody's configuration.
        let Some((key, secret)) = self.secrets.get(&*app.id).cloned() else { return };
        self.toml.push_str("\n[[apps]]\n");
        let mut default = App::default();
        for setting in APP_SETTINGS.iter().filter(|setting| setting.key != "webhooks") {
            let value = match setting.key {
                "keys" => format!("[{{ key = {}, secret = {} }}]", literal(&key), literal(&secret)),
                _ => (setting.field)(app).show(),
            };
            if value != (setting.field)(&mut default).show() {
                self.line(setting.doc, setting.key, &value, &format!("apps[{number}].{}", setting.key));
            }
        }
        for webhook in &mut app.webhooks {
            self.webhook(webhook);
        }
    }

    fn webhook(&mut self, webhook: &mut Webhook) {
        let _ = writeln!(self.toml, "\n[[apps.webhooks]]\nurl = {}", literal(&webhook.url));
        if !webhook.events.is_empty() {
            let _ = writeln!(self.toml, "events = {}", webhook.events.show());
        }
        if !webhook.channel_prefixes.is_empty() {
            let _ = writeln!(self.toml, "channel_prefixes = {}", webhook.channel_prefixes.show());
        }
        if !webhook.headers.is_empty() {
            let header = |(name, value): &(String, String)| format!("{} = {}", literal(name), literal(value));
            let headers: Vec<String> = webhook.headers.iter().map(header).collect();
            let _ = writeln!(self.toml, "headers = {{ {} }}", headers.join(", "));
        }
    }

    fn notes(&mut self, notes: &[Note]) {
        for (warn, title) in [(true, "To look at:"), (false, "Without a counterpart:")] {
            let mut of_kind = notes.iter().filter(|note| note.warn == warn).peekable();
            if of_kind.peek().is_some() {
                self.toml.push('\n');
                self.comment(title);
            }
            for note in of_kind {
                self.comment(&format!("  {}: {}", note.name, note.message));
            }
        }
    }
}

/// A text as TOML writes it: as JSON does, but for the one control character that JSON leaves as it is.
fn literal(text: &str) -> String {
    quoted(text).replace('\u{7f}', "\\u007f")
}

/// Names in a file can hold anything, but must not end a comment.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
