//! Every setting with its default, as a file to begin with.

use std::fmt::Write;

use crate::config::settings::{APP_SETTINGS, SETTINGS, Setting};
use crate::config::{Config, DEMO_SECRET};

/// The whole default configuration as a commented file, the demo app included.
pub fn default_toml() -> String {
    let mut text = String::from(
        "# Every setting of Fanfare with its default. Leave out what you do not change.\n\
         # Precedence: this file < FANFARE_SECTION_KEY in the environment < flags.\n",
    );
    let mut config = Config::default();
    let mut section = "";
    for setting in SETTINGS {
        let (of, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
        if of != section {
            section = of;
            let _ = write!(text, "\n[{section}]\n");
        }
        push_setting(&mut text, setting, name, &mut config);
    }
    text.push_str("\n# One block for each app. Without any, this demo app is served, to this machine alone.\n[[apps]]\n");
    let mut app = Config::demo_app();
    for setting in APP_SETTINGS {
        push_setting(&mut text, setting, setting.key, &mut app);
    }
    text.replace("********", DEMO_SECRET)
}

fn push_setting<T>(text: &mut String, setting: &Setting<T>, name: &str, of: &mut T) {
    for line in setting.doc.lines() {
        let _ = writeln!(text, "# {line}");
    }
    let _ = writeln!(text, "{name} = {}", (setting.field)(of).show());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_file_is_the_default() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/default.toml");
        let file = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(file, default_toml(), "write it anew: fanfare config default > config/default.toml");
    }
}
