//! What stands in files: the configuration, and more apps beside it.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::{Loading, SECTIONS, variable_of};
use crate::app::{App, Webhook};
use crate::config::field::{Input, is_webhook_url};
use crate::config::foreign::{self, Kind};
use crate::config::settings::{APP_SETTINGS, SETTINGS, WEBHOOK_SETTINGS};

/// The setting that names the file of [`Loading::apps_file`].
const APPS_FILE: &str = "store.apps_file";

/// Says in which line of a file something stands.
struct Lines {
    name: String,
    /// Where lines end. Looked up, not counted each time: a file may describe thousands of apps.
    ends: Vec<usize>,
}

impl Lines {
    fn of(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), ends: text.match_indices('\n').map(|(at, _)| at).collect() }
    }

    fn place(&self, at: usize) -> String {
        format!("{}:{}", self.name, 1 + self.ends.partition_point(|end| *end < at))
    }
}

impl Loading {
    /// Takes the configuration file.
    pub(super) fn file(&mut self, path: &Path) {
        let name = path.display().to_string();
        let Some(text) = self.text_of(path, "") else { return };
        let kind = foreign::kind_of(path, &text);
        if matches!(kind, Kind::Soketi | Kind::Sockudo) {
            return self.foreign_file(kind, &name, &text);
        }
        let lines = Lines::of(&name, &text);
        let Some(root) = self.table_of(&lines, &text) else { return };
        for (section, value) in &root {
            let place = lines.place(section.span().start);
            let section = section.get_ref();
            match value.get_ref() {
                value if section == "apps" => self.apps(&place, value, &lines),
                DeValue::Table(table) if SECTIONS.contains(&&**section) => {
                    for (key, value) in table {
                        let place = lines.place(key.span().start);
                        self.set(
                            &place,
                            &format!("{section}.{}", key.get_ref()),
                            Input::Toml(value.get_ref()),
                        );
                    }
                }
                DeValue::Table(_) => self.unknown(&place, section, SECTIONS.iter().copied()),
                _ => self.unknown(&place, section, SETTINGS.iter().map(|setting| setting.key)),
            }
        }
    }

    /// The file of apps that all layers together name.
    ///
    /// It is read before the environment is, since an app there takes the place of one in a file.
    pub(super) fn apps_file_named(&self) -> Option<PathBuf> {
        let variable = variable_of(APPS_FILE);
        let flag = self.layers.flags.iter().rev().find(|flag| flag.1 == APPS_FILE).map(|flag| &flag.2);
        let of_environment =
            || self.layers.environment.iter().find(|pair| pair.0 == variable).map(|pair| &pair.1);
        let name = flag.or_else(of_environment).unwrap_or(&self.config.store.apps_file);
        (!name.is_empty()).then(|| PathBuf::from(name))
    }

    /// Takes the apps of a file that has nothing else.
    pub(super) fn apps_file(&mut self, path: &Path) {
        let Some(text) = self.text_of(path, " (it is named by store.apps_file)") else { return };
        let lines = Lines::of(&path.display().to_string(), &text);
        let Some(root) = self.table_of(&lines, &text) else { return };
        for (section, value) in &root {
            let place = lines.place(section.span().start);
            if section.get_ref() == "apps" {
                self.apps(&place, value.get_ref(), &lines);
            } else {
                let message = format!(
                    "{} does not belong here: this file has apps alone ([[apps]]), settings are for the configuration file",
                    section.get_ref()
                );
                self.problem(&place, message);
            }
        }
    }

    fn text_of(&mut self, path: &Path, why: &str) -> Option<String> {
        let text = std::fs::read_to_string(path);
        text.map_err(|error| {
            self.problem(&path.display().to_string(), format!("the file cannot be read: {error}{why}"));
        })
        .ok()
    }

    fn table_of<'a>(&mut self, lines: &Lines, text: &'a str) -> Option<DeTable<'a>> {
        let root = DeTable::parse(text).map_err(|error| {
            let place = error.span().map_or(lines.name.clone(), |span| lines.place(span.start));
            self.problem(&place, format!("not TOML: {}", error.message()));
        });
        root.map(|root| root.into_inner()).ok()
    }

    /// Takes the blocks `[[apps]]` of a file.
    fn apps(&mut self, place: &str, value: &DeValue<'_>, lines: &Lines) {
        let DeValue::Array(apps) = value else {
            return self.problem(place, "each app needs a block of its own: [[apps]]");
        };
        for app in apps {
            let place = lines.place(app.span().start);
            match app.get_ref() {
                DeValue::Table(table) => self.app(&place, table, |at| lines.place(at)),
                _ => self.problem(&place, "an app is a block of settings: [[apps]]"),
            }
        }
    }

    fn app(&mut self, place: &str, table: &DeTable<'_>, place_at: impl Fn(usize) -> String) {
        let mut app = App::default();
        self.app_settings(&mut app, table, place_at);
        if app.id.is_empty() && !table.contains_key("id") {
            self.problem(place, "the app has no id: give it one, as in id = \"1\"");
        }
        if app.keys.is_empty() && !table.contains_key("keys") {
            self.problem(
                place,
                "the app has no keys: give it one, as in keys = [{ key = \"…\", secret = \"…\" }]",
            );
        }
        self.config.apps.push(app);
    }

    /// Takes the settings of a block into the app that comes next.
    pub(in crate::config) fn app_settings(
        &mut self,
        app: &mut App,
        table: &DeTable<'_>,
        place_at: impl Fn(usize) -> String,
    ) {
        let number = self.config.apps.len();
        for (key, value) in table {
            let place = place_at(key.span().start);
            if key.get_ref() == "webhooks"
                && let DeValue::Array(blocks) = value.get_ref()
            {
                for (at, block) in blocks.iter().enumerate() {
                    let DeValue::Table(table) = block.get_ref() else {
                        self.problem(
                            &place,
                            "a receiver of webhooks is a block of settings: [[apps.webhooks]]",
                        );
                        continue;
                    };
                    let prefix = format!("apps[{number}].webhooks[{at}].");
                    let webhook = self.webhook(&place_at(block.span().start), &prefix, table, &place_at);
                    app.webhooks.push(webhook);
                }
                continue;
            }
            self.set_in(
                APP_SETTINGS,
                app,
                &place,
                &format!("apps[{number}]."),
                key.get_ref(),
                Input::Toml(value.get_ref()),
            );
        }
    }

    fn webhook(
        &mut self,
        place: &str,
        prefix: &str,
        table: &DeTable<'_>,
        place_at: &impl Fn(usize) -> String,
    ) -> Webhook {
        let mut webhook = Webhook::default();
        for (key, value) in table {
            let place = place_at(key.span().start);
            let value = Input::Toml(value.get_ref());
            self.set_in(WEBHOOK_SETTINGS, &mut webhook, &place, prefix, key.get_ref(), value);
        }
        if !is_webhook_url(&webhook.url) {
            self.problem(
                place,
                "the webhook has no usable url: give it one, as in url = \"https://app.example/hook\"",
            );
        }
        webhook
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use crate::config::{Layers, Loaded};

    const APP: &str = "[[apps]]\nid = \"1\"\nkeys = [{ key = \"a\", secret = \"of-main\" }]\n";
    const OTHER: &str = "[[apps]]\nid = \"2\"\nkeys = [{ key = \"b\", secret = \"of-other\" }]\n";

    /// A configuration file and a file of apps, side by side.
    struct Files {
        folder: TempDir,
    }

    impl Files {
        fn new(main: &str, apps: &str) -> Self {
            let files = Self { folder: tempfile::tempdir().expect("a folder") };
            let name = files.path("apps.toml").display().to_string();
            fs::write(files.path("main.toml"), format!("store.apps_file = \"{name}\"\n{main}"))
                .expect("written");
            fs::write(files.path("apps.toml"), apps).expect("written");
            files
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn load(&self, environment: &[(&str, &str)]) -> Result<Loaded, String> {
            let environment =
                environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let layers = Layers { file: Some(self.path("main.toml")), environment, flags: Vec::new() };
            let folder = format!("{}/", self.folder.path().display());
            layers.load().map_err(|error| error.to_string().replace(&folder, ""))
        }
    }

    #[track_caller]
    fn check_problem(main: &str, apps: &str, problem: &str) {
        assert_eq!(Files::new(main, apps).load(&[]).expect_err(problem), problem);
    }

    #[test]
    fn apps_of_both_files_are_served_and_their_places_told() {
        let mut loaded = Files::new(APP, OTHER).load(&[]).expect("valid");
        let ids: Vec<&str> = loaded.config.apps.iter().map(|app| &*app.id).collect();
        assert_eq!(ids, ["1", "2"]);
        let shown = loaded.show(true);
        assert!(
            shown.lines().any(|line| line.starts_with("apps[0].id") && line.ends_with("main.toml:3")),
            "{shown}"
        );
        assert!(
            shown.lines().any(|line| line.starts_with("apps[1].id") && line.ends_with("apps.toml:2")),
            "{shown}"
        );
        assert!(!shown.contains("of-other"), "{shown}");
    }

    #[test]
    fn a_flag_is_stronger_than_the_environment_and_that_than_the_file() {
        let files = Files::new("", OTHER);
        let path = |name: &str| files.path(name).display().to_string();
        let variable = ("FANFARE_STORE_APPS_FILE".to_owned(), path("of-environment.toml"));
        let flag = |value: String| ("--set".to_owned(), "store.apps_file".to_owned(), value);
        let mut layers = Layers { file: Some(files.path("main.toml")), ..Layers::default() };
        assert_eq!(layers.apps_file(), Some(files.path("apps.toml")));
        layers.environment.push(variable);
        assert_eq!(layers.apps_file(), Some(files.path("of-environment.toml")));
        layers.flags.extend([flag(path("first.toml")), flag(path("apps.toml"))]);
        assert_eq!(layers.apps_file(), Some(files.path("apps.toml")));
        assert_eq!(layers.load().expect("valid").config.apps.len(), 1);
        layers.flags.push(flag(String::new()));
        assert_eq!(layers.apps_file(), None);
        assert!(layers.load().expect("valid").config.is_demo());
    }

    #[test]
    fn mistakes_name_the_file_of_apps_and_the_line() {
        check_problem(
            APP,
            &format!("\n{OTHER}client_event = true"),
            "apps.toml:5: unknown key client_event: did you mean client_events?",
        );
        check_problem(APP, "[[apps]\n", "apps.toml:1: not TOML: unclosed array table, expected `]`");
        check_problem(
            APP,
            "\n[[apps]]\nid = \"2\"\n",
            "apps.toml:2: the app has no keys: give it one, as in keys = [{ key = \"…\", secret = \"…\" }]",
        );
        check_problem(
            APP,
            &format!("{OTHER}\n[server]\nworkers = 1"),
            "apps.toml:5: server does not belong here: this file has apps alone ([[apps]]), settings are for the configuration file",
        );
    }

    #[test]
    fn an_app_in_both_files_is_a_mistake() {
        check_problem(
            APP,
            &format!("{OTHER}{APP}"),
            "apps.toml:5: two apps have the id 1: ids must differ (the other is in main.toml:3)",
        );
        check_problem(
            APP,
            &OTHER.replace("\"b\"", "\"a\""),
            "apps.toml:3: the key a is used twice: every key belongs to one app (the other is in main.toml:4)",
        );
    }

    #[test]
    fn a_file_of_apps_that_is_not_there_stops_the_start() {
        let files = Files::new(APP, "");
        fs::remove_file(files.path("apps.toml")).expect("removed");
        let problem = files.load(&[]).expect_err("no file");
        assert!(problem.starts_with("apps.toml: the file cannot be read: "), "{problem}");
        assert!(problem.ends_with("(it is named by store.apps_file)"), "{problem}");
    }

    #[test]
    fn with_an_empty_file_of_apps_the_demo_app_does_not_stand_in() {
        let loaded = Files::new("server.bind = \"0.0.0.0:6001\"\n", "# none yet\n").load(&[]).expect("valid");
        assert!(loaded.config.apps.is_empty());
        assert!(loaded.warnings[0].contains("there is no app"), "{:?}", loaded.warnings);
    }

    #[test]
    fn an_app_of_the_environment_takes_the_place_of_one_in_the_file_of_apps() {
        let variables = [("FANFARE_APP_ID", "2"), ("FANFARE_APP_KEY", "k"), ("FANFARE_APP_SECRET", "s")];
        let loaded = Files::new(APP, OTHER).load(&variables).expect("valid");
        let keys: Vec<&str> = loaded.config.apps.iter().map(|app| &*app.keys[0].key).collect();
        assert_eq!(keys, ["a", "k"]);
        let foreign = [("PUSHER_APP_ID", "2"), ("PUSHER_APP_KEY", "k"), ("PUSHER_APP_SECRET", "s")];
        assert_eq!(Files::new(APP, OTHER).load(&foreign).expect("valid").config.apps.len(), 2);
    }
}
