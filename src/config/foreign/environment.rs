//! The environment: whose names are in it, and which of them describe the app.

use serde_json::Value;

use crate::config::foreign::names::{PUSHER, REVERB};
use crate::config::foreign::soketi::SOKETI;
use crate::config::foreign::table::Dialect;
use crate::config::foreign::translate::translate;
use crate::config::foreign::{ForeignApp, Leaf, Translation, nearest};

/// Whose names are understood, those taken first in front.
pub(super) const FAMILIES: [&Dialect; 3] = [&SOKETI, &REVERB, &PUSHER];

/// What the variables say, together with soketi's file if that is the configuration.
pub(in crate::config) fn from_environment(variables: &[(String, String)], file: Vec<Leaf>) -> Translation {
    let mut file = Some(file);
    let mut all = Translation::default();
    for dialect in FAMILIES {
        let mut leaves =
            if dialect.prefix == SOKETI.prefix { file.take().unwrap_or_default() } else { Vec::new() };
        let mut unknown = Translation::default();
        for (variable, value) in variables.iter().filter(|(name, _)| dialect.has(name)) {
            // An empty one counts as none, for all of them.
            if value.is_empty() {
                continue;
            }
            if is_of_kubernetes(variable, value) {
                if variable.starts_with(dialect.prefix) {
                    let message = "no effect here: Kubernetes sets it for a service of that name";
                    unknown.note(variable, message, false);
                }
            } else if let Some(path) = dialect.path_of(variable) {
                let value = Value::String(value.clone());
                leaves.push(Leaf { place: variable.clone(), path, value, variable: true });
            } else if dialect.prefix != PUSHER.prefix {
                // Pusher has other products, whose names are nothing to us.
                let known = dialect.all_rows().map(|row| row.variable).filter(|name| !name.is_empty());
                let message = format!("unknown to {}{}", dialect.server, nearest(variable, known));
                unknown.note(variable, message, true);
            }
        }
        let mut said = translate(dialect, &leaves);
        choose(&all, &mut said);
        contradictions(&all, &mut said);
        all.append(said);
        all.append(unknown);
    }
    all
}

/// Lets go of the apps in `weaker` if something stronger describes one.
fn choose(stronger: &Translation, weaker: &mut Translation) {
    if stronger.apps.is_empty() {
        return;
    }
    for app in std::mem::take(&mut weaker.apps) {
        let same =
            |other: &&ForeignApp| other.id == app.id && other.key == app.key && other.secret == app.secret;
        let twin = |other: &&ForeignApp| other.id == app.id || other.key == app.key;
        if let Some(other) = stronger.apps.iter().find(same) {
            let message = format!("the same app as by {}", other.place);
            weaker.note(&app.place, message, false);
        } else if let Some(other) = stronger.apps.iter().find(twin) {
            let message = format!("contradicts {}: they share an id or a key, but not the rest", other.place);
            weaker.problem(&app.place, message);
        } else if let Some(other) = stronger.apps.first() {
            let message = format!("not used: {} describes the app", other.place);
            weaker.note(&app.place, message, true);
        }
    }
}

/// Two servers' names for one setting of ours must not disagree.
fn contradictions(one: &Translation, other: &mut Translation) {
    let said = values(one);
    for (place, key, text) in values(other) {
        if let Some((before, _, _)) = said.iter().find(|(_, known, value)| *known == key && *value != text) {
            other.problem(&place, format!("contradicts {before}: keep one of them"));
        }
    }
}

/// Who says it, what of, and the value. Address and port of a setting stand apart.
fn values(all: &Translation) -> Vec<(String, String, String)> {
    let said = all.settings.iter().filter(|said| !said.at_least && !said.default);
    let said = said.map(|said| (said.place.clone(), said.key.to_owned(), said.text.clone()));
    let ips = all.addresses.iter().filter_map(|address| {
        Some((address.place.clone(), format!("{} address", address.key), address.ip?.to_string()))
    });
    let ports = all.addresses.iter().filter_map(|address| {
        Some((address.place.clone(), format!("{} port", address.key), address.port?.to_string()))
    });
    said.chain(ips).chain(ports).collect()
}

/// `SOKETI_SERVICE_HOST`, `SOKETI_PORT=tcp://10.0.0.1:6001`, `SOKETI_PORT_6001_TCP_ADDR`: set beside every service.
fn is_of_kubernetes(variable: &str, value: &str) -> bool {
    let address = value.starts_with("tcp://") || value.starts_with("udp://");
    let numbered = || {
        let rest = variable.split_once("_PORT_").map(|(_, rest)| rest);
        rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || (variable.ends_with("_PORT") && address)
        || numbered()
}
