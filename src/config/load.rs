//! File, environment and flags become one [`Config`], and every problem on the way becomes a sentence.

mod adopt;
mod check;
mod file;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use crate::app::{App, Apps, AppsError};
use crate::config::Config;
use crate::config::field::{Input, pair_from};
use crate::config::foreign::{self, Leaf, Note};
use crate::config::settings::{APP_SETTINGS, SETTINGS, Setting};

pub(super) use adopt::{Adopted, adopt};

/// Where values come from, weakest first.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// The environment: names that begin with `FANFARE_`, and those of other servers, which are weaker.
    pub environment: Vec<(String, String)>,
    /// Flags: the flag as it was written, the key it sets, and the value.
    pub flags: Vec<(String, String, String)>,
}

/// A configuration that may be used, and where each value is from.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Things that are odd but harmless, to be told once.
    pub warnings: Vec<String>,
    /// What it was put together from, to do it again later.
    pub layers: Layers,
    /// What became of the names of other servers.
    pub notes: Vec<Note>,
    origins: HashMap<String, String>,
}

/// Why the server cannot start with this configuration: everything that is wrong with it.
#[derive(Debug, Error)]
pub struct ConfigError {
    /// One for each thing to mend.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong, where it stands, and what would be right.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// File and line, variable or flag.
    pub place: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// The blocks of the file.
const SECTIONS: &[&str] = &[
    "server",
    "connection",
    "api",
    "tls",
    "drain",
    "webhooks",
    "store",
    "redis",
    "metrics",
    "health",
    "admin",
    "log",
    "apps",
];

/// More than 30 years: a time is always later than now, never beyond the clock.
const SECONDS_MAX: u64 = 1_000_000_000;

const PREFIX: &str = "FANFARE_";
const APP_PREFIX: &str = "FANFARE_APP_";

impl Layers {
    /// Puts the layers together.
    ///
    /// # Errors
    /// All unknown keys, bad values, and apps that cannot be told apart or used.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut loading = self.begin();
        if let Some(path) = loading.apps_file_named() {
            loading.apps_file(&path);
        }
        loading.foreign(&self.environment);
        loading.environment(&self.environment);
        for (flag, key, value) in &self.flags {
            loading.set(flag, key, Input::Text(value));
        }
        loading.finish()
    }

    /// The file that `store.apps_file` names, whether or not it is there.
    pub fn apps_file(&self) -> Option<PathBuf> {
        self.begin().apps_file_named()
    }

    fn begin(&self) -> Loading {
        let mut loading =
            Loading { apps_place: "apps".to_owned(), layers: self.clone(), ..Loading::default() };
        if let Some(path) = &self.file {
            loading.file(path);
            loading.apps_place = format!("{}: apps", path.display());
        }
        loading
    }
}

#[derive(Default)]
pub(super) struct Loading {
    layers: Layers,
    config: Config,
    origins: HashMap<String, String>,
    pub(super) problems: Vec<Problem>,
    warnings: Vec<String>,
    apps_place: String,
    /// What stands in a file of soketi's.
    leaves: Vec<Leaf>,
    /// What foreign names became.
    taken: Vec<adopt::Taken>,
    notes: Vec<Note>,
    listens_everywhere: Option<&'static str>,
}

impl Loading {
    fn problem(&mut self, place: &str, message: impl Into<String>) {
        self.problems.push(Problem { place: place.to_owned(), message: message.into() });
    }

    fn environment(&mut self, variables: &[(String, String)]) {
        let mut app = Vec::new();
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            if let Some(name) = variable.strip_prefix(APP_PREFIX) {
                app.push((variable, name.to_lowercase(), value));
                continue;
            }
            let known = SETTINGS.iter().find(|setting| variable_of(setting.key) == *variable);
            let in_section = || SETTINGS.iter().any(|setting| name.starts_with(&section_of(setting.key)));
            match known {
                Some(setting) => self.set(variable, setting.key, Input::Text(value)),
                None if name == "CONFIG" => {}
                None if in_section() => {
                    let variables: Vec<String> =
                        SETTINGS.iter().map(|setting| variable_of(setting.key)).collect();
                    self.unknown(variable, variable, variables.iter().map(|variable| &**variable));
                }
                // Kubernetes sets FANFARE_PORT and the like for a service of this name: no reason to stop.
                None => {
                    self.warnings.push(format!("{variable} in the environment is no setting and is ignored"))
                }
            }
        }
        self.environment_app(&app);
    }

    /// `FANFARE_APP_…` describes one app, which takes the place of the file's app with the same id.
    fn environment_app(&mut self, variables: &[(&String, String, &String)]) {
        if variables.is_empty() {
            return;
        }
        let value =
            |name: &str| variables.iter().find(|variable| variable.1 == name).map(|variable| &**variable.2);
        let id = value("id").unwrap_or("1");
        let before = self.config.apps.iter().position(|app| &*app.id == id);
        let number = before.unwrap_or(self.config.apps.len());
        let mut app = App { id: id.into(), ..App::default() };
        let prefix = format!("apps[{number}].");
        for (variable, name, value) in variables {
            if !matches!(&**name, "key" | "secret") {
                self.set_in(APP_SETTINGS, &mut app, variable, &prefix, name, Input::Text(value));
            }
        }
        match (value("key"), value("secret")) {
            (Some(key), Some(secret)) => match pair_from((key, secret)) {
                Some(pair) => {
                    app.keys = vec![pair];
                    self.origins.insert(format!("{prefix}keys"), "FANFARE_APP_KEY".to_owned());
                }
                None => {
                    self.problem("FANFARE_APP_KEY", "a key has no colon and no slash, and neither is empty")
                }
            },
            (None, None) if !app.keys.is_empty() => {}
            _ => {
                self.problem("FANFARE_APP_KEY, FANFARE_APP_SECRET", "an app needs both, or FANFARE_APP_KEYS")
            }
        }
        match before {
            Some(at) => self.config.apps[at] = app,
            None => self.config.apps.push(app),
        }
    }

    fn set(&mut self, place: &str, key: &str, input: Input<'_>) {
        let mut config = std::mem::take(&mut self.config);
        self.set_in(SETTINGS, &mut config, place, "", key, input);
        self.config = config;
    }

    pub(super) fn set_in<T>(
        &mut self,
        all: &[Setting<T>],
        of: &mut T,
        place: &str,
        prefix: &str,
        key: &str,
        input: Input<'_>,
    ) {
        let Some(setting) = all.iter().find(|setting| setting.key == key) else {
            return self.unknown(place, key, all.iter().map(|setting| setting.key));
        };
        let field = (setting.field)(of);
        if let Err(expected) = field.read(input) {
            return self.problem(place, format!("bad value for {key}: expected {expected}"));
        }
        if field.number().is_some_and(|number| number < setting.least) {
            return self.problem(place, format!("bad value for {key}: expected at least {}", setting.least));
        }
        if key.ends_with("_s") && field.number().is_some_and(|number| number > SECONDS_MAX) {
            return self.problem(place, format!("bad value for {key}: expected at most {SECONDS_MAX}"));
        }
        self.origins.insert(format!("{prefix}{key}"), place.to_owned());
    }

    fn unknown<'a>(&mut self, place: &str, key: &str, all: impl Iterator<Item = &'a str>) {
        self.problem(place, format!("unknown key {key}{}", foreign::nearest(key, all)));
    }

    fn finish(mut self) -> Result<Loaded, ConfigError> {
        let store = &self.config.store;
        if self.config.apps.is_empty() && store.url.expose().is_empty() {
            if store.apps_file.is_empty() {
                self.config.apps.push(Config::demo_app());
            } else {
                self.warnings.push(format!(
                    "there is no app, neither in {} nor elsewhere: nobody can connect until there is one",
                    store.apps_file
                ));
            }
        } else if self.problems.is_empty()
            && let Err(error) = Apps::new(self.config.apps.clone())
        {
            let (place, other) = self.places_of(&error);
            self.problem(&place, format!("{error}{other}"));
        }
        let server = &self.config.server;
        let mut binds =
            [("server.bind", Some(server.bind)), ("server.plain_bind", server.plain_bind)].into_iter();
        let public = binds.find_map(|(key, bind)| Some((key, bind.filter(|bind| !bind.ip().is_loopback())?)));
        if let Some((key, bind)) = public.filter(|_| self.config.has_demo_app()) {
            self.problem(
                &self.apps_place.clone(),
                format!(
                    "the demo credentials are public and only for this machine, but {key} is {bind}: configure an app \
                     with credentials of its own ([[apps]], or FANFARE_APP_KEY and FANFARE_APP_SECRET)"
                ),
            );
        }
        self.check_combinations();
        if !self.problems.is_empty() {
            return Err(ConfigError { problems: self.problems });
        }
        let notes = self.foreign_notes();
        let Self { layers, config, warnings, origins, .. } = self;
        Ok(Loaded { config, warnings, layers, notes, origins })
    }

    /// Where the app stands that cannot be told from another, and words that say where that is.
    fn places_of(&self, error: &AppsError) -> (String, String) {
        let (setting, is_meant): (_, &dyn Fn(&App) -> bool) = match error {
            AppsError::SameId(id) => ("id", &|app| app.id == *id),
            AppsError::SameKey(key) => ("keys", &|app| app.secret(key).is_some()),
            _ => return (self.apps_place.clone(), String::new()),
        };
        let meant = self.config.apps.iter().enumerate().filter(|(_, app)| is_meant(app));
        let mut places = meant.filter_map(|(at, _)| self.origins.get(&format!("apps[{at}].{setting}")));
        match (places.next(), places.next()) {
            (Some(first), Some(second)) => (second.clone(), format!(" (the other is in {first})")),
            (Some(place), None) => (place.clone(), String::new()),
            _ => (self.apps_place.clone(), String::new()),
        }
    }
}

/// `FANFARE_SERVER_BIND` for `server.bind`.
fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// `SERVER_` for `server.bind`.
fn section_of(key: &str) -> String {
    let section = key.split_once('.').map_or(key, |(section, _)| section);
    format!("{}_", section.to_uppercase())
}

impl Loaded {
    /// Every setting with its value, secrets masked, and where it is from if `origin` is wanted.
    pub fn show(&mut self, origin: bool) -> String {
        let mut lines = Vec::new();
        let config = &mut self.config;
        for setting in SETTINGS {
            let value = (setting.field)(config).show();
            lines.push((setting.key.to_owned(), value));
        }
        for (number, app) in config.apps.iter_mut().enumerate() {
            for setting in APP_SETTINGS {
                let value = (setting.field)(app).show();
                lines.push((format!("apps[{number}].{}", setting.key), value));
            }
        }
        let line = |(key, value): (String, String)| {
            let from = self.origins.get(&key).map_or("default", |origin| origin);
            if origin { format!("{key} = {value}  # {from}\n") } else { format!("{key} = {value}\n") }
        };
        lines.into_iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
        let mut path = tempfile::NamedTempFile::new().expect("a file");
        path.write_all(file.as_bytes()).expect("written");
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let layers = Layers {
            file: Some(path.path().to_owned()),
            environment: pairs(environment),
            flags: pairs(flags).into_iter().map(|(key, value)| ("--set".to_owned(), key, value)).collect(),
        };
        let name = path.path().display().to_string();
        layers
            .load()
            .map_err(|error| error.to_string().replace(&name, "FILE").lines().map(str::to_owned).collect())
    }

    #[test]
    fn every_block_may_stand_in_a_file() {
        for setting in SETTINGS {
            let (section, _) = setting.key.split_once('.').expect("a section");
            assert!(SECTIONS.contains(&section), "{section}");
        }
    }

    fn check_problem(file: &str, environment: &[(&str, &str)], problem: &str) {
        assert_eq!(load(file, environment, &[]).expect_err(file), [problem], "{file}");
    }

    #[test]
    fn file_gives_way_to_environment_and_environment_to_flags() {
        let file = "[server]\nworkers = 1\nbacklog = 11\n[log]\nlevel = \"warn\"";
        let environment =
            [("FANFARE_SERVER_BACKLOG", "22"), ("FANFARE_LOG_LEVEL", "debug"), ("PATH", "/bin")];
        let mut loaded = load(file, &environment, &[("log.level", "trace")]).expect("valid");
        let server = &loaded.config.server;
        assert_eq!((server.workers, server.backlog, loaded.config.log.level.as_str()), (1, 22, "trace"));
        let shown = loaded.show(true);
        for line in [
            "server.backlog = 22  # FANFARE_SERVER_BACKLOG",
            "log.level = \"trace\"  # --set",
            "log.format = \"text\"  # default",
        ] {
            assert!(shown.contains(line), "{line} in\n{shown}");
        }
    }

    #[test]
    fn unknown_keys_name_the_line_and_the_nearest_key() {
        check_problem(
            "\n[server]\nbnd = 1",
            &[],
            "FILE:3: unknown key server.bnd: did you mean server.bind?",
        );
        check_problem("\n[serve]\nbind = 1", &[], "FILE:2: unknown key serve: did you mean server?");
        check_problem(
            "[[apps]]\nid = \"1\"\nkeys = [{ key = \"a\", secret = \"b\" }]\nclient_event = true",
            &[],
            "FILE:4: unknown key client_event: did you mean client_events?",
        );
        check_problem(
            "",
            &[("FANFARE_SERVER_BIN", "x")],
            "FANFARE_SERVER_BIN: unknown key FANFARE_SERVER_BIN: did you mean FANFARE_SERVER_BIND?",
        );
    }

    #[test]
    fn bad_values_say_what_would_be_right() {
        check_problem(
            "[server]\nbind = \"nowhere\"",
            &[],
            "FILE:2: bad value for server.bind: expected an address and a port, as in \"127.0.0.1:6001\" or \"[::]:6001\"",
        );
        check_problem(
            "[server]\nworkers = -1",
            &[],
            &format!(
                "FILE:2: bad value for server.workers: expected a whole number from 0 to {}",
                usize::MAX
            ),
        );
        check_problem(
            "[connection]\nping_after_s = 0",
            &[],
            "FILE:2: bad value for connection.ping_after_s: expected at least 1",
        );
        check_problem(
            "[connection]\nping_after_s = 1000000001",
            &[],
            "FILE:2: bad value for connection.ping_after_s: expected at most 1000000000",
        );
        check_problem(
            "",
            &[("FANFARE_LOG_FORMAT", "xml")],
            "FANFARE_LOG_FORMAT: bad value for log.format: expected one of \"text\" \"json\"",
        );
        check_problem(
            "[[apps]]\nid = \"1\"",
            &[],
            "FILE:1: the app has no keys: give it one, as in keys = [{ key = \"…\", secret = \"…\" }]",
        );
        check_problem("x", &[], "FILE:1: not TOML: key with no value, expected `=`");
    }

    #[test]
    fn a_node_of_a_cluster_keeps_no_state_file() {
        let file = "[webhooks]\nstate_file = \"state.json\"\n[redis]\nurl = \"redis://127.0.0.1/\"";
        let problems = load(file, &[], &[]).expect_err("they exclude each other");
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert!(problem.starts_with("FILE:2: webhooks.state_file: "), "{problem}");
        assert!(problem.contains("redis.url"), "{problem}");
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let problems = load("[server]\na = 1\nb = 2", &[], &[]).expect_err("two problems");
        assert_eq!(problems.len(), 2);
    }

    #[test]
    fn the_environment_can_describe_an_app() {
        let environment =
            [("FANFARE_APP_KEY", "k"), ("FANFARE_APP_SECRET", "s"), ("FANFARE_APP_CLIENT_EVENTS", "true")];
        let loaded = load("", &environment, &[]).expect("valid");
        let [app] = &loaded.config.apps[..] else { panic!("one app") };
        assert_eq!((&*app.id, &*app.keys[0].key, app.client_events), ("1", "k", true));
        let odd = [("FANFARE_APP_KEY", "k"), ("FANFARE_APP_SECRET", " a,b:c ")];
        let loaded = load("", &odd, &[]).expect("valid");
        assert_eq!(loaded.config.apps[0].keys.len(), 1);
        let sign = |secret: &crate::protocol::Secret| secret.sign(&[b"x"]);
        let secret = loaded.config.apps[0].secret("k").expect("the key");
        assert_eq!(sign(secret), sign(&crate::protocol::Secret::new(" a,b:c ")));
        check_problem(
            "",
            &environment[..1],
            "FANFARE_APP_KEY, FANFARE_APP_SECRET: an app needs both, or FANFARE_APP_KEYS",
        );
    }

    #[test]
    fn demo_credentials_stay_on_this_machine() {
        assert!(load("", &[], &[]).expect("valid").config.has_demo_app());
        let problems = load("", &[], &[("server.bind", "0.0.0.0:6001")]).expect_err("refused");
        assert!(problems[0].contains("demo credentials"), "{problems:?}");
        let beside = [("tls.certificate", "a"), ("tls.key", "b"), ("server.plain_bind", "0.0.0.0:6002")];
        let problems = load("", &[], &beside).expect_err("refused");
        assert!(problems[0].contains("but server.plain_bind is 0.0.0.0:6002"), "{problems:?}");
    }

    #[test]
    fn the_services_of_kubernetes_do_not_stop_the_start() {
        let loaded = load("", &[("FANFARE_PORT_6001_TCP", "tcp://10.0.0.1:6001")], &[]).expect("valid");
        assert_eq!(loaded.warnings.len(), 1);
    }

    #[test]
    fn secrets_are_masked() {
        let file = "[[apps]]\nid = \"1\"\nkeys = [{ key = \"public\", secret = \"hidden\" }]";
        let shown = load(file, &[], &[]).expect("valid").show(true);
        assert!(shown.contains("public") && !shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn every_sample_is_valid() {
        let samples = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config")).expect("a folder");
        for sample in samples {
            let path = sample.expect("an entry").path();
            if path.is_dir() {
                continue;
            }
            let file = Some(path);
            Layers { file: file.clone(), ..Layers::default() }
                .load()
                .unwrap_or_else(|error| panic!("{file:?}: {error}"));
        }
    }

    #[test]
    fn the_default_file_is_valid() {
        let mut loaded = load(&crate::config::default_toml(), &[], &[]).expect("valid");
        let mut default = Layers::default().load().expect("valid");
        assert_eq!(loaded.show(false), default.show(false));
    }
}
