//! Certificates as a client sees them: whether it would believe them, and if not, what to do.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::cli::doctor::report::Finding;
use crate::tls::Facts;

/// Less than this before its end, a certificate should have been renewed.
const RENEW_DAYS: i64 = 14;

const DAY: i64 = 86_400;

/// Believes what this machine believes, and remembers what it was shown.
#[derive(Debug)]
pub(super) struct Judge {
    verifier: Arc<WebPkiServerVerifier>,
    /// Asked at home, under another name than the public one: name and issuer are judged elsewhere.
    is_home: bool,
    shown: ArcSwapOption<Vec<CertificateDer<'static>>>,
}

impl Judge {
    /// With the authorities of this machine.
    ///
    /// # Errors
    /// When there are none.
    pub(super) fn new(is_home: bool) -> Result<Arc<Self>, Finding> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
        let verifier = verifier.build().map_err(|error| {
            Finding::failed(
                format!("this machine trusts no authority, so no certificate can be judged: {error}"),
                "install ca-certificates, or name a file of authorities in SSL_CERT_FILE, where this command runs",
            )
        })?;
        Ok(Arc::new(Self { verifier, is_home, shown: ArcSwapOption::empty() }))
    }

    /// TLS as a client speaks it, with certificates judged here.
    pub(super) fn client(self: &Arc<Self>) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        Ok(builder
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(self) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth())
    }

    /// What the last server has shown: its own certificate first.
    pub(super) fn shown(&self) -> Arc<Vec<CertificateDer<'static>>> {
        self.shown.load_full().unwrap_or_default()
    }

    /// What is to be said of a chain of certificates that was asked for under no name.
    fn of_file(&self, chain: &[CertificateDer<'static>]) -> Result<(), Error> {
        let Some((first, others)) = chain.split_first() else { return Ok(()) };
        let Ok(nobody) = ServerName::try_from("localhost") else { return Ok(()) };
        match self.verifier.verify_server_cert(first, others, &nobody, &[], UnixTime::now()) {
            Ok(_) => Ok(()),
            Err(error) if is_other_name(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn is_other_name(error: &Error) -> bool {
    use CertificateError::{NotValidForName, NotValidForNameContext};
    matches!(error, Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }))
}

fn is_unknown(error: &Error) -> bool {
    match error {
        // The latter comes of an authority that is called as one that is trusted.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => true,
        Error::InvalidCertificate(CertificateError::Other(_)) => {
            error.to_string().contains("CaUsedAsEndEntity")
        }
        _ => false,
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let all = std::iter::once(end_entity).chain(intermediates).map(|one| one.clone().into_owned());
        self.shown.store(Some(Arc::new(all.collect())));
        match self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(error) if self.is_home && (is_other_name(&error) || is_unknown(&error)) => {
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// What is wrong with certificates that were shown, and what to do. None if something else is wrong.
pub(super) fn judged(error: &Error, chain: &[CertificateDer<'_>]) -> Option<Finding> {
    use CertificateError as Bad;
    let facts = chain.first().and_then(|first| Facts::read(first));
    let Error::InvalidCertificate(bad) = error else { return None };
    Some(match bad {
        Bad::Expired | Bad::ExpiredContext { .. } => {
            let since = facts.map_or_else(String::new, |facts| format!(" {}", days_ago(now() - facts.end)));
            Finding::failed(
                format!("the certificate has expired{since}: every client refuses it"),
                "renew it where TLS ends, and have that proxy or server load the new one: a renewed file that was \
                 not loaded again is the usual cause",
            )
        }
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => Finding::failed(
            "the certificate is not valid yet",
            "set the clock of this machine if it is wrong; otherwise use the certificate that is valid now",
        ),
        Bad::NotValidForNameContext { expected, presented } => Finding::failed(
            format!("the certificate is not for {}, but for {}", expected.to_str(), names(presented)),
            "connect under a name that is on the certificate, or get one that has this name; a proxy that serves \
             several sites shows its default certificate if it does not know the name",
        ),
        Bad::NotValidForName => Finding::failed(
            "the certificate is for another name",
            "connect under a name that is on the certificate, or get one that has this name",
        ),
        _ if is_unknown(error) => unknown(chain, facts),
        Bad::Revoked => Finding::failed("the certificate was revoked", "get a new one and use it"),
        other => Finding::failed(
            format!("the certificate cannot be used: {other}"),
            "get one from an authority that clients trust, for a server, with a key of today (RSA 2048, ECDSA P-256)",
        ),
    })
}

/// Nobody whom this machine trusts has signed it.
fn unknown(chain: &[CertificateDer<'_>], facts: Option<Facts<'_>>) -> Finding {
    let own = "clients refuse it unless each of them has its authority: for the public, get one from a public \
               authority (Let's Encrypt is free)";
    let Some(facts) = facts else {
        return Finding::failed("the certificate cannot be read", "get a new one and use it");
    };
    let issuer = facts.issuer().unwrap_or_else(|| "an authority without a name".to_owned());
    match chain.len() {
        1 if facts.is_self_signed() => Finding::failed("the certificate is self-signed", own),
        1 if facts.has_public_issuer() => Finding::failed(
            format!(
                "an intermediate certificate is missing: the server shows its own alone, signed by {issuer}"
            ),
            "use the file with the whole chain, such as fullchain.pem instead of cert.pem; browsers may hide this, \
             since they remember intermediates of other sites",
        ),
        1 => Finding::failed(
            format!("the certificate comes alone, signed by {issuer}, whom this machine does not know"),
            format!(
                "if {issuer} is an intermediate, use the file with the whole chain (fullchain.pem); otherwise {own}"
            ),
        ),
        _ => {
            let last = chain.last().and_then(|last| Facts::read(last));
            let root = last.and_then(|last| last.issuer()).unwrap_or(issuer);
            Finding::failed(
                format!("the chain of certificates ends at {root}, whom this machine does not trust"),
                own,
            )
        }
    }
}

/// What is said of a certificate that is believed.
pub(super) fn validity(chain: &[CertificateDer<'_>]) -> Finding {
    let Some(facts) = chain.first().and_then(|first| Facts::read(first)) else {
        return Finding::ok("a certificate that clients believe");
    };
    let left = (facts.end - now()) / DAY;
    let issuer = facts.issuer().map_or_else(String::new, |issuer| format!(" by {issuer}"));
    let detail = format!("a certificate{issuer} that is valid for {left} more days");
    if left < RENEW_DAYS {
        return Finding::warning(
            detail,
            "see why it was not renewed: nobody can connect once it has expired",
        );
    }
    Finding::ok(detail)
}

/// The certificate of the configuration, which has been read once already.
pub(super) fn of_file(file: &str) -> Finding {
    let chain: Option<Vec<CertificateDer<'static>>> =
        CertificateDer::pem_file_iter(file).ok().and_then(|all| all.collect::<Result<_, _>>().ok());
    let chain = chain.unwrap_or_default();
    if let Some(facts) = chain.first().and_then(|first| Facts::read(first)) {
        // Also where no authority is known.
        let bad = match now() {
            now if now > facts.end => Some(CertificateError::Expired),
            now if now < facts.begin => Some(CertificateError::NotValidYet),
            _ => None,
        };
        if let Some(finding) = bad.and_then(|bad| judged(&Error::InvalidCertificate(bad), &chain)) {
            return named(finding, file);
        }
    }
    let judge = match Judge::new(true) {
        Ok(judge) => judge,
        Err(finding) => return named(finding.softened(), file),
    };
    let finding = match judge.of_file(&chain) {
        Ok(()) => validity(&chain),
        // An authority of one's own is fine where all clients know it.
        Err(error) => judged(&error, &chain).map_or_else(|| validity(&chain), Finding::softened),
    };
    named(finding, file)
}

fn named(finding: Finding, file: &str) -> Finding {
    Finding { detail: format!("{file}: {}", finding.detail), ..finding }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs().cast_signed())
}

fn days_ago(seconds: i64) -> String {
    match seconds / DAY {
        0 => "today".to_owned(),
        1 => "one day ago".to_owned(),
        days => format!("{days} days ago"),
    }
}

/// The names on a certificate, as rustls writes them: `DnsName("a.example")`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inside = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest.trim_end_matches(')'));
        inside.trim_matches('"').to_owned()
    };
    match presented {
        [] => "no name at all".to_owned(),
        names => names.iter().take(5).map(bare).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    fn unknown_of(chain: &[CertificateDer<'_>]) -> Finding {
        judged(&Error::InvalidCertificate(CertificateError::UnknownIssuer), chain).expect("of certificates")
    }

    #[test]
    fn a_stranger_is_told_from_a_chain_that_is_not_whole() {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Acme R3");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        let authority = authority.expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let params = || CertificateParams::new(vec!["a.example".to_owned()]).expect("parameters");
        let signed = params().signed_by(&key, &authority).expect("a certificate").der().clone();
        let own = params().self_signed(&key).expect("a certificate").der().clone();
        assert_eq!(unknown_of(&[own]).detail, "the certificate is self-signed");
        let alone = unknown_of(std::slice::from_ref(&signed));
        assert!(alone.detail.contains("comes alone, signed by Acme R3"), "{alone:?}");
        let whole = unknown_of(&[signed, authority.der().clone()]);
        assert!(whole.detail.contains("ends at Acme R3"), "{whole:?}");
        let mut public = params();
        // The extension that public authorities put in: where their own certificate can be had.
        let mut access = vec![0x30, 0x10, 0x30, 0x0e, 0x06, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 2];
        access.extend([0x86, 2, b'x', b':']);
        let extension = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access);
        public.custom_extensions.push(extension);
        let public = public.signed_by(&key, &authority).expect("a certificate").der().clone();
        let missing = unknown_of(&[public]);
        assert!(missing.detail.contains("an intermediate certificate is missing"), "{missing:?}");
        assert!(missing.remedy.is_some_and(|remedy| remedy.contains("fullchain.pem")));
    }

    #[test]
    fn names_are_read_from_what_rustls_says() {
        assert_eq!(names(&["DnsName(\"a.example\")".to_owned(), "b".to_owned()]), "a.example, b");
        assert_eq!(names(&[]), "no name at all");
    }
}
