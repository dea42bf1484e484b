//! Apps of a file, of the configuration or of apps alone: edited in place, comments and all.
//!
//! What would be written is read as the server reads it first, and takes the file's place in one step. So a server
//! that watches the file sees either the old one or a good new one.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, TableLike, value};

use crate::cli::app::AppError;
use crate::config::{Layers, toml_of};
use crate::store::{Pair, Record};

/// A file with apps, and all that makes the configuration.
pub(super) struct AppsFile {
    path: PathBuf,
    part: Part,
    layers: Layers,
    document: DocumentMut,
}

/// What a file is to the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// The configuration file.
    Configuration,
    /// The one that `store.apps_file` names.
    Apps,
}

impl Part {
    /// The configuration with another file in this part.
    pub(super) fn replaced(self, layers: &Layers, path: &Path) -> Layers {
        let mut layers = layers.clone();
        match self {
            Self::Configuration => layers.file = Some(path.to_owned()),
            Self::Apps => {
                let (flag, key) = ("--set store.apps_file".to_owned(), "store.apps_file".to_owned());
                layers.flags.push((flag, key, path.display().to_string()));
            }
        }
        layers
    }
}

impl AppsFile {
    /// Reads the file; one that is not there is empty.
    pub(super) fn open(path: PathBuf, part: Part, layers: Layers) -> Result<Self, AppError> {
        let problem = |problem: String| AppError::File { path: path.display().to_string(), problem };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(problem(format!("the file cannot be read: {error}"))),
        };
        let mut document: DocumentMut = text.parse().map_err(|_| problem("not TOML".to_owned()))?;
        // Apps in one line are as good as blocks; new ones are written as blocks.
        if let Some(apps) = document.remove("apps") {
            let apps = apps
                .into_array_of_tables()
                .map_err(|_| problem("apps: expected blocks [[apps]]".to_owned()))?;
            document.insert("apps", Item::ArrayOfTables(apps));
        }
        Ok(Self { path, part, layers, document })
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Every app. The file has been checked, so each is one.
    pub(super) fn records(&self) -> Vec<Result<Record, String>> {
        let apps = self.document.get("apps").and_then(Item::as_array_of_tables);
        apps.into_iter().flatten().map(|table| Ok(record_of(table))).collect()
    }

    /// Whether an app stands in it.
    pub(super) fn has(&self, id: &str) -> bool {
        let apps = self.document.get("apps").and_then(Item::as_array_of_tables);
        apps.into_iter().flatten().any(|table| is_app(table, id))
    }

    pub(super) fn insert(&mut self, record: &Record) -> Result<(), AppError> {
        let mut table = Table::new();
        table.insert("id", value(&record.id));
        table.insert("keys", pairs(record)?);
        if !record.enabled {
            table.insert("enabled", value(false));
        }
        for (name, setting) in &record.settings {
            table.insert(name, Item::Value(parsed(setting)?));
        }
        let is_first = self.document.is_empty();
        let apps = self.document.entry("apps").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        if let Some(apps) = apps.as_array_of_tables_mut() {
            if !is_first {
                table.decor_mut().set_prefix("\n");
            }
            apps.push(table);
        }
        self.save()
    }

    pub(super) fn update(&mut self, record: &Record) -> Result<(), AppError> {
        let keys = pairs(record)?;
        let no_app = AppError::NoApp { id: record.id.clone(), place: self.name() };
        let table = self.table(&record.id).ok_or(no_app)?;
        let before = record_of(table);
        if before.enabled != record.enabled {
            // In its place, so that a comment behind it stays.
            match table.get_mut("enabled").and_then(Item::as_value_mut) {
                Some(enabled) => {
                    let decor = enabled.decor().clone();
                    *enabled = record.enabled.into();
                    *enabled.decor_mut() = decor;
                }
                None => {
                    table.insert("enabled", value(record.enabled));
                }
            }
        }
        if before.keys.iter().map(|pair| &pair.key).ne(record.keys.iter().map(|pair| &pair.key)) {
            replace_keys(table, record, keys)?;
        }
        self.save()
    }

    pub(super) fn delete(&mut self, record: &Record) -> Result<(), AppError> {
        if let Some(apps) = self.document.get_mut("apps").and_then(Item::as_array_of_tables_mut) {
            apps.retain(|table| !is_app(table, &record.id));
            if apps.is_empty() {
                self.document.remove("apps");
            }
        }
        self.save()
    }

    fn table(&mut self, id: &str) -> Option<&mut Table> {
        let apps = self.document.get_mut("apps")?.as_array_of_tables_mut()?;
        apps.iter_mut().find(|table| is_app(table, id))
    }

    /// Checks what would be written, and puts it in the file's place.
    fn save(&self) -> Result<(), AppError> {
        // Behind a link stands the file that is meant.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = folder.join(format!(".{name}.{}.new", std::process::id()));
        let cannot = |error: io::Error| AppError::File {
            path: path.display().to_string(),
            problem: format!("the file cannot be written: {error}"),
        };
        let written = write(&beside, &path, &self.document.to_string()).map_err(cannot).and_then(|()| {
            self.part.replaced(&self.layers, &beside).load().map_err(|error| {
                let text =
                    error.to_string().replace(&*beside.display().to_string(), &path.display().to_string());
                AppError::Setting(text)
            })?;
            fs::rename(&beside, &path).map_err(cannot)?;
            // The change of the folder, too, is to outlive a crash; not all file systems can promise that.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
            Ok(())
        });
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

/// Writes a file that only those may read who may read the one it is to replace.
fn write(beside: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(beside)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    if let Ok(before) = fs::metadata(path) {
        let now = file.metadata()?;
        if (now.uid(), now.gid()) != (before.uid(), before.gid()) {
            chown(beside, Some(before.uid()), Some(before.gid()))?;
        }
        file.set_permissions(before.permissions())?;
    }
    file.sync_all()
}

fn is_app(table: &Table, id: &str) -> bool {
    table.get("id").and_then(Item::as_str) == Some(id)
}

/// The pairs, as a list of tables in lines of their own.
fn pairs(record: &Record) -> Result<Item, AppError> {
    let mut array = Array::new();
    for pair in record.keys_value().as_array().into_iter().flatten() {
        array.push(parsed(pair)?);
    }
    Ok(Item::Value(array.into()))
}

/// Takes out the pairs that are gone and adds those that are new; what stands beside the others stays.
fn replace_keys(table: &mut Table, record: &Record, keys: Item) -> Result<(), AppError> {
    let stays = |pair: &dyn TableLike| {
        let key = pair.get("key").and_then(Item::as_str);
        record.keys.iter().any(|stays| Some(&*stays.key) == key)
    };
    let before = record_of(table).keys;
    let Some(array) = table.get_mut("keys").and_then(Item::as_array_mut) else {
        table.insert("keys", keys);
        return Ok(());
    };
    array.retain(|pair| pair.as_inline_table().is_some_and(|pair| stays(pair)));
    for pair in record.keys.iter().filter(|pair| before.iter().all(|other| other.key != pair.key)) {
        array.push(parsed(&json!({ "key": pair.key, "secret": pair.secret.expose() }))?);
    }
    Ok(())
}

fn parsed(value: &Value) -> Result<toml_edit::Value, AppError> {
    toml_of(value).parse().map_err(|_| AppError::Setting("a value that TOML cannot hold".to_owned()))
}

fn record_of(table: &Table) -> Record {
    let mut settings = object(table);
    let id = settings.remove("id");
    let keys = settings.remove("keys").unwrap_or_default();
    let enabled = settings.remove("enabled");
    Record {
        id: id.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned(),
        enabled: enabled.as_ref().and_then(Value::as_bool).unwrap_or(true),
        keys: Pair::list_of(&keys).unwrap_or_default(),
        settings,
    }
}

fn object(table: &dyn TableLike) -> Map<String, Value> {
    table.iter().map(|(name, item)| (name.to_owned(), json_of(item))).collect()
}

fn json_of(item: &Item) -> Value {
    match item {
        Item::None => Value::Null,
        Item::Table(table) => Value::Object(object(table)),
        Item::ArrayOfTables(tables) => tables.iter().map(|table| Value::Object(object(table))).collect(),
        Item::Value(value) => json_of_value(value),
    }
}

fn json_of_value(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => json!(text.value()),
        toml_edit::Value::Integer(number) => json!(number.value()),
        toml_edit::Value::Float(number) => json!(number.value()),
        toml_edit::Value::Boolean(flag) => json!(flag.value()),
        toml_edit::Value::Datetime(time) => json!(time.value().to_string()),
        toml_edit::Value::Array(array) => array.iter().map(json_of_value).collect(),
        toml_edit::Value::InlineTable(table) => Value::Object(object(table)),
    }
}
