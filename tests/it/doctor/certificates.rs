//! TLS: certificates that clients would refuse, at the public address and in the configuration.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::{APP, Diagnosis, File};
use crate::support::{Broker, Identity};

/// A certificate for `localhost` with all that goes with it, as files.
struct Certificate {
    folder: TempDir,
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

impl Certificate {
    /// Signed by an intermediate, which is shown if `whole`.
    fn new(whole: bool, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root: Issuer = CertifiedIssuer::self_signed(authority("Acme Root"), key()).expect("a root");
        let between: Issuer =
            CertifiedIssuer::signed_by(authority("Acme R3"), key(), &root).expect("an intermediate");
        let own = key();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        change(&mut params);
        let certificate = params.signed_by(&own, &between).expect("a certificate");
        let rest = if whole { between.pem() } else { String::new() };
        let files = [
            ("chain.pem", format!("{}{rest}", certificate.pem())),
            ("key.pem", own.serialize_pem()),
            ("root.pem", root.pem()),
        ];
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        Self { folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self) -> String {
        let [chain, key] = ["chain.pem", "key.pem"].map(|name| self.file(name));
        format!("tls.certificate = {chain:?}\ntls.key = {key:?}\n")
    }
}

/// Looks at a broker at `host`, trusting the authorities of a file.
#[track_caller]
fn look(broker: &Broker, host: &str, trusted: &Path) -> Diagnosis {
    let roots = trusted.to_str().expect("UTF-8");
    let environment = [&APP[..], &[("SSL_CERT_FILE", roots)]].concat();
    let url = format!("https://{host}:{}", broker.address().port());
    Diagnosis::by(&environment, &["--url", &url, "--hold-s", "0"])
}

#[test]
fn a_certificate_that_clients_believe_is_no_obstacle() {
    let certificate = Certificate::new(true, |_| {});
    let broker = Broker::with(&certificate.settings());
    let diagnosis = look(&broker, "localhost", &certificate.file("root.pem"));
    diagnosis.expect_good();
    diagnosis.expect("tls", "ok", &["by Acme R3", "valid for"]);
}

#[test]
fn what_is_wrong_with_a_certificate_is_named() {
    type Change = fn(&mut CertificateParams);
    let cases: [(bool, Change, &str, &[&str]); 5] = [
        (
            true,
            |it| it.not_after = date_time_ymd(2020, 1, 1),
            "localhost",
            &["expired", "days ago", "renew it"],
        ),
        (true, |it| it.not_before = date_time_ymd(2090, 1, 1), "localhost", &["not valid yet", "clock"]),
        (true, |_| {}, "127.0.0.1", &["not for 127.0.0.1, but for localhost", "under a name that is on"]),
        (false, |_| {}, "localhost", &["comes alone, signed by Acme R3", "fullchain.pem"]),
        (true, |it| it.not_after = far(), "localhost", &[]),
    ];
    for (whole, change, host, parts) in cases {
        let certificate = Certificate::new(whole, change);
        let broker = Broker::with(&certificate.settings());
        let diagnosis = look(&broker, host, &certificate.file("root.pem"));
        match parts {
            [] => diagnosis.expect_good(),
            parts => {
                diagnosis.expect_failure("tls", parts);
                diagnosis.expect("http", "skipped", &[]);
            }
        }
    }
}

fn far() -> time::OffsetDateTime {
    date_time_ymd(2090, 1, 1)
}

#[test]
fn authorities_that_nobody_trusts_are_named() {
    let certificate = Certificate::new(true, |_| {});
    let other = Certificate::new(true, |_| {});
    let broker = Broker::with(&certificate.settings());
    let stranger = look(&broker, "localhost", &other.file("root.pem"));
    stranger.expect_failure("tls", &["ends at Acme Root", "whom this machine does not trust"]);
    let nobody = look(&broker, "localhost", Path::new("/nowhere/roots.pem"));
    nobody.expect_failure("tls", &["trusts no authority", "ca-certificates"]);

    let identity = Identity::new();
    let own = Broker::secure(&identity, "", "");
    look(&own, "localhost", &other.file("root.pem"))
        .expect_failure("tls", &["is self-signed", "Let's Encrypt"]);
}

#[test]
fn tls_and_no_tls_are_told_apart() {
    let certificate = Certificate::new(true, |_| {});
    let plain = Broker::start();
    look(&plain, "127.0.0.1", &certificate.file("root.pem")).expect_failure("tls", &["TLS", "http://"]);
    let secure = Broker::with(&certificate.settings());
    let url = format!("http://{}", secure.address());
    Diagnosis::of(&url, &[]).expect_failure("http", &["TLS is spoken at this port", "https://"]);
}

#[test]
fn the_certificate_of_the_configuration_is_looked_at_before_it_is_served() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let look = |certificate: &Certificate, roots: &str| {
        let file = File::new(&format!("server.bind = \"{free}\"\n{}", certificate.settings()));
        let roots = certificate.file(roots);
        let environment = [("SSL_CERT_FILE", roots.to_str().expect("UTF-8"))];
        Diagnosis::by(&environment, &["--config", file.path()])
    };
    let good = Certificate::new(true, |it| it.not_after = far());
    look(&good, "root.pem").expect("certificate", "ok", &["chain.pem", "by Acme R3"]);
    let partial = Certificate::new(false, |_| {});
    look(&partial, "root.pem").expect("certificate", "warning", &["comes alone", "fullchain.pem"]);
    let expired = Certificate::new(true, |it| it.not_after = date_time_ymd(2020, 1, 1));
    look(&expired, "root.pem").expect_failure("certificate", &["expired", "renew it"]);
    look(&expired, "nowhere").expect_failure("certificate", &["expired"]);
    std::fs::write(good.file("key.pem"), "nothing").expect("a file");
    let wrong = look(&good, "root.pem");
    assert_eq!(wrong.code, Some(3), "{wrong}");
    wrong.expect("configuration", "failed", &["tls.key", "has no private key"]);
}

#[test]
fn a_secure_server_is_asked_at_home_whatever_its_name_is() {
    let identity = Identity::new();
    let broker = Broker::secure(&identity, "", "");
    let file = File::new(&format!("server.bind = \"{}\"\n{}", broker.address(), identity.settings()));
    let diagnosis = file.diagnosis(&[]);
    diagnosis.expect_good();
    diagnosis.expect("tls", "ok", &["judged above"]);
    diagnosis.expect("certificate", "warning", &[]);
}
