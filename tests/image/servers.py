"""What a container finds in its network: a name server, and a server of TLS with an authority of its own."""

import contextlib
import socket
import ssl
import threading

from engine import run


class NameServer(threading.Thread):
    """Answers every question for an IPv4 address with 127.0.0.1, and knows nothing else."""

    ADDRESS = "127.0.0.53"

    def __init__(self, container):
        super().__init__(daemon=True)
        self.asked = []
        self.socket = container.inside(self._bound)
        self.start()

    def _bound(self):
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind((self.ADDRESS, 53))
        return bound

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                question, sender = self.socket.recvfrom(512)
                self.socket.sendto(self._answer(question), sender)

    def _answer(self, question):
        # The name is a row of labels with their lengths, from byte 12 to a length of 0; its type follows.
        end = question.index(0, 12)
        labels, at = [], 12
        while at < end:
            labels.append(question[at + 1 : at + 1 + question[at]].decode())
            at += 1 + question[at]
        is_ipv4 = question[end + 1 : end + 3] == b"\0\1"
        self.asked.append(".".join(labels))
        counts = b"\0\1" + (b"\0\1" if is_ipv4 else b"\0\0") + b"\0\0\0\0"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if is_ipv4 else b""
        return question[:2] + b"\x81\x80" + counts + question[12 : end + 5] + record


class TlsServer(threading.Thread):
    """Takes TLS connections to 127.0.0.1 and keeps how each of them went: None, or the reason it failed."""

    PORT = 6380

    def __init__(self, container, certificate, key):
        super().__init__(daemon=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.outcomes = []
        self.socket = container.inside(lambda: socket.create_server(("127.0.0.1", self.PORT)))
        self.start()

    def run(self):
        while True:
            stream, _ = self.socket.accept()
            with stream, contextlib.suppress(OSError):
                try:
                    with self.context.wrap_socket(stream, server_side=True) as session:
                        # In TLS 1.3 a client says what it thinks of our certificate after the handshake.
                        self.outcomes.append(None if session.recv(1) else "nothing was said")
                except ssl.SSLError as error:
                    self.outcomes.append(error.reason)


OPENSSL_CONFIG = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
[server]
basicConstraints = CA:FALSE
subjectAltName = IP:127.0.0.1
"""


def certificate(folder):
    """Makes an authority and a certificate of it for 127.0.0.1; gives the files: authority, certificate, key."""
    config = folder / "openssl.cnf"
    config.write_text(OPENSSL_CONFIG)
    command = ["openssl", "req", "-x509", "-config", config, "-days", "2", "-nodes", "-newkey", "ec"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1"]
    files = {name: folder / f"{name}.pem" for name in ("authority", "authority-key", "server", "server-key")}
    run(
        *(*command, "-extensions", "authority", "-subj", "/CN=authority of a test"),
        *("-out", files["authority"], "-keyout", files["authority-key"]),
    )
    run(
        *(*command, "-extensions", "server", "-subj", "/CN=server of a test"),
        *("-CA", files["authority"], "-CAkey", files["authority-key"]),
        *("-out", files["server"], "-keyout", files["server-key"]),
    )
    return files["authority"], files["server"], files["server-key"]
