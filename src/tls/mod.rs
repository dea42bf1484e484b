//! TLS: certificates that can be renewed while the server runs, and connections that keep no buffer while idle.
//!
//! ```text
//!  socket ─ records ─▶ Session ─ plaintext ─▶ HTTP, then the worker
//! ```
//!
//! A [`Session`] is rustls without its buffers: records are read into the worker's own buffer and sealed ones go
//! straight to the socket, so a connection at rest has keys and nothing else. [`Stream`] is a socket with or without
//! it, for as long as HTTP is spoken.
//!
//! Not here: who waits how long (`guard`), WebSockets (`worker`).

mod certificates;
mod session;
mod stream;
mod validity;

pub use certificates::{Certificates, TlsError};
pub use session::{READ_LEAST, Session};
pub use stream::{HandshakeError, Line, Stream};
pub use validity::Facts;
