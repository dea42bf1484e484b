//! The settings in force, for those who may look but need no secrets.

use crate::config::Config;
use crate::config::settings::SETTINGS;

/// Every setting outside the apps with its value as the file would have it, secrets masked.
pub fn shown(config: &Config) -> impl Iterator<Item = (&'static str, String)> {
    let mut config = config.clone();
    SETTINGS.iter().map(move |setting| (setting.key, (setting.field)(&mut config).show()))
}
