//! New configuration for a running server: apps take effect, the rest is said to need a restart.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::{Config, ConfigError, Layers, Loaded};
use crate::control::Reloaded;
use crate::directory::{Directory, Refreshed};
use crate::node::Node;
use crate::server::ServeError;
use crate::tls::Certificates;

/// Where the configuration came from, to be read again.
#[derive(Debug)]
pub(super) struct Source {
    layers: Layers,
    node: Arc<Node>,
    directory: Directory,
    certificates: Option<Arc<Certificates>>,
    /// Whether others than this machine can connect.
    is_public: bool,
    watched: Watched,
}

/// Files whose change is a reason to read them again.
#[derive(Debug)]
struct Watched {
    /// And what they looked like last.
    files: Vec<(PathBuf, Option<Look>)>,
    /// Something had changed when they were looked at last: perhaps it is still being written.
    restless: bool,
}

/// What tells a file from an earlier version of it: when it was written, how long it is, and which file it is. A link
/// may lead to another one of the same age and length.
type Look = (SystemTime, u64, u64);

impl Source {
    pub(super) fn new(
        layers: Layers,
        node: Arc<Node>,
        directory: Directory,
        certificates: Option<Arc<Certificates>>,
        is_public: bool,
    ) -> Self {
        let tls = &node.config().tls;
        let of_tls = [&tls.certificate, &tls.key].map(PathBuf::from);
        let of_apps = PathBuf::from(&node.config().store.apps_file);
        let files = layers.file.clone().into_iter().chain([of_apps]).chain(of_tls);
        let files = files.filter(|path| !path.as_os_str().is_empty());
        let watched = Watched::new(files);
        Self { layers, node, directory, certificates, is_public, watched }
    }

    /// Whether a file has changed since the last time and has been left alone for one look.
    pub(super) fn has_changed(&mut self) -> bool {
        self.watched.has_changed()
    }

    /// Reads everything again and puts apps and certificates into effect. What is wrong stays as it was.
    pub(super) async fn reload(&mut self) -> Reloaded {
        // Certificates end at their time: a mistake in the configuration does not keep a new one out.
        let certificates = self.certificates.as_ref().map_or(Ok(()), |certificates| certificates.reload());
        let certificates = certificates.map_err(|error| error.to_string()).err();
        let mut loaded = match self.load() {
            Ok(loaded) => loaded,
            Err(error) => {
                let problems = error.problems.iter().map(|problem| problem.to_string());
                return refused(certificates.into_iter().chain(problems).collect());
            }
        };
        if let Some(problem) = self.problem_of_apps(&loaded.config) {
            return refused(certificates.into_iter().chain([problem]).collect());
        }
        let apps = std::mem::take(&mut loaded.config.apps);
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let mut needs_restart = loaded.config.differs_from(self.node.config());
        // Its apps are in effect already.
        needs_restart.retain(|key| *key != "store.apps_file");
        for key in &needs_restart {
            tracing::warn!(key, "a changed setting takes a restart");
        }
        let Refreshed { apps, problem } = self.directory.refresh(apps).await;
        let problems: Vec<String> = certificates.into_iter().chain(problem).collect();
        problems.iter().for_each(|problem| tracing::error!("not reloaded: {problem}"));
        tracing::info!(apps, "reloaded");
        let needs_restart = needs_restart.into_iter().map(str::to_owned).collect();
        Reloaded { apps, problems, needs_restart }
    }

    /// Reads all files. One of apps that is named for the first time is watched from now on.
    fn load(&mut self) -> Result<Loaded, ConfigError> {
        let loaded = self.layers.load()?;
        let is_new = self.watched.add(PathBuf::from(&loaded.config.store.apps_file));
        // How it looked was learned after it was read: it may have changed between.
        if is_new { self.layers.load() } else { Ok(loaded) }
    }

    /// Why the apps of a new configuration are not served. A file that was emptied by mistake must not let strangers in
    /// with the demo app's public credentials, nor send everybody away for ever.
    fn problem_of_apps(&self, config: &Config) -> Option<String> {
        let is_served = self.node.apps().all().any(|app| **app == Config::demo_app());
        let had_some = self.node.apps().all().next().is_some();
        let are_gone = config.apps.is_empty() && config.store.url.expose().is_empty() && had_some;
        match () {
            () if (config.is_demo() && !is_served) || are_gone => Some(
                "no app is configured any more, and the demo app takes nobody's place in a running server: configure \
                 one ([[apps]]), or disable those there are (enabled = false)"
                    .to_owned(),
            ),
            () if config.has_demo_app() && self.is_public => Some(ServeError::Demo.to_string()),
            () => None,
        }
    }
}

impl Watched {
    fn new(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let files = files.into_iter().map(|path| (path.clone(), look(&path))).collect();
        Self { files, restless: false }
    }

    /// Looks after one more file; false if it is looked after already, or is none.
    fn add(&mut self, path: PathBuf) -> bool {
        let is_new = !path.as_os_str().is_empty() && self.files.iter().all(|(known, _)| *known != path);
        if is_new {
            let look = look(&path);
            self.files.push((path, look));
        }
        is_new
    }

    /// Whether a file has changed since the last time and has been left alone for one look.
    fn has_changed(&mut self) -> bool {
        let mut changed = false;
        for (path, before) in &mut self.files {
            // A file that is away is being replaced.
            if let Some(now) = look(path)
                && *before != Some(now)
            {
                *before = Some(now);
                changed = true;
            }
        }
        let settled = self.restless && !changed;
        self.restless = changed;
        settled
    }
}

fn refused(problems: Vec<String>) -> Reloaded {
    for problem in &problems {
        tracing::error!("not reloaded: {problem}");
    }
    Reloaded { problems, ..Reloaded::default() }
}

fn look(path: &PathBuf) -> Option<Look> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len(), about.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_once_it_has_settled() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("fanfare.toml");
        std::fs::write(&file, "").expect("written");
        let mut source = Watched::new([file.clone()]);
        assert!(!source.has_changed());
        std::fs::write(&file, "# one").expect("written");
        assert!(!source.has_changed(), "it may still be written");
        std::fs::write(&file, "# one two").expect("written");
        assert!(!source.has_changed());
        assert!(source.has_changed());
        assert!(!source.has_changed());
        std::fs::remove_file(&file).expect("removed");
        assert!(!source.has_changed() && !source.has_changed(), "nothing to read");
        std::fs::write(&file, "").expect("written");
        assert!(!source.has_changed());
        assert!(source.has_changed());
    }

    #[test]
    fn a_file_is_added_once() {
        let mut watched = Watched::new([PathBuf::from("one")]);
        assert!(watched.add(PathBuf::from("two")));
        assert!(!watched.add(PathBuf::from("two")) && !watched.add(PathBuf::from("one")));
        assert!(!watched.add(PathBuf::new()), "no file is none");
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_a_change_even_to_a_file_of_the_same_age_and_length() {
        let folder = tempfile::tempdir().expect("a folder");
        let [link, next, one, two] = ["link", "next", "one", "two"].map(|name| folder.path().join(name));
        for file in [&one, &two] {
            std::fs::write(file, "# one").expect("written");
            let file = std::fs::File::options().write(true).open(file).expect("a file");
            file.set_modified(SystemTime::UNIX_EPOCH).expect("an age");
        }
        std::os::unix::fs::symlink(one, &link).expect("a link");
        let mut source = Watched::new([link.clone()]);
        assert!(!source.has_changed());
        std::os::unix::fs::symlink(two, &next).expect("a link");
        std::fs::rename(next, link).expect("replaced");
        assert!(!source.has_changed());
        assert!(source.has_changed());
    }
}
