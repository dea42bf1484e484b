//! How nodes of another server are joined over Redis, which becomes `[redis]`.

use std::collections::BTreeMap;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::Url;
use serde_json::Value;

use crate::config::foreign::translate::json_of;
use crate::config::foreign::unit::{flag, plain};
use crate::config::foreign::{Leaf, Said, Translation};

/// A part of what another server says of it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::config) enum RedisPart {
    /// What joins nodes, in a word.
    Driver,
    /// Whether nodes are joined, true or false.
    Enabled,
    /// Where it is, as a URL that may lack some of what follows.
    Url,
    Host,
    Port,
    Database,
    User,
    Password,
    /// True if it is a Redis Cluster.
    IsCluster,
    /// Of a Redis Cluster.
    Nodes,
    Sentinels,
    SentinelUser,
    SentinelPassword,
    /// What Sentinels call the server.
    Master,
    /// True if TLS is spoken.
    Tls,
    SentinelTls,
    /// Options of the client library, where TLS is one.
    Options,
    TlsCa,
    TlsCertificate,
    TlsKey,
    KeyPrefix,
    Prefix,
    /// Instead of that, if it is a Redis Cluster.
    ClusterPrefix,
}

use RedisPart::*;

impl RedisPart {
    /// The settings it is a part of.
    pub(in crate::config) const fn of(self) -> &'static str {
        match self {
            Driver | Enabled | Url | Host | Port | Database | User | Password | IsCluster | Nodes
            | Master | Tls | Options => "redis.url",
            Sentinels | SentinelUser | SentinelPassword | SentinelTls => "redis.sentinels",
            TlsCa => "redis.tls_ca_file",
            TlsCertificate => "redis.tls_cert_file",
            TlsKey => "redis.tls_key_file",
            KeyPrefix | Prefix | ClusterPrefix => "redis.prefix",
        }
    }
}

/// What is known of it.
#[derive(Default)]
pub(super) struct Redis(BTreeMap<RedisPart, Part>);

struct Part {
    place: String,
    value: Value,
    /// A name that is not that server's alone, so nothing is said of it if it has no effect.
    shared: bool,
}

/// Who is spoken to, and with which credentials.
#[derive(Clone)]
struct Server {
    tls: bool,
    user: String,
    password: String,
    host: String,
    port: u16,
    database: String,
}

impl Redis {
    /// `prefix` is how that server's own variables begin.
    pub(super) fn take(&mut self, part: RedisPart, prefix: &str, leaf: &Leaf) {
        let is_empty = leaf.value.as_array().is_some_and(Vec::is_empty);
        // Several names say the same: what says nothing takes nobody's place.
        if is_empty || part == Tls && self.is_true(Tls) {
            return;
        }
        let shared = leaf.variable && !leaf.place.starts_with(prefix);
        self.0.insert(part, Part { place: leaf.place.clone(), value: leaf.value.clone(), shared });
    }

    /// The settings of `[redis]`, if nodes are joined over Redis.
    pub(super) fn finish(self, out: &mut Translation) {
        match self.is_cluster(out) {
            Some(is_cluster) => self.settings(is_cluster, out),
            None => {
                let rest =
                    self.0.iter().filter(|(part, known)| !matches!(part, Driver | Enabled) && !known.shared);
                for (_, Part { place, .. }) in rest {
                    out.note(place, "no effect here: nodes are not joined over Redis", false);
                }
            }
        }
    }

    /// Whether it is a Redis Cluster that joins nodes; none if it is nothing at all.
    fn is_cluster(&self, out: &mut Translation) -> Option<bool> {
        if let Some(Part { place, value, .. }) = self.0.get(&Enabled) {
            match flag(plain(value).as_deref()) {
                Some(true) => return Some(false),
                Some(false) => {}
                None => out.problem(place, "bad value: expected true or false"),
            }
            return None;
        }
        let Part { place, value, .. } = self.0.get(&Driver)?;
        match plain(value).unwrap_or_default().as_str() {
            "local" => None,
            "redis" => Some(self.is_true(IsCluster)),
            "redis-cluster" => Some(true),
            _ => {
                let message = "not supported: nodes are joined over Redis and nothing else: set redis.url, or run one node";
                out.note(place, message, true);
                None
            }
        }
    }

    fn settings(&self, is_cluster: bool, out: &mut Translation) {
        let server = match self.server() {
            Ok(server) => server,
            Err((place, expected)) => return out.problem(place, format!("bad value: expected {expected}")),
        };
        let list = |part| match self.0.get(&part) {
            None => Ok(Vec::new()),
            Some(Part { place, value, .. }) => hosts(value).ok_or(place),
        };
        let (nodes, sentinels) = match (list(Nodes), list(Sentinels)) {
            (Ok(nodes), Ok(sentinels)) => (nodes, sentinels),
            (Err(place), _) | (_, Err(place)) => {
                let expected =
                    r#"bad value: expected a list of hosts and ports, as in [{"host": "a", "port": 6379}]"#;
                return out.problem(place, expected);
            }
        };
        let has_sentinels = !is_cluster && !sentinels.is_empty();
        let url = match () {
            () if is_cluster && nodes.is_empty() => server.url(&server.address(), ""),
            () if is_cluster => joined(nodes.iter().map(|node| server.url_of(node, 6379))),
            () if has_sentinels => {
                let master = self.text(Master).unwrap_or_else(|| "mymaster".to_owned());
                server.url(&master, &server.database)
            }
            () => server.url(&server.address(), &server.database),
        };
        let mut say = |own: RedisPart, text: String, used: &[RedisPart]| {
            let used = used.iter().filter_map(|part| self.0.get(part));
            let places: Vec<&str> = used.map(|known| &*known.place).collect();
            let said =
                Said { place: places.join(", "), key: own.of(), text, at_least: false, default: false };
            out.settings.push(said);
        };
        let address: &[RedisPart] = match () {
            () if is_cluster && nodes.is_empty() => {
                &[Driver, Host, Port, User, Password, IsCluster, Tls, Options]
            }
            () if is_cluster => &[Driver, User, Password, IsCluster, Nodes, Tls, Options],
            () if has_sentinels => &[Driver, User, Password, Database, Master, Tls, Options],
            () => &[Driver, Enabled, Url, Host, Port, Database, User, Password, Tls, Options],
        };
        say(Driver, url, address);
        let files: &[RedisPart] = if server.tls { &[TlsCa, TlsCertificate, TlsKey] } else { &[] };
        if has_sentinels {
            let watcher = Server {
                tls: self.is_true(SentinelTls),
                user: self.text(SentinelUser).unwrap_or_default(),
                password: self.text(SentinelPassword).unwrap_or_default(),
                ..server
            };
            let all = joined(sentinels.iter().map(|sentinel| watcher.url_of(sentinel, 26379)));
            say(Sentinels, all, &[Sentinels, SentinelUser, SentinelPassword, SentinelTls]);
        }
        for file in files {
            if let Some(path) = self.text(*file) {
                say(*file, path, &[*file]);
            }
        }
        let prefix = if is_cluster && self.0.contains_key(&ClusterPrefix) { ClusterPrefix } else { Prefix };
        let parts = [KeyPrefix, prefix];
        let prefix = parts.map(|part| self.text(part).unwrap_or_default()).concat();
        // Ours ends with a colon anyway.
        let prefix = prefix.trim_end_matches(':');
        if !prefix.is_empty() {
            say(Prefix, prefix.to_owned(), &parts);
        }
        self.notes(is_cluster, has_sentinels, &[address, files].concat(), out);
    }

    /// What was said and is not used.
    fn notes(&self, is_cluster: bool, has_sentinels: bool, used: &[RedisPart], out: &mut Translation) {
        if let Some(Part { place, value, .. }) = self.0.get(&Options) {
            let others = json_of(value).is_none_or(|options| {
                options.as_object().is_none_or(|options| options.keys().any(|key| key != "tls"))
            });
            if others {
                out.note(place, "not supported but for tls: see the settings of [redis]", true);
            }
        }
        let why = |part: RedisPart| match () {
            () if matches!(part, TlsCa | TlsCertificate | TlsKey) => "TLS is not spoken with Redis",
            () if is_cluster => "Redis is a cluster, whose nodes are named",
            () if has_sentinels => "Sentinels know where Redis is",
            () => "Redis is one server",
        };
        for (part, Part { place, shared, .. }) in &self.0 {
            let is_used = match part.of() {
                "redis.prefix" => true,
                "redis.sentinels" => has_sentinels,
                _ => used.contains(part),
            };
            if !is_used && !shared {
                out.note(place, format!("no effect here: {}", why(*part)), false);
            }
        }
    }

    fn text(&self, part: RedisPart) -> Option<String> {
        let text = plain(&self.0.get(&part)?.value)?;
        // Laravel's word for none.
        (!text.is_empty() && text != "null" && text != "(null)").then_some(text)
    }

    fn is_true(&self, part: RedisPart) -> bool {
        flag(self.text(part).as_deref()) == Some(true)
    }

    /// The server, as all of these servers have it by default and as it is said.
    fn server(&self) -> Result<Server, (&str, &'static str)> {
        let wrong =
            |part: RedisPart, expected| (self.0.get(&part).map_or("redis", |known| &*known.place), expected);
        let options = self.0.get(&Options).and_then(|known| json_of(&known.value));
        let tls = options.as_ref().and_then(|options| options.get("tls"));
        let mut server = Server {
            tls: self.is_true(Tls) || tls.is_some_and(|tls| !tls.is_null() && tls != &Value::Bool(false)),
            user: self.text(User).unwrap_or_default(),
            password: self.text(Password).unwrap_or_default(),
            host: self.text(Host).unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: 6379,
            database: self.text(Database).unwrap_or_default(),
        };
        if let Some(port) = self.text(Port) {
            server.port = port.parse().map_err(|_| wrong(Port, "a port, from 0 to 65535"))?;
        }
        if !server.database.is_empty() && server.database.parse::<u32>().is_err() {
            return Err(wrong(Database, "the number of a database"));
        }
        // A host may be said as a URL too.
        let host = server.host.clone();
        let in_host = host.contains("://").then_some((Host, host));
        for (part, url) in self.text(Url).map(|url| (Url, url)).into_iter().chain(in_host) {
            server.heed(&url).ok_or_else(|| wrong(part, "redis://USER:PASSWORD@HOST:PORT"))?;
        }
        Ok(server)
    }
}

impl Server {
    /// What a URL says is stronger; what it does not say stays.
    fn heed(&mut self, url: &str) -> Option<()> {
        let url = Url::parse(url).ok()?;
        self.tls |= match url.scheme() {
            "redis" | "tcp" => false,
            "rediss" | "tls" => true,
            _ => return None,
        };
        let decoded = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        if !url.username().is_empty() {
            self.user = decoded(url.username())?;
        }
        if let Some(password) = url.password() {
            self.password = decoded(password)?;
        }
        self.host = url.host_str()?.to_owned();
        self.port = url.port().unwrap_or(self.port);
        let database = url.path().trim_matches('/');
        if database.parse::<u32>().is_ok() {
            database.clone_into(&mut self.database);
        }
        Some(())
    }

    /// With these credentials, to one of a list.
    fn url_of(&self, (host, own): &(String, Option<u16>), port: u16) -> String {
        let mut server = Self { host: host.clone(), port: own.unwrap_or(port), ..self.clone() };
        // One that is no URL after all stays as it is, and is refused later.
        if host.contains("://") && server.heed(host).is_none() {
            return host.clone();
        }
        server.url(&server.address(), "")
    }

    fn address(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }

    fn url(&self, address: &str, database: &str) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let scheme = if self.tls { "rediss" } else { "redis" };
        let credentials = match (&*self.user, &*self.password) {
            ("", "") => String::new(),
            (user, "") => format!("{}@", encoded(user)),
            (user, password) => format!("{}:{}@", encoded(user), encoded(password)),
        };
        let database = if matches!(database, "" | "0") { String::new() } else { format!("/{database}") };
        format!("{scheme}://{credentials}{address}{database}")
    }
}

fn joined(urls: impl Iterator<Item = String>) -> String {
    urls.collect::<Vec<_>>().join(",")
}

/// An address of IPv6 as it stands in a URL.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// A list of `{"host": …, "port": …}`, `"host:port"` or URLs; a text may have commas.
fn hosts(value: &Value) -> Option<Vec<(String, Option<u16>)>> {
    let host_of = |text: &str| match text.rsplit_once(':') {
        Some((host, port)) if !text.contains("://") && !host.contains(':') => {
            Some((host.to_owned(), Some(port.parse().ok()?)))
        }
        _ => Some((text.to_owned(), None)),
    };
    let item = |item: &Value| match item {
        Value::String(text) => host_of(text),
        _ => {
            let host = item.get("host")?.as_str()?;
            let port = item.get("port").map(|port| plain(port)?.parse().ok());
            Some((host.to_owned(), port.unwrap_or(None)))
        }
    };
    match json_of(value) {
        Some(Value::Array(items)) => items.iter().map(item).collect(),
        _ => value.as_str()?.split(',').map(|text| host_of(text.trim())).collect(),
    }
}
