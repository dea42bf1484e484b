//! soketi's database of apps, which becomes `[store]`.

use std::collections::BTreeMap;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::foreign::table::Part;
use crate::config::foreign::{Said, Translation};

/// What is known of it.
#[derive(Default)]
pub(super) struct Store {
    driver: Option<(String, String)>,
    /// By `driver.field`.
    fields: BTreeMap<&'static str, (String, String)>,
}

impl Store {
    pub(super) fn take(&mut self, part: Part, place: &str, text: &str) {
        let value = (place.to_owned(), text.to_owned());
        match part {
            Part::Store(field) => {
                self.fields.insert(field, value);
            }
            _ => self.driver = Some(value),
        }
    }

    /// The settings of `[store]`, if apps are in a database that we read.
    pub(super) fn finish(self, out: &mut Translation) {
        let driver = self.driver.as_ref().map_or("array", |(_, driver)| driver);
        match (&self.driver, driver) {
            (_, "array") => {}
            (Some((place, _)), "mysql" | "postgres") => self.settings(place, driver, out),
            (Some((place, _)), "dynamodb") => out.problem(
                place,
                "apps in DynamoDB are not read: list them as [[apps]], or move them to MySQL or PostgreSQL",
            ),
            (Some((place, _)), _) => {
                out.problem(place, "bad value: expected array, mysql, postgres or dynamodb");
            }
            (None, _) => {}
        }
        for (field, (place, _)) in &self.fields {
            if !field.starts_with(driver) {
                let message = format!("no effect here: apps come from the driver {driver}");
                out.note(place, message, false);
            }
        }
    }

    fn settings(&self, place: &str, driver: &str, out: &mut Translation) {
        let field = |name: &str, default: &str| {
            let found = self.fields.iter().find(|(field, _)| **field == format!("{driver}.{name}"));
            found.map_or_else(|| default.to_owned(), |(_, (_, text))| text.clone())
        };
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        // soketi's defaults, but not its password.
        let (user, port) = if driver == "mysql" { ("root", "3306") } else { ("postgres", "5432") };
        let (host, port, user) = (field("host", "127.0.0.1"), field("port", port), field("user", user));
        let (password, database) = (field("password", ""), field("database", "main"));
        let password = if password.is_empty() { String::new() } else { format!(":{}", encoded(&password)) };
        let url = format!("{driver}://{}{password}@{host}:{port}/{}", encoded(&user), encoded(&database));
        let used = |of_table: bool| {
            let ours = |field: &str| field.starts_with(driver) && field.ends_with(".table") == of_table;
            let fields = self.fields.iter().filter(move |(field, _)| ours(field));
            fields.map(|(_, (place, _))| place.clone()).collect::<Vec<_>>()
        };
        let mut say = |place: String, key: &'static str, text: String| {
            out.settings.push(Said { place, key, text, at_least: false, default: false });
        };
        let mut places = vec![place.to_owned()];
        places.extend(used(false));
        say(places.join(", "), "store.url", url);
        say(place.to_owned(), "store.schema", "soketi".to_owned());
        if let Some(place) = used(true).pop() {
            say(place, "store.table", field("table", "apps"));
        }
    }
}
