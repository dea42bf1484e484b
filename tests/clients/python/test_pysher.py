"""Pysher, the WebSocket client for Python: what an application built on it sees."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

import pytest

from bare_socket import BareSocket, Closed, Event
from broker import DEADLINE_S
from conftest import sdk_for
from pysher_client import Heard, PysherClient


@pytest.fixture
def pysher(broker):
    """Starts Pysher clients of the broker of the test."""
    clients = []

    def start(joins=None, **settings):
        clients.append(PysherClient(settings.pop("to", broker), joins, **settings))
        return clients[-1]

    yield start
    for client in clients:
        client.disconnect()


# Connecting


def test_p17_pysher_connects_and_learns_its_socket_id(pysher):
    ann = pysher()

    socket_id = ann.established()

    assert re.fullmatch(r"\d+\.\d+", socket_id) and ann.socket_id == socket_id
    assert ann.pusher.connection.state == "connected"


def test_p7_the_ping_pysher_sends_on_opening_is_answered(pysher):
    ann = pysher(connection_events=["pusher:pong"])

    ann.established()

    assert ann.next() == Heard("pusher:pong", None, "{}")


def test_p3_pysher_gives_up_on_an_unknown_key(pysher):
    ann = pysher(key="unknown")

    error = ann.next()

    assert error.event == "pusher:error" and error.data["code"] == 4001
    assert ann.ended()


def test_p10_a_pysher_that_says_nothing_outlives_a_connection_that_ignores_pings(start_broker, pysher):
    broker = start_broker(connection={"ping_after_s": 1, "pong_timeout_s": 2})
    ann = pysher({"orders": ["placed"]}, to=broker)
    socket_id = ann.established()
    ann.joined("orders")
    dead = BareSocket(broker, answers_pings=False)

    # Opened after Pysher went silent and given up in its turn: Pysher was pinged before that.
    error = dead.next()
    assert error.event == "pusher:error"
    assert error.data == {"code": 4201, "message": "Pong reply not received"}
    assert dead.next() == Closed(4201)

    sdk_for(broker).trigger("orders", "placed", "1")
    assert ann.next() == Heard("placed", "orders", "1")
    assert ann.socket_id == socket_id


def test_p9_a_broker_that_was_paused_gives_its_clients_time_to_answer(start_broker, pysher):
    broker = start_broker(connection={"ping_after_s": 1, "pong_timeout_s": 2})
    clock = start_broker(connection={"ping_after_s": 1, "pong_timeout_s": 3})
    ann = pysher({"orders": ["placed"]}, to=broker)
    socket_id = ann.established()
    ann.joined("orders")

    with broker.paused():
        given_up = BareSocket(clock, answers_pings=False)  # after four seconds, longer than the other two figures
        assert given_up.next().data["code"] == 4201
        assert given_up.next() == Closed(4201)
    sdk_for(broker).trigger("orders", "placed", "1")

    assert ann.next() == Heard("placed", "orders", "1")
    assert ann.socket_id == socket_id


# Channels


def test_p22_p23_pysher_hears_the_events_of_a_public_channel(pysher, sdk):
    ann = pysher({"orders": ["placed"]})
    ann.established()
    assert ann.joined("orders") == {}

    sdk.trigger("orders", "placed", {"total": "12 €"})

    assert ann.next() == Heard("placed", "orders", '{"total": "12 €"}')


def test_p26_pysher_hears_nothing_after_unsubscribing(pysher, sdk):
    ann = pysher({"orders": ["placed"], "news": ["marker"]}, connection_events=["pusher:pong"])
    ann.established()
    assert ann.next().event == "pusher:pong"
    ann.joined("orders")
    ann.joined("news")

    ann.pusher.unsubscribe("orders")
    ann.pusher.connection.send_ping()
    assert ann.next().event == "pusher:pong"  # so the broker has read the unsubscribe before it
    assert sdk.channel_info("orders") == {"occupied": False}

    sdk.trigger("orders", "placed", "1")
    sdk.trigger("news", "marker", "2")
    assert ann.next() == Heard("marker", "news", "2")


def test_p17_pysher_signs_a_private_channel_itself(pysher, sdk):
    ann = pysher({"private-orders": ["placed"]})
    ann.established()
    assert ann.joined("private-orders") == {}

    sdk.trigger("private-orders", "placed", "1")

    assert ann.next() == Heard("placed", "private-orders", "1")


def test_p40_pysher_asks_the_application_to_authorise_its_channels(pysher, sdk, authorising_server):
    member = {"user_id": "ann", "user_info": {"name": "Zoë"}}
    endpoint, asked = authorising_server(sdk, member)
    ann = pysher(
        {"private-orders": ["placed"], "presence-room": []}, secret="", auth_endpoint=endpoint, user_data=member
    )
    socket_id = ann.established()

    assert ann.joined("private-orders") == {}
    assert ann.joined("presence-room") == {
        "presence": {"count": 1, "ids": ["ann"], "hash": {"ann": {"name": "Zoë"}}}
    }
    assert asked == [("private-orders", socket_id), ("presence-room", socket_id)]


def test_p27_p43_pysher_is_told_of_a_refused_subscription_and_stays_connected(pysher, sdk):
    ann = pysher({"private-orders": ["placed"], "news": ["marker"]}, secret="wrong")
    socket_id = ann.established()

    error = ann.next()
    assert error.event == "pusher:error" and error.data["code"] is None
    assert error.data["message"].startswith(f"Invalid signature: Expected HMAC SHA256 hex digest of {socket_id}:private")
    refusal = ann.next()
    assert (refusal.event, refusal.channel) == ("pusher:subscription_error", "private-orders")
    assert json.loads(refusal.data)["status"] == 401

    ann.joined("news")
    sdk.trigger("private-orders", "placed", "1")
    sdk.trigger("news", "marker", "2")
    assert ann.next() == Heard("marker", "news", "2")


# Presence


def test_p31_p32_two_users_and_the_second_connection_of_one(pysher, sdk):
    ann = pysher({"presence-room": ["marker"]}, user_data={"user_id": "ann", "user_info": {"name": "Ann"}})
    ann.established()
    assert ann.joined("presence-room") == {
        "presence": {"count": 1, "ids": ["ann"], "hash": {"ann": {"name": "Ann"}}}
    }

    bob = {"user_id": "bob", "user_info": {"name": "Bob"}}
    phone = pysher({"presence-room": []}, user_data=bob)
    phone.established()
    both = phone.joined("presence-room")["presence"]
    assert (both["count"], sorted(both["ids"])) == (2, ["ann", "bob"])
    assert both["hash"] == {"ann": {"name": "Ann"}, "bob": {"name": "Bob"}}
    added = ann.next()
    assert (added.event, json.loads(added.data)) == ("pusher_internal:member_added", bob)

    laptop = pysher({"presence-room": ["marker"]}, user_data=bob)
    laptop.established()
    assert laptop.joined("presence-room")["presence"]["count"] == 2
    sdk.trigger("presence-room", "marker", "the second connection was not announced")
    assert ann.next() == Heard("marker", "presence-room", "the second connection was not announced")
    assert laptop.next() == Heard("marker", "presence-room", "the second connection was not announced")

    phone.disconnect()
    until_subscribed(sdk, "presence-room", 2)
    sdk.trigger("presence-room", "marker", "nor was its end")
    assert ann.next() == Heard("marker", "presence-room", "nor was its end")

    laptop.disconnect()
    removed = ann.next()
    assert (removed.event, json.loads(removed.data)) == ("pusher_internal:member_removed", {"user_id": "bob"})
    assert sdk.users_info("presence-room") == {"users": [{"id": "ann"}]}


def test_p33_pysher_may_use_a_number_as_user_id(pysher):
    ann = pysher({"presence-room": []}, user_data={"user_id": 10})
    ann.established()

    assert ann.joined("presence-room") == {"presence": {"count": 1, "ids": ["10"], "hash": {"10": {}}}}


# Client events


def test_p66_p67_client_events_reach_the_others_as_strings_and_not_the_sender(pysher, sdk):
    events = {"private-orders": ["client-typing", "marker"]}
    ann, bob = pysher(events), pysher(events)
    for client in (ann, bob):
        client.established()
        client.joined("private-orders")

    for data in ({"keys": 3}, "plain", 7, None):
        ann.pusher.channel("private-orders").trigger("client-typing", data)

    heard = [bob.next() for _ in range(4)]
    assert {(one.event, one.channel) for one in heard} == {("client-typing", "private-orders")}
    assert json.loads(heard[0].data) == {"keys": 3}
    assert [one.data for one in heard[1:]] == ["plain", "7", "null"]
    sdk.trigger("private-orders", "marker", "1")
    assert ann.next() == Heard("marker", "private-orders", "1")


def test_p68_client_events_of_a_member_name_their_sender(pysher, connect, sdk):
    watcher = connect()
    watcher.subscribe("presence-room", sdk.authenticate("presence-room", watcher.socket_id, {"user_id": "watcher"}))
    ann = pysher({"presence-room": []}, user_data={"user_id": "ann"})
    ann.established()
    ann.joined("presence-room")
    assert watcher.next().event == "pusher_internal:member_added"

    ann.pusher.channel("presence-room").trigger("client-typing", {"keys": 3})

    assert watcher.next() == Event("client-typing", "presence-room", '{"keys":3}', "ann")


def test_p65_client_events_are_refused_where_the_app_has_them_switched_off(start_broker, pysher):
    broker = start_broker(app={"client_events": False})
    ann = pysher({"private-orders": []}, to=broker)
    ann.established()
    ann.joined("private-orders")

    ann.pusher.channel("private-orders").trigger("client-typing", {})

    assert ann.next() == Heard(
        "pusher:error",
        None,
        {
            "code": None,
            "message": "To send client events, you must enable this feature in the Settings page of your dashboard.",
        },
    )


# Coming back


def test_p11_pysher_reconnects_and_joins_again_after_a_restart(pysher, broker, sdk):
    ann = pysher(
        {"orders": ["placed"], "private-orders": ["placed"], "presence-room": ["placed"]},
        user_data={"user_id": "ann"},
    )
    first = ann.established()
    for channel in ("orders", "private-orders", "presence-room"):
        ann.joined(channel)

    broker.restart()

    error = ann.next()
    assert error.event == "pusher:error" and error.data["code"] == 4200
    assert ann.established() != first
    for channel in ("orders", "private-orders", "presence-room"):
        ann.joined(channel)
    for channel in ("orders", "private-orders", "presence-room"):
        sdk.trigger(channel, "placed", channel)
        assert ann.next() == Heard("placed", channel, channel)


def test_p27_the_unsigned_subscriptions_of_auto_sub_are_refused_and_the_connection_lives(pysher, broker, sdk):
    ann = pysher(
        {"private-orders": ["placed"], "presence-room": [], "orders": ["placed"]},
        user_data={"user_id": "ann"},
        auto_sub=True,
        joins_once=True,
    )
    ann.established()
    for channel in ("private-orders", "presence-room", "orders"):
        ann.joined(channel)

    broker.restart()

    assert ann.next().data["code"] == 4200
    ann.established()
    for channel in ("private-orders", "presence-room"):
        assert ann.next().data == {"code": None, "message": f"Auth info required to subscribe to {channel}"}
        refusal = ann.next()
        assert (refusal.event, refusal.channel) == ("pusher:subscription_error", channel)
    ann.joined("orders")
    sdk.trigger("private-orders", "placed", "1")
    sdk.trigger("orders", "placed", "2")
    assert ann.next() == Heard("placed", "orders", "2")


@pytest.fixture
def authorising_server():
    """The application's own server: answers with the tokens of the server SDK."""
    servers = []

    def start(sdk, member):
        asked = []

        class Authorise(BaseHTTPRequestHandler):
            def do_POST(self):
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                channel, socket_id = form["channel_name"][0], form["socket_id"][0]
                asked.append((channel, socket_id))
                answer = sdk.authenticate(channel, socket_id, member if channel.startswith("presence-") else None)
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        server = HTTPServer(("127.0.0.1", 0), Authorise)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/auth", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def until_subscribed(sdk, channel, count):
    """Asks the broker until the channel has `count` subscriptions; closing a socket is not answered."""
    deadline = time.monotonic() + DEADLINE_S
    while sdk.channel_info(channel, ["subscription_count"])["subscription_count"] != count:
        assert time.monotonic() < deadline, f"{channel} never had {count} subscriptions"
