//! The bytes below HTTP and WebSockets, with or without TLS.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rcgen::generate_simple_self_signed;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;

use super::DEADLINE;

/// A stream that goes on after an interruption. With a deadline on the socket the kernel reports one whenever
/// the whole machine was halted for a moment, and the WebSocket library gives up on it.
pub(crate) struct Steady(TcpStream);

impl Steady {
    fn steadily<T>(&mut self, mut call: impl FnMut(&mut TcpStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            match call(&mut self.0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl Read for Steady {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.steadily(|stream| stream.read(into))
    }
}

impl Write for Steady {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.steadily(|stream| stream.write(from))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A connection to a broker.
pub(crate) enum Wire {
    Plain(Steady),
    Tls(Box<StreamOwned<ClientConnection, Steady>>),
}

impl Wire {
    /// Connects; TLS is spoken if a client of it is given.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Self {
        Self::over(TcpStream::connect(address).expect("the broker accepts connections"), tls)
    }

    #[track_caller]
    pub(crate) fn over(stream: TcpStream, tls: Option<&Arc<ClientConfig>>) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).expect("a read deadline");
        stream.set_write_timeout(Some(DEADLINE)).expect("a write deadline");
        stream.set_nodelay(true).expect("no delay");
        match tls {
            None => Self::Plain(Steady(stream)),
            Some(config) => Self::Tls(Box::new(StreamOwned::new(handshake(config), Steady(stream)))),
        }
    }

    /// The socket below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => &stream.0,
            Self::Tls(stream) => &stream.sock.0,
        }
    }

    /// What is known of the connection's TLS. The handshake may not be over.
    #[track_caller]
    pub(crate) fn tls(&self) -> &ClientConnection {
        match self {
            Self::Plain(_) => panic!("a connection without TLS"),
            Self::Tls(stream) => &stream.conn,
        }
    }

    /// Says goodbye.
    pub(crate) fn end_tls(&mut self) {
        if let Self::Tls(stream) = self {
            stream.conn.send_close_notify();
            stream.flush().expect("an open connection");
        }
    }

    /// Whether the broker has ended the connection, or does so within `time`.
    pub(crate) fn has_ended(&mut self, time: Duration) -> bool {
        self.tcp().set_read_timeout(Some(time)).expect("a read deadline");
        match self.read(&mut [0; 4096]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Does the handshake of TLS.
    pub(crate) fn shake_hands(&mut self) -> io::Result<()> {
        let Self::Tls(stream) = self else { return Ok(()) };
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(())
    }
}

/// A client's side before its first word.
pub(crate) fn handshake(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::clone(config), name).expect("a client")
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(from),
            Self::Tls(stream) => stream.write(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A broker's certificate and key, in files.
pub(crate) struct Identity {
    folder: TempDir,
    der: CertificateDer<'static>,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for certificates");
        let der = CertificateDer::from(Vec::new());
        let mut identity = Self { folder, der };
        identity.renew();
        identity
    }

    /// Puts another certificate into the files.
    pub(crate) fn renew(&mut self) {
        let made = generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        fs::write(self.certificate(), made.cert.pem()).expect("a certificate file");
        fs::write(self.key(), made.signing_key.serialize_pem()).expect("a key file");
        self.der = made.cert.der().clone();
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("chain.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// The settings that name the files.
    pub(crate) fn settings(&self) -> String {
        let (certificate, key) = (self.certificate(), self.key());
        format!("tls.certificate = {certificate:?}\ntls.key = {key:?}\n")
    }

    /// A client that trusts the certificate of now.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.client_of(&[&TLS12, &TLS13])
    }

    pub(crate) fn client_of(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(versions).expect("versions");
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }
}
