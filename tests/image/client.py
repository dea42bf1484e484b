"""What a browser and a backend say, in as few lines as the tests need."""

import base64
import hashlib
import hmac
import json
import os
import time


class Subscriber:
    """A WebSocket connection that has subscribed to one channel."""

    def __init__(self, stream, key, channel):
        self.stream = stream
        self.incoming = stream.makefile("rb")
        nonce = base64.b64encode(os.urandom(16)).decode()
        stream.sendall(
            f"GET /app/{key}?protocol=7 HTTP/1.1\r\nHost: fanfare\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\n\r\n".encode()
        )
        status = self.incoming.readline()
        assert b" 101 " in status, status
        while self.incoming.readline() != b"\r\n":
            pass
        self.expect("pusher:connection_established")
        self._send(json.dumps({"event": "pusher:subscribe", "data": {"channel": channel}}).encode())
        self.expect("pusher_internal:subscription_succeeded")

    def close(self):
        """Goes without a word."""
        self.incoming.close()
        self.stream.close()

    def _send(self, text):
        assert len(text) < 126
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(text))
        self.stream.sendall(bytes([0x81, 0x80 | len(text)]) + mask + masked)

    def _frame(self):
        first, length = self.incoming.read(2)
        if length == 126:
            length = int.from_bytes(self.incoming.read(2), "big")
        return first & 0x0F, self.incoming.read(length)

    def expect(self, event):
        """The data of the next message, which must be this event."""
        kind, payload = self._frame()
        message = json.loads(payload) if kind == 1 else payload
        assert kind == 1 and message["event"] == event, (kind, message)
        data = message["data"]
        return json.loads(data) if isinstance(data, str) else data

    def expect_close(self):
        """The code of the close frame, which must be next."""
        kind, payload = self._frame()
        assert kind == 8, (kind, payload)
        return int.from_bytes(payload[:2], "big")


def publish(stream, app, key, secret, channel, event, data):
    """Publishes as a server SDK does; gives the status."""
    body = json.dumps({"name": event, "channels": [channel], "data": json.dumps(data)})
    path = f"/apps/{app}/events"
    query = (
        f"auth_key={key}&auth_timestamp={int(time.time())}&auth_version=1.0"
        f"&body_md5={hashlib.md5(body.encode()).hexdigest()}"
    )
    signature = hmac.new(secret.encode(), f"POST\n{path}\n{query}".encode(), hashlib.sha256).hexdigest()
    stream.sendall(
        f"POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: fanfare\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return int(stream.makefile("rb").readline().split()[1])
