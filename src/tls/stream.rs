//! A socket with or without TLS, for as long as HTTP is spoken on it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_rt::net::TcpStream;
use rustls::{PeerIncompatible, ProtocolVersion};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::tls::{Certificates, READ_LEAST, Session};

/// A client's socket.
pub enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// With TLS, after the handshake.
    Tls(Secured),
}

/// A socket with TLS.
pub struct Secured {
    io: TcpStream,
    session: Box<Session>,
    /// Decrypted, and not taken yet.
    early: Vec<u8>,
}

/// A socket after HTTP.
pub struct Line {
    /// The socket.
    pub io: TcpStream,
    /// Its TLS, if it has any.
    pub session: Option<Box<Session>>,
}

/// Why there is no TLS with a client.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// It speaks HTTP without TLS.
    #[error("plain HTTP on a port of TLS")]
    PlainHttp,
    /// Whatever it speaks.
    #[error("not TLS")]
    NotTls,
    /// It went before we were done.
    #[error("the client went")]
    Gone(#[from] io::Error),
    /// It and we do not agree.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl HandshakeError {
    /// What the metrics call it.
    pub const fn label(&self) -> &'static str {
        use PeerIncompatible::*;
        match self {
            Self::PlainHttp => "plain_http",
            Self::NotTls => "not_tls",
            Self::Gone(_) => "gone",
            Self::Tls(rustls::Error::PeerIncompatible(
                ServerDoesNotSupportTls12Or13
                | ServerTlsVersionIsDisabledByOurConfig
                | SupportedVersionsExtensionRequired
                | Tls12NotOffered
                | Tls12NotOfferedOrEnabled,
            )) => "version",
            Self::Tls(rustls::Error::PeerIncompatible(_)) => "parameters",
            Self::Tls(rustls::Error::NoApplicationProtocol) => "application_protocol",
            Self::Tls(rustls::Error::AlertReceived(_)) => "client_alert",
            Self::Tls(_) => "protocol",
        }
    }

    /// An error of a session may be one of rustls.
    fn from_io(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(error) => Self::Tls(error),
            Err(error) => Self::Gone(error),
        }
    }
}

/// The kind of a record that begins a handshake.
const HANDSHAKE: u8 = 22;

const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 51\r\nConnection: close\r\n\r\nThis port speaks TLS: use https:// and wss:// URLs\n";

impl Stream {
    /// Does the server's side of a handshake. How long it may take is for the caller to say.
    ///
    /// # Errors
    /// When there is none. The client has been told what can be told.
    pub async fn accept(mut io: TcpStream, certificates: &Certificates) -> Result<Self, HandshakeError> {
        let mut first = [0];
        match io.peek(&mut first).await? {
            0 => return Err(HandshakeError::Gone(io::ErrorKind::UnexpectedEof.into())),
            _ if first[0].is_ascii_uppercase() => {
                refuse_http(&mut io).await?;
                return Err(HandshakeError::PlainHttp);
            }
            _ if first[0] != HANDSHAKE => return Err(HandshakeError::NotTls),
            _ => {}
        }
        let session = Box::new(Session::new(certificates.config())?);
        let mut secured = Secured { io, session, early: Vec::new() };
        poll_fn(|cx| secured.poll_handshake(cx)).await.map_err(HandshakeError::from_io)?;
        Ok(Self::Tls(secured))
    }

    /// The version of TLS that is spoken; none without it.
    pub fn version(&self) -> Option<&'static str> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(secured) => match secured.session.version() {
                Some(ProtocolVersion::TLSv1_2) => Some("1.2"),
                _ => Some("1.3"),
            },
        }
    }

    /// The socket once HTTP is over, and what has been decrypted but not read.
    pub fn into_line(self) -> (Line, Vec<u8>) {
        match self {
            Self::Plain(io) => (Line { io, session: None }, Vec::new()),
            Self::Tls(Secured { io, session, early }) => (Line { io, session: Some(session) }, early),
        }
    }
}

/// Tells a client that has forgotten TLS.
async fn refuse_http(io: &mut TcpStream) -> io::Result<()> {
    io.write_all(PLAIN_HTTP).await?;
    io.shutdown().await?;
    // Ending with unread bytes would be a reset, which can overtake the answer.
    let mut rest = [0; 512];
    while io.read(&mut rest).await.is_ok_and(|count| count > 0) {}
    Ok(())
}

impl Secured {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; READ_LEAST];
        while self.session.is_handshaking() {
            match ready!(self.poll_once(cx, &mut scratch))? {
                Some(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Some(count) => self.early.extend_from_slice(&scratch[..count]),
                None => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once. None when what came was nothing whole.
    fn poll_once(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<Option<usize>>> {
        if self.session.has_ended() {
            return Poll::Ready(Ok(Some(0)));
        }
        // First what waits: a client that waits for the rest of a handshake sends nothing before it has it.
        let _ = self.poll_unsent(cx)?;
        ready!(self.io.poll_read_ready(cx))?;
        let read = self.session.read(into, |room| self.io.try_read(room));
        // What rustls has to answer, if only an alert. The next write or flush waits for it.
        let _ = self.poll_unsent(cx)?;
        Poll::Ready(match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            read => read.map(Some),
        })
    }

    /// Waits until the socket has taken everything.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.unsent() > 0 {
            ready!(self.io.poll_write_ready(cx))?;
            self.session.flush(|records| self.io.try_write(records))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            let mut scratch = [0; READ_LEAST];
            let count = loop {
                if let Some(count) = ready!(self.poll_once(cx, &mut scratch))? {
                    break count;
                }
            };
            let now = count.min(buf.remaining());
            buf.put_slice(&scratch[..now]);
            self.early.extend_from_slice(&scratch[now..count]);
            return Poll::Ready(Ok(()));
        }
        let now = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..now]);
        self.early.drain(..now);
        if self.early.is_empty() {
            self.early = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        Poll::Ready(self.session.write(&[IoSlice::new(buf)], |records| self.io.try_write(records)))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.close();
        ready!(self.poll_unsent(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(secured) => secured.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(secured) => secured.poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(secured) => secured.poll_unsent(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(secured) => secured.poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::thread;

    use rcgen::generate_simple_self_signed;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    use super::*;
    use crate::config::Tls;
    use crate::metrics::Metrics;

    /// Puts a new certificate into the files.
    fn renew(files: &Tls) -> CertificateDer<'static> {
        let made = generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(&files.certificate, made.cert.pem()).expect("written");
        std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("written");
        made.cert.der().clone()
    }

    fn client(
        listener: &TcpListener,
        trusted: &CertificateDer<'static>,
    ) -> StreamOwned<ClientConnection, std::net::TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let socket = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a client"), socket)
    }

    async fn accept(listener: &TcpListener, certificates: &Certificates) -> Stream {
        let (io, _) = listener.accept().expect("a client");
        io.set_nonblocking(true).expect("nonblocking");
        let io = TcpStream::from_std(io).expect("registered");
        Stream::accept(io, certificates).await.expect("a handshake")
    }

    /// Says hello from a thread, and reads the answer.
    fn talk(
        mut client: StreamOwned<ClientConnection, std::net::TcpStream>,
    ) -> thread::JoinHandle<StreamOwned<ClientConnection, std::net::TcpStream>> {
        use std::io::{Read, Write};
        thread::spawn(move || {
            client.write_all(b"hello").expect("written");
            let mut answer = [0; 5];
            client.read_exact(&mut answer).expect("an answer");
            assert_eq!(&answer, b"hello");
            client
        })
    }

    async fn echo(stream: &mut Stream) {
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.expect("a word");
        stream.write_all(&word).await.expect("written");
        stream.flush().await.expect("written");
    }

    #[test]
    fn a_renewed_certificate_is_for_new_connections_and_the_old_ones_live_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let files = Tls { certificate: path("chain.pem"), key: path("key.pem"), ..Tls::default() };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        actix_rt::System::new().block_on(async {
            let first = renew(&files);
            let metrics = Metrics::new();
            let certificates = Certificates::load(&files, &metrics.doors).expect("a pair").expect("named");
            let talking = talk(client(&listener, &first));
            let mut old = accept(&listener, &certificates).await;
            echo(&mut old).await;
            let old_client = talking.join().expect("an answer");

            let second = renew(&files);
            certificates.reload().expect("a pair");

            let talking = talk(client(&listener, &second));
            let mut new = accept(&listener, &certificates).await;
            echo(&mut new).await;
            let new_client = talking.join().expect("an answer");
            assert_eq!(new_client.conn.peer_certificates(), Some(&[second][..]));
            let talking = talk(old_client);
            echo(&mut old).await;
            let old_client = talking.join().expect("an answer");
            assert_eq!(old_client.conn.peer_certificates(), Some(&[first][..]));
        });
    }
}
