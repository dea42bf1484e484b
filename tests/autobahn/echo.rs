//! A WebSocket echo on the server's own frame codec, for the Autobahn fuzzing client.
//!
//! `ws_echo --listen 127.0.0.1:0` prints `listening on ws://ADDRESS` and serves until it is ended.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use actix_http::ws::hash_key;
use fanfare::protocol::websocket::{self, Decoder, Incoming};

/// The suite sends messages of up to 16 MiB.
const MESSAGE_MAX: usize = 32 * 1024 * 1024;

fn main() -> io::Result<()> {
    let address = std::env::args().skip_while(|arg| arg != "--listen").nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0"))?;
    println!("listening on ws://{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || serve(stream));
    }
    Ok(())
}

fn serve(stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let key = read_key(&mut reader)?;
    let mut out = stream;
    out.set_nodelay(true)?;
    out.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")?;
    out.write_all(&[b"Sec-WebSocket-Accept: ", &hash_key(key.as_bytes())[..], b"\r\n\r\n"].concat())?;
    echo(&mut reader, &mut out)?;
    // As the server does: end our side and wait for the client's, since a reset could overtake the close.
    out.shutdown(Shutdown::Write)?;
    io::copy(&mut reader, &mut io::sink())?;
    Ok(())
}

fn read_key(reader: &mut impl BufRead) -> io::Result<String> {
    let mut key = String::new();
    for line in reader.lines() {
        let line = line?;
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("sec-websocket-key") => key = value.to_owned(),
            None if line.is_empty() => break,
            _ => {}
        }
    }
    Ok(key)
}

fn echo(reader: &mut impl Read, out: &mut impl Write) -> io::Result<()> {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let mut input = &mut buffer[..count];
        loop {
            match decoder.next(&mut input, MESSAGE_MAX) {
                Ok(None) => break,
                Ok(Some(Incoming::Text(text))) => {
                    out.write_all(&websocket::message(text.as_bytes(), false))?
                }
                Ok(Some(Incoming::Binary(bytes))) => out.write_all(&websocket::message(bytes, true))?,
                Ok(Some(Incoming::Ping(payload))) => out.write_all(&websocket::pong(payload))?,
                Ok(Some(Incoming::Pong)) => {}
                Ok(Some(Incoming::Close(code))) => return out.write_all(&websocket::close(code, "")),
                Err(violation) => {
                    return out.write_all(&websocket::close(Some(violation.code()), &violation.to_string()));
                }
            }
        }
    }
}
