//! What `[redis]` says, read once: where servers are, who we are to them, and whom we trust.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::io::tcp::TcpSettings;
use deadpool_redis::redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisResult, TlsCertificates, parse_redis_url,
};
use percent_encoding::percent_decode_str;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::cluster::servers::error::{SENTINELS, SERVERS, SettingsError};
use crate::cluster::servers::topology::Address;
use crate::config::{Masked, Redis};

/// Everything that is known before the first connection.
#[derive(Debug)]
pub(super) struct Settings {
    /// The servers, and how they are spoken to.
    pub(super) servers: Servers,
    /// Who knows where the master is, if the servers are not named themselves.
    pub(super) watch: Option<Watch>,
    /// How long anything may take.
    pub(super) timeout: Duration,
}

/// Servers that are spoken to in the same way.
#[derive(Debug)]
pub(super) struct Servers {
    /// Where to begin.
    pub(super) seeds: Vec<Address>,
    /// Of whom we are to them.
    pub(super) access: Access,
}

/// Sentinels.
#[derive(Debug)]
pub(super) struct Watch {
    /// What they call the master.
    pub(super) master: String,
    /// Each with who we are to it.
    pub(super) sentinels: Vec<(Address, Access)>,
}

/// Who we are to a server.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// The setting that says so.
    pub(super) setting: &'static str,
    user: Option<String>,
    password: Option<Masked>,
    database: i64,
    tls: Option<Rc<Tls>>,
}

/// How TLS is spoken: the same files, for the library and for connections of the bus.
#[derive(Debug)]
struct Tls {
    config: Arc<ClientConfig>,
    /// An address of nobody's, which carries what the library has read.
    template: ConnectionAddr,
}

/// An address as it is written.
struct Url {
    address: Address,
    user: Option<String>,
    password: Option<Masked>,
    database: i64,
    is_secure: bool,
}

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

impl Settings {
    /// Reads and checks settings, and files that they name.
    pub(super) fn read(settings: &Redis) -> Result<Self, SettingsError> {
        let urls = urls(SERVERS, settings.url.expose(), PORT)?;
        let watchers = match settings.sentinels.expose() {
            "" => Vec::new(),
            text => self::urls(SENTINELS, text, SENTINEL_PORT)?,
        };
        check(&urls, &watchers)?;
        let is_secure = |url: &Url| url.is_secure;
        let tls = if urls.iter().chain(&watchers).any(is_secure) {
            Some(Rc::new(Tls::read(settings)?))
        } else {
            needless(settings)?;
            None
        };
        let access = |setting, url: &Url| Access {
            setting,
            user: url.user.clone(),
            password: url.password.clone(),
            database: url.database,
            tls: tls.clone().filter(|_| url.is_secure),
        };
        let first = urls.first().ok_or_else(|| unreadable(SERVERS))?;
        let watch = (!watchers.is_empty()).then(|| Watch {
            master: first.address.host.to_string(),
            sentinels: watchers.iter().map(|url| (url.address.clone(), access(SENTINELS, url))).collect(),
        });
        let servers = Servers {
            access: access(SERVERS, first),
            seeds: urls.into_iter().map(|url| url.address).collect(),
        };
        Ok(Self { servers, watch, timeout: Duration::from_millis(settings.timeout_ms) })
    }
}

impl Access {
    /// What the library needs to connect to a server.
    pub(super) fn info(&self, at: &Address) -> RedisResult<ConnectionInfo> {
        let addr = match &self.tls {
            None => ConnectionAddr::Tcp(at.host.to_string(), at.port),
            Some(tls) => tls.address(at),
        };
        let mut redis = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(self.database)
            // A user needs one right less.
            .set_skip_set_lib_name();
        if let Some(user) = &self.user {
            redis = redis.set_username(user);
        }
        if let Some(password) = &self.password {
            redis = redis.set_password(password.expose());
        }
        let tcp = TcpSettings::default().set_nodelay(true);
        Ok(addr.into_connection_info()?.set_redis_settings(redis).set_tcp_settings(tcp))
    }

    /// How TLS is spoken there, if it is.
    pub(super) fn tls(&self) -> Option<Arc<ClientConfig>> {
        self.tls.as_ref().map(|tls| Arc::clone(&tls.config))
    }

    /// The words that open a connection of the bus.
    pub(super) fn hello(&self) -> Vec<&[u8]> {
        let mut words: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &self.password {
            let user = self.user.as_deref().unwrap_or("default");
            words.extend([&b"AUTH"[..], user.as_bytes(), password.expose().as_bytes()]);
        }
        words.extend([&b"SETNAME"[..], b"fanfare-bus"]);
        words
    }
}

/// What stands between the addresses of a setting, and what each must look like.
fn urls(setting: &'static str, text: &str, port: u16) -> Result<Vec<Url>, SettingsError> {
    text.split(',').map(|url| self::url(setting, url.trim(), port)).collect()
}

fn url(setting: &'static str, text: &str, port: u16) -> Result<Url, SettingsError> {
    let said = |what: &str| SettingsError(format!("{setting}: {what}"));
    let url = parse_redis_url(text).ok_or_else(|| unreadable(setting))?;
    let is_secure = match url.scheme() {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        _ => return Err(said("nodes share Redis over the network, not by a socket file: redis://host:6379")),
    };
    if url.query().is_some() || url.fragment().is_some() {
        return Err(said(
            "nothing may stand behind the address (? and # in a password are written %3F and %23; certificates are \
             always checked, redis.tls_ca_file names an authority of your own)",
        ));
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).ok();
    let host = url.host_str().filter(|host| !host.is_empty()).and_then(decoded);
    let host = host.ok_or_else(|| unreadable(setting))?;
    let database = match url.path().trim_matches('/') {
        "" => 0,
        number => number.parse().ok().filter(|&number| number >= 0).ok_or_else(|| unreadable(setting))?,
    };
    let user = decoded(url.username()).ok_or_else(|| unreadable(setting))?;
    let password = decoded(url.password().unwrap_or_default()).ok_or_else(|| unreadable(setting))?;
    // Nobody in particular needs none, and a user may have an empty one.
    let password = (!user.is_empty() || !password.is_empty()).then(|| Masked::new(password));
    Ok(Url {
        address: Address {
            host: host.trim_start_matches('[').trim_end_matches(']').into(),
            port: url.port().unwrap_or(port),
        },
        user: Some(user).filter(|user| !user.is_empty()),
        password,
        database,
        is_secure,
    })
}

/// Nothing of the text is shown: whatever could not be read may be a part of a password.
fn unreadable(setting: &str) -> SettingsError {
    SettingsError(format!(
        "{setting}: not an address: expected redis://user:password@host:6379, rediss:// for TLS, several with commas \
         between them; in users and passwords @ : / ? # % and the comma are written %40 %3A %2F %3F %23 %25 %2C"
    ))
}

/// Checks what addresses say together.
fn check(urls: &[Url], watchers: &[Url]) -> Result<(), SettingsError> {
    let error = |setting: &str, what: &str| Err(SettingsError(format!("{setting}: {what}")));
    if watchers.iter().any(|url| url.database != 0) {
        return error(SENTINELS, "Sentinels have no numbered databases: leave the number out");
    }
    let [first, others @ ..] = urls else { return Err(unreadable(SERVERS)) };
    if others.is_empty() {
        return Ok(());
    }
    if !watchers.is_empty() {
        return error(SERVERS, "with redis.sentinels it is one address, with the master's name for a host");
    }
    if urls.iter().any(|url| url.database != 0) {
        return error(SERVERS, "a Redis Cluster has no numbered databases: leave the number out");
    }
    if others.iter().any(|url| url.is_secure != first.is_secure) {
        return error(SERVERS, "servers of a Redis Cluster have either all redis:// or all rediss://");
    }
    if others.iter().any(|url| url.user != first.user || url.password != first.password) {
        return error(SERVERS, "servers of a Redis Cluster have all the same user and password");
    }
    Ok(())
}

/// Files for TLS that nobody speaks.
fn needless(settings: &Redis) -> Result<(), SettingsError> {
    let files = [
        ("redis.tls_ca_file", &settings.tls_ca_file),
        ("redis.tls_cert_file", &settings.tls_cert_file),
        ("redis.tls_key_file", &settings.tls_key_file),
    ];
    match files.iter().find(|(_, file)| !file.is_empty()) {
        Some((setting, _)) => Err(SettingsError(format!(
            "{setting} is set, but redis.url begins with redis://: rediss:// is TLS"
        ))),
        None => Ok(()),
    }
}

impl Tls {
    fn read(settings: &Redis) -> Result<Self, SettingsError> {
        let Redis { tls_ca_file, tls_cert_file, tls_key_file, .. } = settings;
        let mut roots = RootCertStore::empty();
        let ca = file("redis.tls_ca_file", tls_ca_file)?;
        match &ca {
            Some(pem) => {
                let error = |what| SettingsError(format!("redis.tls_ca_file: {tls_ca_file} {what}"));
                for certificate in
                    certificates(pem).ok_or_else(|| error("has no certificate in it, in PEM"))?
                {
                    roots.add(certificate).map_err(|_| error("has a certificate of no authority in it"))?;
                }
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| SettingsError(format!("TLS cannot be spoken: {error}")))?
            .with_root_certificates(roots);
        let certificate = file("redis.tls_cert_file", tls_cert_file)?;
        let key = file("redis.tls_key_file", tls_key_file)?;
        let (config, client_tls) = match (certificate, key) {
            (None, None) => (builder.with_no_client_auth(), None),
            (Some(client_cert), Some(client_key)) => {
                let error = |setting: &str, file: &Path, what| {
                    SettingsError(format!("{setting}: {} {what}", file.display()))
                };
                let [cert_file, key_file] = [tls_cert_file, tls_key_file].map(PathBuf::from);
                let chain = certificates(&client_cert).ok_or_else(|| {
                    error("redis.tls_cert_file", &cert_file, "has no certificate in it, in PEM".to_owned())
                })?;
                let key = PrivateKeyDer::from_pem_slice(&client_key).map_err(|_| {
                    error("redis.tls_key_file", &key_file, "has no private key in it, in PEM".to_owned())
                })?;
                let config = builder.with_client_auth_cert(chain, key).map_err(|problem| {
                    let what = format!("does not go with redis.tls_cert_file: {problem}");
                    error("redis.tls_key_file", &key_file, what)
                })?;
                (config, Some(ClientTlsConfig { client_cert, client_key }))
            }
            _ => {
                return Err(SettingsError(
                    "redis.tls_cert_file and redis.tls_key_file: both are needed, or none".to_owned(),
                ));
            }
        };
        let template = template(TlsCertificates { client_tls, root_cert: ca })?;
        Ok(Self { config: Arc::new(config), template })
    }

    fn address(&self, at: &Address) -> ConnectionAddr {
        let mut address = self.template.clone();
        if let ConnectionAddr::TcpTls { host, port, .. } = &mut address {
            (*host, *port) = (at.host.to_string(), at.port);
        }
        address
    }
}

/// Has the library read the files, too: it takes them by no other way.
fn template(certificates: TlsCertificates) -> Result<ConnectionAddr, SettingsError> {
    let nobody =
        ConnectionAddr::TcpTls { host: String::new(), port: PORT, insecure: false, tls_params: None };
    let client = Client::build_with_tls(nobody, certificates);
    let client = client.map_err(|error| SettingsError(format!("redis.tls_ca_file: {error}")))?;
    Ok(client.get_connection_info().addr().clone())
}

/// What a file has in it; none if none is named.
fn file(setting: &str, name: &str) -> Result<Option<Vec<u8>>, SettingsError> {
    if name.is_empty() {
        return Ok(None);
    }
    let read = fs::read(name);
    read.map(Some).map_err(|error| SettingsError(format!("{setting}: {name} cannot be read: {error}")))
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!chain.is_empty()).then_some(chain)
}

#[cfg(test)]
mod tests {
    use std::fs::write;

    use rcgen::generate_simple_self_signed;

    use super::*;

    const SECRET: &str = "s3cr3t";

    fn of(url: &str, sentinels: &str) -> Redis {
        Redis { url: Masked::new(url), sentinels: Masked::new(sentinels), ..Redis::default() }
    }

    fn read(url: &str) -> Settings {
        Settings::read(&of(url, "")).expect("settings that make sense")
    }

    #[track_caller]
    fn refused(settings: &Redis, parts: [&str; 2]) {
        let text = Settings::read(settings).expect_err("a mistake").to_string();
        assert!(text.starts_with(parts[0]) && text.contains(parts[1]), "{text}");
        assert!(!text.contains(SECRET), "{text}");
    }

    #[test]
    fn an_address_says_where_and_who() {
        let settings = read("redis://ann:p%40ss@redis.local:7000/3");
        assert_eq!(settings.servers.seeds, [Address { host: "redis.local".into(), port: 7000 }]);
        let Access { user, password, database, tls, .. } = &settings.servers.access;
        assert_eq!((user.as_deref(), password.as_ref().map(Masked::expose)), (Some("ann"), Some("p@ss")));
        assert!(*database == 3 && tls.is_none());
        let words = settings.servers.access.hello();
        assert_eq!(words, [&b"HELLO"[..], b"3", b"AUTH", b"ann", b"p@ss", b"SETNAME", b"fanfare-bus"]);
    }

    #[test]
    fn what_is_left_out_is_as_usual() {
        let settings = read("redis://[::1]");
        assert_eq!(settings.servers.seeds, [Address { host: "::1".into(), port: 6379 }]);
        assert_eq!(settings.servers.access.hello().len(), 4);
        assert_eq!(read("redis://:pass@h").servers.access.hello()[2..5], [&b"AUTH"[..], b"default", b"pass"]);
        assert_eq!(read("redis://:@h").servers.access.hello().len(), 4);
        for url in ["redis://ann:@h", "redis://ann@h"] {
            assert_eq!(read(url).servers.access.hello()[2..5], [&b"AUTH"[..], b"ann", b""]);
        }
        let ports: Vec<u16> =
            read("redis://a,valkey://b:1, redis://c").servers.seeds.iter().map(|it| it.port).collect();
        assert_eq!(ports, [6379, 1, 6379]);
    }

    #[test]
    fn sentinels_watch_a_master_of_a_name() {
        let settings = of("rediss://:pass@My_Master/2", "redis://:other@s1,rediss://s2:1");
        let settings = Settings::read(&settings).expect("settings that make sense");
        let Watch { master, sentinels } = settings.watch.expect("Sentinels");
        assert_eq!(master, "My_Master");
        let [(first, access), (second, secured)] = &sentinels[..] else { panic!("{sentinels:?}") };
        assert_eq!((first.to_string(), second.to_string()), ("s1:26379".into(), "s2:1".into()));
        assert_eq!(access.password.as_ref().map(Masked::expose), Some("other"));
        assert!(access.tls.is_none() && secured.tls.is_some() && settings.servers.access.tls.is_some());
        assert_eq!(secured.hello().len(), 4, "no password of others");
    }

    #[test]
    fn what_is_wrong_is_said_without_secrets() {
        let check = |url: &str, part: &str| refused(&of(url, ""), ["redis.url: ", part]);
        check("", "expected redis://");
        check("127.0.0.1:6379", "expected redis://");
        check("http://h", "expected redis://");
        check("redis://", "expected redis://");
        check("redis://:s3cr3t/x@h", "written %40");
        check("redis://s3cr3t/x@h", "written %40");
        check("redis://:a,s3cr3t@h", "%2C");
        check("redis://s3cr3t?x@h", "%3F");
        check("redis://:s3cr3t@h#x", "tls_ca_file");
        check("rediss://h/#insecure", "always checked");
        check("redis://h/-1", "expected redis://");
        check("redis://h/s3cr3t", "expected redis://");
        check("unix:///run/redis.sock", "socket file");
        check("redis://a,rediss://b", "all redis:// or all rediss://");
        check("redis://:s3cr3t@a,redis://b", "the same user and password");
        check("redis://a/1,redis://b/1", "no numbered databases");
        refused(&of("redis://a,redis://b", "redis://s"), ["redis.url: with redis.sentinels", "one address"]);
        refused(&of("redis://m", "s3cr3t"), ["redis.sentinels: ", "expected redis://"]);
        refused(&of("redis://m", "redis://s/1"), ["redis.sentinels: ", "no numbered databases"]);
        let needless = Redis { tls_ca_file: "/ca".into(), ..of("redis://h", "") };
        refused(&needless, ["redis.tls_ca_file is set", "rediss:// is TLS"]);
    }

    #[test]
    fn files_have_to_be_what_they_are_named_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            write(folder.path().join(name), text).expect("written");
            folder.path().join(name).display().to_string()
        };
        let made = || generate_simple_self_signed(["redis".to_owned()]).expect("a certificate");
        let (one, other) = (made(), made());
        let (cert, key) = (file("cert", &one.cert.pem()), file("key", &one.signing_key.serialize_pem()));
        let (foreign, empty) = (file("foreign", &other.signing_key.serialize_pem()), file("empty", ""));
        let of = |ca: &str, cert: &str, key: &str| Redis {
            tls_ca_file: ca.into(),
            tls_cert_file: cert.into(),
            tls_key_file: key.into(),
            ..of("rediss://:s3cr3t@h", "")
        };
        Settings::read(&of(&cert, &cert, &key)).expect("settings that make sense");
        Settings::read(&of("", "", "")).expect("settings that make sense");
        refused(&of("/nowhere", "", ""), ["redis.tls_ca_file: /nowhere cannot be read", "No such file"]);
        refused(&of(&empty, "", ""), ["redis.tls_ca_file: ", "has no certificate in it"]);
        refused(&of("", &key, &key), ["redis.tls_cert_file: ", "has no certificate in it"]);
        refused(&of("", &cert, &cert), ["redis.tls_key_file: ", "has no private key in it"]);
        refused(&of("", &cert, &foreign), ["redis.tls_key_file: ", "does not go with redis.tls_cert_file"]);
        refused(&of("", &cert, ""), ["redis.tls_cert_file and redis.tls_key_file", "both"]);
    }
}
