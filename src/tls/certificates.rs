//! Certificate and key: read from files, checked, and read again without anybody noticing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use prometheus::IntGauge;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, SupportedProtocolVersion};
use thiserror::Error;

use crate::config::{Tls, TlsVersion};
use crate::metrics::DoorMetrics;
use crate::tls::validity::validity;

/// Why certificate and key cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file that is not there, or not for us.
    #[error("{setting}: {file} cannot be read: {source}")]
    Unreadable {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file has something else in it.
    #[error("tls.certificate: {0} has no certificate in it: expected PEM, -----BEGIN CERTIFICATE-----")]
    NoCertificate(PathBuf),
    /// The file has something else in it.
    #[error(
        "tls.key: {0} has no private key in it: expected PEM, -----BEGIN PRIVATE KEY-----, without a passphrase"
    )]
    NoKey(PathBuf),
    /// Each is fine, and they have nothing to do with each other.
    #[error("tls.key: {key} does not belong to the first certificate in {certificate}")]
    Strangers {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Something in them is broken, or of a kind that is not served.
    #[error("tls.certificate and tls.key: {certificate} with {key} cannot be used: {source}")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
}

/// What the server shows to new connections.
#[derive(Debug)]
pub struct Certificates {
    files: Files,
    now: ArcSwap<ServerConfig>,
    expiry: IntGauge,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    min_version: TlsVersion,
}

impl Certificates {
    /// Reads and checks certificate and key; none if the settings name none.
    ///
    /// # Errors
    /// When they cannot be used. One that is not valid now is only warned of: the clock may be wrong.
    pub fn load(settings: &Tls, metrics: &DoorMetrics) -> Result<Option<Self>, TlsError> {
        if settings.certificate.is_empty() {
            return Ok(None);
        }
        let files = Files {
            certificate: PathBuf::from(&settings.certificate),
            key: PathBuf::from(&settings.key),
            min_version: settings.min_version,
        };
        let expiry = metrics.certificate_expiry.clone();
        let (config, valid) = files.read()?;
        tell(&files, valid, &expiry);
        Ok(Some(Self { files, now: ArcSwap::from_pointee(config), expiry }))
    }

    /// Reads the files again. Connections go on with what they have begun with, new ones get the new certificate.
    ///
    /// # Errors
    /// When the files cannot be used: those before stay in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let (config, valid) = self.files.read()?;
        tell(&self.files, valid, &self.expiry);
        self.now.store(Arc::new(config));
        Ok(())
    }

    /// The files to look after.
    pub fn files(&self) -> [&Path; 2] {
        [&self.files.certificate, &self.files.key]
    }

    /// How a connection that comes now is served.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.now.load_full()
    }
}

/// Says until when the first certificate is valid.
fn tell(files: &Files, valid: Option<(i64, i64)>, expiry: &IntGauge) {
    let Some((begin, end)) = valid else { return };
    expiry.set(end);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs().cast_signed());
    let file = files.certificate.display();
    if end < now {
        tracing::warn!(%file, days = (now - end) / 86_400, "the certificate has expired: clients will refuse it");
    } else if now < begin {
        tracing::warn!(%file, days = (begin - now) / 86_400, "the certificate is not valid yet");
    } else {
        tracing::info!(%file, days_left = (end - now) / 86_400, "certificate in use");
    }
}

impl Files {
    /// The settings of new connections, and from when until when the first certificate is valid.
    fn read(&self) -> Result<(ServerConfig, Option<(i64, i64)>), TlsError> {
        let chain: Vec<CertificateDer<'static>> = read("tls.certificate", &self.certificate, |pem| {
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()
        })?
        .filter(|chain: &Vec<_>| !chain.is_empty())
        .ok_or_else(|| TlsError::NoCertificate(self.certificate.clone()))?;
        let key = read("tls.key", &self.key, |pem| PrivateKeyDer::from_pem_slice(pem).ok())?
            .ok_or_else(|| TlsError::NoKey(self.key.clone()))?;
        let valid = chain.first().and_then(|certificate| validity(certificate));
        let config = config(chain, key, self.min_version).map_err(|source| {
            let (certificate, key) = (self.certificate.clone(), self.key.clone());
            match source {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    TlsError::Strangers { certificate, key }
                }
                source => TlsError::Unusable { certificate, key, source },
            }
        })?;
        Ok((config, valid))
    }
}

fn read<T>(
    setting: &'static str,
    file: &Path,
    parse: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<Option<T>, TlsError> {
    let pem =
        fs::read(file).map_err(|source| TlsError::Unreadable { setting, file: file.to_owned(), source })?;
    Ok(parse(&pem))
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    min_version: TlsVersion,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[&SupportedProtocolVersion] = match min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let provider = Arc::new(default_provider());
    let certified = CertifiedKey::from_der(chain, key, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A client that comes back brings its session itself, sealed with a key of this configuration: nothing is kept
    // for it here, and a session made with an old certificate ends with that certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::fs::write;

    use rcgen::generate_simple_self_signed;
    use tempfile::TempDir;

    use super::*;
    use crate::metrics::Metrics;

    fn pem() -> (String, String) {
        let made = generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn load(certificate: &str, key: &str) -> Result<(TempDir, Certificates), String> {
        let folder = tempfile::tempdir().expect("a folder");
        let place = |name: &str| folder.path().join(name).display().to_string();
        let settings = Tls { certificate: place("chain"), key: place("key"), ..Tls::default() };
        write(&settings.certificate, certificate).expect("written");
        write(&settings.key, key).expect("written");
        match Certificates::load(&settings, &Metrics::new().doors) {
            Ok(certificates) => Ok((folder, certificates.expect("settings name some"))),
            Err(error) => Err(error.to_string().replace(&folder.path().display().to_string(), "")),
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let (certificate, key) = pem();
        let (other, _) = pem();
        let check = |certificate: &str, key: &str, part: &str| {
            let said = load(certificate, key).map(|_| ()).expect_err("a problem");
            assert!(said.contains(part), "{said}");
        };
        check("", &key, "/chain has no certificate in it");
        check(&key, &key, "/chain has no certificate in it");
        check(&certificate, "", "/key has no private key in it");
        check(&certificate, &certificate, "/key has no private key in it");
        check(&other, &key, "/key does not belong to the first certificate in /chain");
        load(&certificate, &key).expect("a pair");
        let gone = Tls { certificate: "/nowhere/c".into(), key: "/nowhere/k".into(), ..Tls::default() };
        let said = Certificates::load(&gone, &Metrics::new().doors).expect_err("no file").to_string();
        assert!(said.starts_with("tls.certificate: /nowhere/c cannot be read"), "{said}");
    }

    #[test]
    fn wrong_files_leave_the_old_ones_in_use() {
        let (certificate, key) = pem();
        let (folder, certificates) = load(&certificate, &key).expect("a pair");
        let before = certificates.config();
        write(folder.path().join("key"), "nothing").expect("written");
        certificates.reload().expect_err("no key");
        assert!(Arc::ptr_eq(&before, &certificates.config()));
        write(folder.path().join("key"), key).expect("written");
        certificates.reload().expect("a pair again");
        assert!(!Arc::ptr_eq(&before, &certificates.config()));
    }
}
