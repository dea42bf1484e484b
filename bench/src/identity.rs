//! A certificate for servers that speak TLS, and a client that trusts it.

use std::error::Error;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::generate_simple_self_signed;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tempfile::TempDir;

/// Certificate and key, in files that go with it.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    folder: Arc<TempDir>,
    client: Arc<ClientConfig>,
}

impl Identity {
    pub(crate) fn new() -> io::Result<Self> {
        let folder = Arc::new(tempfile::tempdir()?);
        Ok(Self { client: Self::made(&folder).map_err(io::Error::other)?, folder })
    }

    fn made(folder: &TempDir) -> Result<Arc<ClientConfig>, Box<dyn Error + Send + Sync>> {
        let made = generate_simple_self_signed(["localhost".to_owned()])?;
        fs::write(folder.path().join("chain.pem"), made.cert.pem())?;
        fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let client = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let client = client.with_safe_default_protocol_versions()?;
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        // Every client comes for the first time.
        client.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(client))
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("chain.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// A client before its first word.
    pub(crate) fn client(&self) -> io::Result<Box<ClientConnection>> {
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut client = ClientConnection::new(self.client.clone(), name).map_err(io::Error::other)?;
        client.set_buffer_limit(None);
        Ok(Box::new(client))
    }
}
