//! Files: which server's they are, and what stands in them where.

use std::path::Path;

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use crate::config::Problem;
use crate::config::foreign::environment::from_environment;
use crate::config::foreign::sockudo::SOCKUDO;
use crate::config::foreign::soketi::SOKETI;
use crate::config::foreign::table::Dialect;
use crate::config::foreign::translate::translate as translate_leaves;
use crate::config::foreign::{Leaf, Translation, dotenv};

/// Whose configuration a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) enum Kind {
    /// Ours.
    Toml,
    /// soketi's, or what claims to be JSON.
    Soketi,
    /// sockudo's, JSON or TOML.
    Sockudo,
    /// A list of environment variables.
    Dotenv,
    /// A program.
    Php,
}

/// Tells by its name and content what a file is.
pub(in crate::config) fn kind_of(path: &Path, text: &str) -> Kind {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let extension = extension.as_deref().unwrap_or_default();
    if extension == "json" || text.trim_start().starts_with('{') {
        return if serde_json::from_str(text).is_ok_and(|root| is_sockudo(&root)) {
            Kind::Sockudo
        } else {
            Kind::Soketi
        };
    }
    if extension == "php" || text.trim_start().starts_with("<?php") {
        return Kind::Php;
    }
    if extension == "env" || name.starts_with(".env") {
        return Kind::Dotenv;
    }
    match DeTable::parse(text) {
        Ok(root) if is_sockudo(&json_of_table(root.get_ref())) => Kind::Sockudo,
        Err(_) if extension != "toml" => Kind::Dotenv,
        _ => Kind::Toml,
    }
}

/// sockudo writes its keys with underscores, and has blocks that nobody else has.
fn is_sockudo(root: &Value) -> bool {
    let own =
        ["app_manager", "channel_limits", "event_limits", "http_api", "path_prefix", "delta_compression"];
    root.as_object().is_some_and(|root| own.iter().any(|key| root.contains_key(*key)))
}

/// What stands in soketi's file.
pub(in crate::config) fn leaves_of_soketi(name: &str, text: &str) -> Result<Vec<Leaf>, Problem> {
    let root: Value = serde_json::from_str(text).map_err(|error| Problem {
        place: format!("{name}:{}", error.line()),
        // The message of a JSON error quotes no values.
        message: format!("not JSON: {error}"),
    })?;
    if is_sockudo(&root) {
        let message = format!(
            "this is sockudo's configuration, not soketi's: fanfare config convert {name} --out fanfare.toml"
        );
        return Err(Problem { place: name.to_owned(), message });
    }
    let Value::Object(root) = root else {
        let message = "expected the keys of soketi's configuration in braces".to_owned();
        return Err(Problem { place: name.to_owned(), message });
    };
    Ok(leaves(&SOKETI, name, &nested(root)))
}

/// What a foreign file says in our words.
pub(in crate::config) fn translate(kind: Kind, name: &str, text: &str) -> Result<Translation, Problem> {
    match kind {
        Kind::Dotenv => {
            let variables = dotenv::parse(text)
                .map_err(|(line, message)| Problem { place: format!("{name}:{line}"), message })?;
            Ok(from_environment(&variables, Vec::new()))
        }
        Kind::Sockudo => {
            let json = serde_json::from_str(text).ok();
            let root = json.or_else(|| DeTable::parse(text).ok().map(|root| json_of_table(root.get_ref())));
            let root = without_unused_tls(root.unwrap_or_default());
            Ok(translate_leaves(&SOCKUDO, &leaves(&SOCKUDO, "", &root)))
        }
        _ => Ok(translate_leaves(&SOKETI, &unnamed(leaves_of_soketi(name, text)?, name))),
    }
}

/// Places without the name of the file: there is only one.
fn unnamed(mut leaves: Vec<Leaf>, name: &str) -> Vec<Leaf> {
    let prefix = format!("{name}: ");
    for leaf in &mut leaves {
        if let Some(place) = leaf.place.strip_prefix(&prefix) {
            leaf.place = place.to_owned();
        }
    }
    leaves
}

/// sockudo keeps paths of certificates that it does not use.
fn without_unused_tls(mut root: Value) -> Value {
    let tls = root.get("ssl").and_then(|ssl| ssl.get("enabled")).and_then(Value::as_bool);
    if let (Some(false) | None, Some(object)) = (tls, root.as_object_mut()) {
        object.remove("ssl");
    }
    root
}

/// Dotted keys at the top stand for blocks, as in `"appManager.array.apps"`.
fn nested(root: Map<String, Value>) -> Value {
    let mut all = Value::Object(Map::new());
    for (key, value) in root {
        let mut at = &mut all;
        for part in key.splitn(DEPTH_MAX, '.') {
            at = slot(at, part);
        }
        merge(at, value);
    }
    all
}

/// Deeper than any key of soketi's; what is below stays one unknown key, rather than blocks without end.
const DEPTH_MAX: usize = 16;

/// The place of a key in a block or of a number in a list, made if it is not there.
fn slot<'a>(at: &'a mut Value, part: &str) -> &'a mut Value {
    if let Ok(index) = part.parse::<usize>()
        && index < ITEMS_MAX
        && (at.is_array() || at.is_null())
    {
        if at.is_null() {
            *at = Value::Array(Vec::new());
        }
        let items = at.as_array_mut().expect("a list");
        if items.len() <= index {
            items.resize(index + 1, Value::Null);
        }
        return &mut items[index];
    }
    if !at.is_object() {
        *at = Value::Object(Map::new());
    }
    &mut at[part]
}

/// More apps than anybody writes into a file with dotted keys.
const ITEMS_MAX: usize = 10_000;

fn merge(into: &mut Value, value: Value) {
    match (into, value) {
        (Value::Object(into), Value::Object(value)) => {
            for (key, value) in value {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, value) => *into = value,
    }
}

/// Every value that a row may be for, with its place.
fn leaves(dialect: &Dialect, name: &str, root: &Value) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    let place = if name.is_empty() { String::new() } else { format!("{name}: ") };
    walk(dialect, &place, "", root, &mut leaves);
    leaves
}

fn walk(dialect: &Dialect, place: &str, path: &str, value: &Value, leaves: &mut Vec<Leaf>) {
    let block = if path.is_empty() { String::new() } else { format!("{path}.") };
    let apps = || {
        let rest = path.strip_prefix(dialect.apps_path)?.strip_prefix('.')?;
        Some(rest.split_once('.').map_or(String::new(), |(_, inside)| format!("{inside}.")))
    };
    let divided = match apps() {
        Some(inside) => {
            dialect.app_rows.iter().any(|row| row.path.split('|').any(|row| row.starts_with(&inside)))
        }
        None => {
            dialect.apps_path.starts_with(&block)
                || dialect.rows.iter().any(|row| row.path.starts_with(&block))
        }
    };
    match value {
        Value::Object(object) if divided => {
            for (key, value) in object {
                let dot = if block.is_empty() { "" } else { "." };
                walk(dialect, &format!("{place}{dot}{key}"), &format!("{block}{key}"), value, leaves);
            }
        }
        Value::Array(items) if path == dialect.apps_path => {
            for (at, item) in items.iter().enumerate() {
                walk(dialect, &format!("{place}[{at}]"), &format!("{path}.{at}"), item, leaves);
            }
        }
        _ => {
            let (place, path) = (place.to_owned(), path.to_owned());
            leaves.push(Leaf { place, path, value: value.clone(), variable: false });
        }
    }
}

fn json_of_table(table: &DeTable<'_>) -> Value {
    let pair = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let key: &std::borrow::Cow<'_, str> = key.get_ref();
        (key.to_string(), json_of(value.get_ref()))
    };
    Value::Object(table.iter().map(pair).collect())
}

fn json_of(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            let whole = i64::from_str_radix(number.as_str(), number.radix());
            whole.map_or_else(|_| Value::String(number.as_str().to_owned()), Value::from)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Boolean(yes) => Value::Bool(*yes),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| json_of(item.get_ref())).collect()),
        DeValue::Table(table) => json_of_table(table),
        DeValue::Datetime(time) => Value::String(time.to_string()),
    }
}
