"""Pysher as an application uses it, with everything it hears in one queue.

Channels are joined inside the `pusher:connection_established` callback, as its documentation shows: Pysher
reads no further frame until the callback returns, so the event callbacks are in place before anything comes.
"""

import json
import queue
from typing import NamedTuple, Optional

import pysher

from broker import DEADLINE_S, KEY, SECRET

INTERNAL = ("subscription_succeeded", "member_added", "member_removed", "subscription_count")


class Heard(NamedTuple):
    event: str
    channel: Optional[str]
    data: object


class PysherClient:
    """`joins` maps channels to the events to listen for, besides those the broker itself sends."""

    def __init__(self, broker, joins=None, key=KEY, secret=SECRET, joins_once=False, connection_events=(), **options):
        self._joins = joins or {}
        self._joins_once = joins_once
        self._heard = queue.Queue()
        self.pusher = pysher.Pusher(
            key,
            secure=False,
            secret=secret,
            custom_host="127.0.0.1",
            port=broker.port,
            reconnect_interval=0.1,
            **options,
        )
        connection = self.pusher.connection
        connection.bind("pusher:connection_established", self._established)
        for event in ("pusher:error", *connection_events):
            connection.bind(event, self._note, event, None)
        self.pusher.connect()

    @property
    def socket_id(self):
        return self.pusher.connection.socket_id

    def next(self):
        """The next thing the application was told; fails when nothing comes in time."""
        try:
            return self._heard.get(timeout=DEADLINE_S)
        except queue.Empty:
            raise AssertionError(f"Pysher heard nothing more; its state is {self.pusher.connection.state}") from None

    def established(self):
        """Waits for a connection and returns its socket id."""
        heard = self.next()
        assert heard.event == "pusher:connection_established", heard
        return json.loads(heard.data)["socket_id"]

    def joined(self, channel):
        """Waits for the subscription to `channel` and returns what the broker said about it."""
        heard = self.next()
        assert (heard.event, heard.channel) == ("pusher_internal:subscription_succeeded", channel), heard
        return json.loads(heard.data)

    def ended(self):
        """Whether Pysher has given up: its thread ends only then."""
        self.pusher.connection.join(DEADLINE_S)
        return not self.pusher.connection.is_alive()

    def disconnect(self):
        # No waiting for Pysher's thread: it may sit in select() on the closed socket, up to 100 seconds.
        self.pusher.disconnect(timeout=0)

    def _established(self, data):
        self._note(data, "pusher:connection_established", None)
        joins = self._joins
        if self._joins_once:
            self._joins = {}
        for channel, events in joins.items():
            joined = self.pusher.subscribe(channel)
            for event in (*(f"pusher_internal:{name}" for name in INTERNAL), "pusher:subscription_error", *events):
                joined.bind(event, self._note, event, channel)

    def _note(self, data, event, channel):
        self._heard.put(Heard(event, channel, data))
