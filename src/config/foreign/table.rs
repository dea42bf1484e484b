//! What a table of foreign names is made of.

use crate::config::foreign::redis::RedisPart;
use crate::config::foreign::unit::Unit;

/// A foreign name, and what it means here.
#[derive(Debug)]
pub(super) struct Row {
    /// The environment variable; empty if there is none.
    pub(super) variable: &'static str,
    /// Where it stands in a file: keys joined by dots. Other spellings follow after a bar.
    pub(super) path: &'static str,
    pub(super) becomes: Becomes,
}

/// What becomes of a foreign setting.
#[derive(Clone, Copy, Debug)]
pub(super) enum Becomes {
    /// A setting of ours: of the server, or of the app in whose block it stands.
    Setting(&'static str, Unit),
    /// The least a setting of ours may be: it is larger by default.
    AtLeast(&'static str, Unit),
    /// A setting of every app of that configuration that does not say otherwise itself.
    EveryApp(&'static str, Unit),
    /// A part of a setting.
    Part(Part),
    /// It needs no counterpart, for this reason.
    Nothing(&'static str),
    /// We do not have it, which matters unless its value is one of `fine`.
    Missing {
        /// Values that ask for nothing.
        fine: &'static [&'static str],
        /// What is missing, and what to do instead.
        why: &'static str,
    },
}

/// What makes a setting of ours only together with others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part {
    /// Address of `server.bind`.
    Host,
    /// Port of `server.bind`.
    Port,
    /// Address of `metrics.bind`.
    MetricsHost,
    /// Port of `metrics.bind`.
    MetricsPort,
    /// False is an empty `metrics.bind`.
    MetricsEnabled,
    /// The id of an app.
    Id,
    /// Its key.
    Key,
    /// Its secret.
    Secret,
    /// All three, as `https://key:secret@host/apps/id`.
    Url,
    /// Its receivers of webhooks.
    Webhooks,
    /// Whether its connections must be authorized in time.
    UserAuthentication,
    /// In what time.
    UserAuthenticationTimeout(Unit),
    /// Which database has the apps.
    StoreDriver,
    /// `database.field` of `store.url`, or `database.table`.
    Store(&'static str),
    /// How nodes are joined.
    Redis(RedisPart),
}

#[cfg(test)]
impl Part {
    /// The setting it is a part of.
    pub(super) fn of(self) -> &'static str {
        match self {
            Self::Host | Self::Port => "server.bind",
            Self::MetricsHost | Self::MetricsPort | Self::MetricsEnabled => "metrics.bind",
            Self::Id => "apps.id",
            Self::Key | Self::Secret => "apps.keys",
            Self::Url => "apps.id, apps.keys",
            Self::Webhooks => "apps.webhooks",
            Self::UserAuthentication | Self::UserAuthenticationTimeout(_) => "apps.authorized_timeout_s",
            Self::StoreDriver => "store.url, store.schema",
            Self::Store(field) if field.ends_with(".table") => "store.table",
            Self::Store(_) => "store.url",
            Self::Redis(part) => part.of(),
        }
    }
}

/// The names of one server.
#[derive(Debug)]
pub(super) struct Dialect {
    /// Whose they are.
    pub(super) server: &'static str,
    /// How its variables begin.
    pub(super) prefix: &'static str,
    pub(super) rows: &'static [Row],
    /// Where its apps stand.
    pub(super) apps_path: &'static str,
    /// What stands in the block of an app.
    pub(super) app_rows: &'static [Row],
    /// What its apps are allowed, where it allows more than Pusher and we do.
    pub(super) app_defaults: &'static [(&'static str, &'static str)],
    /// What else a server of ours needs so that what was made for that one goes on.
    pub(super) server_defaults: &'static [(&'static str, &'static str)],
    /// The id of an app that has none.
    pub(super) default_id: Option<&'static str>,
    /// In how many seconds connections must be authorized, unless it is said.
    pub(super) authentication_timeout_s: &'static str,
    /// Key and secret that everybody knows.
    pub(super) public_pair: Option<(&'static str, &'static str)>,
    /// It listens on every address unless told otherwise.
    pub(super) listens_everywhere: bool,
}

impl Dialect {
    /// Every row, those of apps after the others.
    pub(super) fn all_rows(&self) -> impl Iterator<Item = &'static Row> {
        self.rows.iter().chain(self.app_rows)
    }

    /// Whether a variable is one of this server's, or of those that it shares with others.
    pub(super) fn has(&self, variable: &str) -> bool {
        variable.starts_with(self.prefix) || self.all_rows().any(|row| row.variable == variable)
    }

    /// The variables and what they mean, and where they stand in a file.
    pub(super) fn path_of(&self, variable: &str) -> Option<String> {
        let found = |rows: &'static [Row]| {
            rows.iter().find(|row| row.variable == variable).and_then(|row| row.path.split('|').next())
        };
        let in_app = || found(self.app_rows).map(|path| format!("{}.0.{path}", self.apps_path));
        found(self.rows).map(str::to_owned).or_else(in_app)
    }
}

impl Row {
    /// Whether it stands at this path.
    pub(super) fn is_at(&self, path: &str) -> bool {
        self.path.split('|').any(|own| own == path)
    }
}

pub(super) const fn row(variable: &'static str, path: &'static str, becomes: Becomes) -> Row {
    Row { variable, path, becomes }
}

pub(super) const fn missing(fine: &'static [&'static str], why: &'static str) -> Becomes {
    Becomes::Missing { fine, why }
}
