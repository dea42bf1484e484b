"""A WebSocket without a client library: every frame, in order, as it came."""

import json
import struct
from typing import NamedTuple, Optional

import websocket

from broker import DEADLINE_S, KEY


class Event(NamedTuple):
    event: str
    channel: Optional[str]
    data: object
    user_id: Optional[str] = None


class Closed(NamedTuple):
    code: int


class BareSocket:
    """A connection that has read its `pusher:connection_established`."""

    def __init__(self, broker, key=KEY, answers_pings=True):
        self._socket = websocket.create_connection(
            f"ws://127.0.0.1:{broker.port}/app/{key}?protocol=7&client=test&version=1",
            timeout=DEADLINE_S,
        )
        if not answers_pings:
            self._socket.pong = lambda payload=b"": None
        established = self.next()
        assert established.event == "pusher:connection_established", established
        self.socket_id = json.loads(established.data)["socket_id"]

    def next(self):
        """The next event, or `Closed`; fails when nothing comes in time."""
        opcode, frame = self._socket.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return Closed(struct.unpack("!H", frame[:2])[0])
        message = json.loads(frame)
        # What every client relies on (P14): string data except in errors, and never a null name.
        wanted = dict if message["event"] == "pusher:error" else str
        assert isinstance(message["data"], wanted), message
        assert all(isinstance(message[name], str) for name in ("channel", "user_id") if name in message), message
        return Event(message["event"], message.get("channel"), message["data"], message.get("user_id"))

    def say(self, event, data, **more):
        self._socket.send(json.dumps({"event": event, "data": data, **more}))

    def subscribe(self, channel, auth=None):
        """Subscribes, insists on success and returns what the broker said about the channel."""
        self.say("pusher:subscribe", {"channel": channel, **(auth or {})})
        succeeded = self.next()
        assert (succeeded.event, succeeded.channel) == ("pusher_internal:subscription_succeeded", channel), succeeded
        return json.loads(succeeded.data)

    def sign_in(self, auth):
        self.say("pusher:signin", auth)
        success = self.next()
        assert success.event == "pusher:signin_success", success
        return json.loads(success.data)

    def close(self):
        self._socket.close()
