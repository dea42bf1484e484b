"""The official Python server SDK: every call, and what arrives at the connections."""

import base64
import contextlib
import http.server
import json
import queue
import threading
import time
from unittest import mock

import nacl.secret
import pusher
import pytest
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherBadStatus, PusherForbidden

from bare_socket import BareSocket, Closed, Event
from broker import APP_ID, DEADLINE_S, KEY, SECRET, app_table
from conftest import sdk_for

MASTER_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


# Publishing


def test_p88_trigger_reaches_the_subscriber_of_a_channel(sdk, connect):
    ann = connect()
    assert ann.subscribe("orders") == {}

    assert sdk.trigger("orders", "placed", {"total": "12 €"}) == {}

    assert ann.next() == Event("placed", "orders", '{"total": "12 €"}')


def test_p39_data_arrives_byte_for_byte(sdk, connect):
    ann = connect()
    ann.subscribe("orders")
    texts = ["", " padded\n", '{"a" : 1 ,"b":[ ]}', "Zoë 日本 🎉 \\u00eb \" \\ / \t\n\x01 </script>", "null", "x" * 10_240]

    for text in texts:
        sdk.trigger("orders", "said", text)

    assert [ann.next() for _ in texts] == [Event("said", "orders", text) for text in texts]


def test_p38_events_keep_the_order_of_their_publisher(sdk, connect):
    ann = connect()
    ann.subscribe("orders")

    for number in range(50):
        sdk.trigger("orders", "counted", str(number))

    assert [ann.next().data for _ in range(50)] == [str(number) for number in range(50)]


def test_p76_trigger_reaches_many_channels_and_repeated_ones_once(sdk, connect):
    ann = connect()
    ann.subscribe("a")
    ann.subscribe("b")

    sdk.trigger(["a", "b", "a"], "placed", "1")
    sdk.trigger(["a", "b"], "marker", "2")

    heard = [ann.next() for _ in range(4)]
    assert sorted(heard) == sorted(
        [Event("placed", "a", "1"), Event("placed", "b", "1"), Event("marker", "a", "2"), Event("marker", "b", "2")]
    )


def test_p76_a_hundred_channels_at_once(sdk, connect):
    ann = connect()
    ann.subscribe("c-99")

    assert sdk.trigger([f"c-{number}" for number in range(100)], "placed", "1") == {}

    assert ann.next() == Event("placed", "c-99", "1")


def test_p79_socket_id_spares_the_connection_that_caused_the_event(sdk, connect):
    ann, bob = connect(), connect()
    for socket in (ann, bob):
        socket.subscribe("orders")

    sdk.trigger("orders", "placed", "1", socket_id=ann.socket_id)
    sdk.trigger("orders", "marker", "2", socket_id="1.1")

    assert ann.next() == Event("marker", "orders", "2")
    assert bob.next() == Event("placed", "orders", "1")
    assert bob.next() == Event("marker", "orders", "2")


def test_p78_event_names_with_dots_and_backslashes_pass(sdk, connect):
    ann = connect()
    ann.subscribe("orders")
    names = ["App\\Events\\Order.Placed", ".client.order", "client-made-by-the-server", "Zoë", "x" * 200]

    for name in names:
        sdk.trigger("orders", name, "1")

    assert [ann.next().event for _ in names] == names


def test_p81_trigger_batch_publishes_in_order_and_reports_nothing_unasked(sdk, connect):
    ann, bob = connect(), connect()
    for socket in (ann, bob):
        socket.subscribe("a")
        socket.subscribe("b")

    reply = sdk.trigger_batch(
        [
            {"channel": "a", "name": "first", "data": {"n": 1}},
            {"channel": "b", "name": "second", "data": "2", "socket_id": ann.socket_id},
            {"channel": "a", "name": "third", "data": "3"},
        ]
    )

    assert reply == {}
    first, second, third = Event("first", "a", '{"n": 1}'), Event("second", "b", "2"), Event("third", "a", "3")
    assert [ann.next() for _ in range(2)] == [first, third]
    assert [bob.next() for _ in range(3)] == [first, second, third]


def test_p81_trigger_batch_answers_info_by_position(sdk, connect):
    ann = connect()
    ann.subscribe("a")

    reply = sdk.trigger_batch(
        [
            {"channel": "a", "name": "e", "data": "1", "info": "subscription_count"},
            {"channel": "a", "name": "e", "data": "2"},
            {"channel": "presence-empty", "name": "e", "data": "3", "info": "user_count"},
        ]
    )

    assert reply == {"batch": [{"subscription_count": 1}, {}, {"user_count": 0}]}


def test_p81_ten_events_make_a_batch_and_eleven_are_too_many(sdk, connect):
    ann = connect()
    ann.subscribe("a")

    def batch(size):
        return [{"channel": "a", "name": f"e{size}", "data": str(number)} for number in range(size)]

    with pytest.raises(PusherBadRequest) as refused:
        sdk.trigger_batch(batch(11))
    assert str(refused.value) == "Batch too large (11 > 10)\n"
    assert sdk.trigger_batch(batch(10)) == {}
    assert sdk.trigger_batch([]) == {}

    assert [ann.next() for _ in range(10)] == [Event("e10", "a", str(number)) for number in range(10)]


def test_p81_a_batch_with_one_bad_event_publishes_nothing(sdk, connect):
    ann = connect()
    ann.subscribe("a")
    good = {"channel": "a", "name": "placed", "data": "1"}

    with pytest.raises(PusherBadRequest) as refused:
        sdk.trigger_batch([good, {"channels": ["a"], "name": "placed", "data": "2"}], already_encoded=True)
    assert str(refused.value) == "Missing required parameter: channel\n"
    with pytest.raises(PusherBadStatus) as too_large:
        sdk.trigger_batch([good, {**good, "data": "x" * 10_241}], already_encoded=True)
    assert str(too_large.value).startswith("413: ")
    sdk.trigger("a", "marker", "3")

    assert ann.next() == Event("marker", "a", "3")


def test_p45_encrypted_events_reach_the_client_as_they_were_sealed(broker, connect):
    sdk = sdk_for(broker, encryption_master_key_base64=MASTER_KEY)
    ann = connect()
    answer = sdk.authenticate("private-encrypted-vault", ann.socket_id)
    ann.subscribe("private-encrypted-vault", {"auth": answer["auth"]})
    box = nacl.secret.SecretBox(base64.b64decode(answer["shared_secret"]))

    assert sdk.trigger("private-encrypted-vault", "secret", {"pin": 1234}) == {}
    assert sdk.trigger_batch([{"channel": "private-encrypted-vault", "name": "secret", "data": "two"}]) == {}

    for plain in ('{"pin": 1234}', "two"):
        heard = ann.next()
        sealed = json.loads(heard.data)
        opened = box.decrypt(base64.b64decode(sealed["ciphertext"]), base64.b64decode(sealed["nonce"]))
        assert (heard.event, heard.channel, opened.decode()) == ("secret", "private-encrypted-vault", plain)


# Asking


def test_p82_channels_info_lists_occupied_channels_only(sdk, connect):
    assert sdk.channels_info() == {"channels": {}}
    ann = connect()
    ann.subscribe("orders")
    ann.subscribe("cache-prices")
    ann.next()  # pusher:cache_miss
    sdk.trigger("nobody-here", "placed", "1")

    assert sdk.channels_info() == {"channels": {"orders": {}, "cache-prices": {}}}
    assert sdk.channels_info("cache-") == {"channels": {"cache-prices": {}}}
    assert sdk.channels_info("none-") == {"channels": {}}


def test_p82_channels_info_counts_the_users_of_presence_channels(sdk, connect):
    enter(sdk, connect(), "presence-a", "ann")
    enter(sdk, connect(), "presence-b", "ann")
    bob = connect()
    enter(sdk, bob, "presence-b", "bob")
    bob.subscribe("orders")

    assert sdk.channels_info("presence-", ["user_count"]) == {
        "channels": {"presence-a": {"user_count": 1}, "presence-b": {"user_count": 2}}
    }
    assert sdk.channels_info("presence-a", ["user_count"]) == {"channels": {"presence-a": {"user_count": 1}}}


def test_p82_channels_info_counts_users_of_presence_channels_only(sdk):
    with pytest.raises(PusherBadRequest) as refused:
        sdk.channels_info(attributes=["user_count"])

    assert str(refused.value) == (
        "user_count may only be requested for presence channels - "
        "please supply filter_by_prefix begining with presence-\n"
    )


def test_p83_channel_info_says_whether_a_channel_is_occupied(sdk, connect):
    ann = connect()
    ann.subscribe("orders")

    assert sdk.channel_info("orders") == {"occupied": True}
    assert sdk.channel_info("nobody-here") == {"occupied": False}
    assert sdk.channel_info("orders", ["subscription_count"]) == {"occupied": True, "subscription_count": 1}


def test_p70_channel_names_with_every_allowed_character_can_be_asked_about(sdk, connect):
    channel = "presence-a@b=c,d;e.f_g"
    ann = connect()
    enter(sdk, ann, channel, "ann")

    assert sdk.channel_info(channel, ["user_count"]) == {"occupied": True, "user_count": 1}
    assert sdk.users_info(channel) == {"users": [{"id": "ann"}]}


def test_p85_users_and_connections_are_counted_apart(sdk, connect):
    for user in ("ann", "bob", "bob"):
        enter(sdk, connect(), "presence-room", user)

    assert sdk.channel_info("presence-room", ["user_count", "subscription_count"]) == {
        "occupied": True,
        "user_count": 2,
        "subscription_count": 3,
    }


def test_p83_channel_info_refuses_what_the_channel_does_not_have(sdk):
    for channel, attribute, text in [
        ("orders", "user_count", "Cannot retrieve the user count unless the channel is a presence channel\n"),
        ("orders", "cache", "Cannot retrieve the cache unless the channel is a cache channel\n"),
        ("orders", "weather", "info should be a comma separated list of attributes\n"),
    ]:
        with pytest.raises(PusherBadRequest) as refused:
            sdk.channel_info(channel, [attribute])
        assert str(refused.value) == text


def test_p83_channel_info_shows_the_cached_event(sdk):
    assert sdk.channel_info("cache-prices", ["cache"]) == {"occupied": False, "cache": None}

    sdk.trigger("cache-prices", "quoted", {"eur": 1})

    info = sdk.channel_info("cache-prices", ["cache"])
    assert info["cache"]["data"] == '{"eur": 1}'
    assert isinstance(info["cache"]["ttl"], int) and 1790 <= info["cache"]["ttl"] <= 1800


def test_p84_users_info_lists_each_user_once_as_a_string(sdk, connect):
    for user in ("ann", 10, "10", "ann"):
        enter(sdk, connect(), "presence-room", user)

    users = sdk.users_info("presence-room")["users"]

    assert sorted(user["id"] for user in users) == ["10", "ann"]
    assert sdk.users_info("presence-empty") == {"users": []}


def test_p84_users_info_is_for_presence_channels(sdk):
    with pytest.raises(PusherBadRequest) as refused:
        sdk.users_info("orders")

    assert str(refused.value) == "Users can only be retrieved for presence channels\n"


# Letting connections in


def test_p40_authenticate_lets_a_connection_into_a_private_channel(sdk, connect):
    ann = connect()

    assert ann.subscribe("private-orders", sdk.authenticate("private-orders", ann.socket_id)) == {}

    sdk.trigger("private-orders", "placed", "1")
    assert ann.next() == Event("placed", "private-orders", "1")


def test_p42_authenticate_signs_channel_data_as_python_spells_it(sdk, connect):
    ann = connect()
    data = {"user_id": "ann", "user_info": {"name": "Zoë 日本", "tags": [1, None, True]}}
    answer = sdk.authenticate("presence-room", ann.socket_id, data)
    assert '"Zo\\u00eb \\u65e5\\u672c"' in answer["channel_data"], "the SDK escapes and spaces in its own way"

    assert ann.subscribe("presence-room", answer) == {
        "presence": {"count": 1, "ids": ["ann"], "hash": {"ann": data["user_info"]}}
    }


def test_p33_a_numeric_user_id_becomes_a_string(sdk, connect):
    ann, ten, tenth = connect(), connect(), connect()
    enter(sdk, ann, "presence-room", "ann")

    snapshot = enter(sdk, ten, "presence-room", 10)
    assert snapshot["ids"].count("10") == 1 and snapshot["count"] == 2
    assert enter(sdk, tenth, "presence-room", "10")["count"] == 2
    sdk.trigger("presence-room", "marker", "1")

    added = ann.next()
    assert (added.event, json.loads(added.data)["user_id"]) == ("pusher_internal:member_added", "10")
    assert ann.next() == Event("marker", "presence-room", "1")


def test_p43_a_token_made_for_another_connection_is_refused(sdk, connect):
    ann, bob = connect(), connect()

    bob.say("pusher:subscribe", {"channel": "private-orders", **sdk.authenticate("private-orders", ann.socket_id)})

    error = bob.next()
    assert error.event == "pusher:error" and error.data["code"] is None
    assert error.data["message"].startswith("Invalid signature: Expected HMAC SHA256 hex digest of ")
    refusal = bob.next()
    assert (refusal.event, refusal.channel) == ("pusher:subscription_error", "private-orders")
    assert {**json.loads(refusal.data), "error": ""} == {"type": "AuthError", "error": "", "status": 401}


def test_p43_a_token_with_a_key_of_another_app_is_refused(start_broker, connect):
    broker = start_broker(more_apps=[app_table("2", "other-key", "other-secret")])
    other = sdk_for(broker, app_id="2", key="other-key", secret="other-secret")
    ann = connect(to=broker)

    ann.say("pusher:subscribe", {"channel": "private-x", **other.authenticate("private-x", ann.socket_id)})

    error = ann.next()
    assert (error.event, error.data) == (
        "pusher:error",
        {"code": None, "message": "Invalid key in subscription auth data: 'other-key'"},
    )


def test_p50_authenticate_user_signs_a_connection_in(sdk, connect):
    ann = connect()
    answer = sdk.authenticate_user(ann.socket_id, {"id": "12345", "user_info": {"name": "Zoë"}})

    assert ann.sign_in(answer) == {"user_data": answer["user_data"]}


def test_p51_a_sign_in_made_for_another_connection_is_refused(sdk, connect):
    ann, bob = connect(), connect()

    bob.say("pusher:signin", sdk.authenticate_user(ann.socket_id, {"id": "ann"}))

    error = bob.next()
    assert error.event == "pusher:error" and error.data["message"].startswith("Invalid signature: "), error
    sdk.send_to_user("ann", "hello", "1")
    bob.subscribe("orders")
    sdk.trigger("orders", "marker", "2")
    assert bob.next() == Event("marker", "orders", "2")


# Users


def test_p54_send_to_user_reaches_every_connection_of_the_user_once(sdk, connect):
    phone, laptop, bob, stranger = connect(), connect(), connect(), connect()
    for socket, user in ((phone, "ann"), (laptop, "ann"), (bob, "bob")):
        socket.sign_in(sdk.authenticate_user(socket.socket_id, {"id": user}))
    phone.subscribe("#server-to-user-ann")
    for socket in (phone, laptop, bob, stranger):
        socket.subscribe("orders")

    assert sdk.send_to_user("ann", "hello", {"n": 1}) == {}
    sdk.trigger("orders", "marker", "2")

    hello, marker = Event("hello", "#server-to-user-ann", '{"n": 1}'), Event("marker", "orders", "2")
    for socket in (phone, laptop):
        assert [socket.next(), socket.next()] == [hello, marker]
    for socket in (bob, stranger):
        assert socket.next() == marker
    assert sdk.channels_info() == {"channels": {"orders": {}}}


def test_p58_p59_terminate_user_connections_ends_the_users_connections_and_no_others(sdk, connect):
    phone, laptop, bob, guest = connect(), connect(), connect(), connect()
    for socket, user in ((phone, "ann"), (laptop, "ann"), (bob, "bob")):
        socket.sign_in(sdk.authenticate_user(socket.socket_id, {"id": user}))
    enter(sdk, guest, "presence-room", "ann")  # a member called ann, but nobody signed in
    bob.subscribe("presence-room", sdk.authenticate("presence-room", bob.socket_id, {"user_id": "bob"}))
    assert guest.next().event == "pusher_internal:member_added"

    assert sdk.terminate_user_connections("ann") == {}

    for socket in (phone, laptop):
        error = socket.next()
        assert error.event == "pusher:error" and error.data["code"] == 4009, error
        assert socket.next() == Closed(4009)
    sdk.trigger("presence-room", "marker", "1")
    for socket in (bob, guest):
        assert socket.next() == Event("marker", "presence-room", "1")
    assert sdk.terminate_user_connections("nobody") == {}


# Refusals, as the SDK tells them apart


def test_p78_reserved_event_names_are_bad_requests(sdk):
    for name in ("pusher:error", "pusher_internal:member_added"):
        with pytest.raises(PusherBadRequest) as refused:
            sdk.trigger("orders", name, "1")
        assert str(refused.value) == f"Invalid event name '{name}'\n"


def test_p21_names_longer_than_the_limit_are_bad_requests(sdk):
    assert sdk.trigger("x" * 164, "placed", "1") == {}
    for call in (
        lambda: sdk.trigger("x" * 165, "placed", "1"),
        lambda: sdk.channel_info("x" * 165),
        lambda: sdk.trigger_batch([{"channel": "x" * 165, "name": "placed", "data": "1"}]),
    ):
        with pytest.raises(PusherBadRequest) as refused:
            call()
        assert str(refused.value).startswith("Invalid channel name 'xxx")


def test_p77_data_has_a_limit_in_bytes(sdk):
    assert sdk.trigger("orders", "placed", "é" * 5_120) == {}
    for data in ("x" * 10_241, "é" * 5_120 + "x"):
        with pytest.raises(PusherBadStatus) as refused:
            sdk.trigger("orders", "placed", data)
        assert str(refused.value) == (
            "413: The data content of this event exceeds the allowed maximum (10240 bytes)\n"
        )


@pytest.mark.parametrize(
    "call",
    [
        lambda sdk: sdk.trigger("orders", "placed", "1"),
        lambda sdk: sdk.trigger_batch([{"channel": "orders", "name": "placed", "data": "1"}]),
        lambda sdk: sdk.channels_info(),
        lambda sdk: sdk.channel_info("orders"),
        lambda sdk: sdk.users_info("presence-room"),
        lambda sdk: sdk.terminate_user_connections("ann"),
    ],
    ids=["trigger", "trigger_batch", "channels_info", "channel_info", "users_info", "terminate"],
)
def test_p71_no_call_passes_with_a_wrong_secret_or_key(broker, call):
    with pytest.raises(PusherBadAuth) as refused:
        call(sdk_for(broker, secret="wrong"))
    assert str(refused.value).startswith("Invalid signature: you should have sent HmacSHA256Hex(")
    assert str(refused.value).endswith("\n") and SECRET not in str(refused.value)
    with pytest.raises(PusherBadAuth) as refused:
        call(sdk_for(broker, key="unknown"))
    assert str(refused.value).startswith("Unknown auth_key")


@pytest.mark.parametrize("seconds", [-590, 590])
def test_p71_a_clock_nearly_ten_minutes_off_is_tolerated(sdk, seconds):
    with mock.patch("pusher.http.time") as clock:
        clock.time.return_value = time.time() + seconds
        assert sdk.trigger("orders", "placed", "1") == {}


@pytest.mark.parametrize("seconds", [-610, 610])
def test_p71_a_clock_more_than_ten_minutes_off_is_refused(sdk, seconds):
    with mock.patch("pusher.http.time") as clock:
        clock.time.return_value = time.time() + seconds
        with pytest.raises(PusherBadAuth) as refused:
            sdk.trigger("orders", "placed", "1")
    assert str(refused.value).startswith("Timestamp expired: Given timestamp (")


def test_p75_a_disabled_app_is_forbidden(start_broker):
    broker = start_broker(app={"enabled": False})

    with pytest.raises(PusherForbidden):
        sdk_for(broker).trigger("orders", "placed", "1")


def test_p75_an_unknown_app_is_not_found(broker):
    with pytest.raises(PusherBadStatus) as refused:
        sdk_for(broker, app_id="404").trigger("orders", "placed", "1")

    assert str(refused.value).startswith("404: Unknown app_id")


def test_p71_the_key_of_another_app_is_refused(start_broker):
    broker = start_broker(more_apps=[app_table("2", "other-key", "other-secret")])

    assert sdk_for(broker, app_id="2", key="other-key", secret="other-secret").channels_info() == {"channels": {}}
    with pytest.raises(PusherBadAuth):
        sdk_for(broker, app_id="1", key="other-key", secret="other-secret").channels_info()


def test_p88_an_sdk_configured_by_url_works_too(broker):
    sdk = pusher.Pusher.from_url(f"http://{KEY}:{SECRET}@127.0.0.1/apps/{APP_ID}", port=broker.port)

    assert sdk.channels_info() == {"channels": {}}


def test_p88_events_survive_a_restart_of_the_broker_between_two_calls(broker, sdk, connect):
    assert sdk.trigger("orders", "placed", "1") == {}
    broker.restart()
    ann = connect()
    ann.subscribe("orders")

    sdk.trigger("orders", "placed", "2")  # over a connection the SDK kept from before

    assert ann.next() == Event("placed", "orders", "2")


def enter(sdk, socket, channel, user_id):
    """Joins a presence channel as `user_id` and returns the snapshot."""
    answer = sdk.authenticate(channel, socket.socket_id, {"user_id": user_id})
    return socket.subscribe(channel, answer)["presence"]


# Webhooks


@contextlib.contextmanager
def receiver():
    """A web server that takes every request; its address, and a queue of headers and bodies."""
    requests = queue.Queue()

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            requests.put((self.headers, self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/webhook", requests
    finally:
        server.shutdown()
        server.server_close()


def test_p90_webhooks_are_valid_and_say_what_happened(start_broker):
    with receiver() as (url, requests):
        hooked = app_table("9", "hooked-key", "hooked-secret") + f"[[apps.webhooks]]\nurl = {json.dumps(url)}\n"
        broker = start_broker(more_apps=[hooked, '[webhooks]\nallowed_networks = ["127.0.0.0/8"]\n'])
        sdk = sdk_for(broker, app_id="9", key="hooked-key", secret="hooked-secret")
        ann = BareSocket(broker, key="hooked-key")
        ann.subscribe("orders")
        headers, body = requests.get(timeout=DEADLINE_S)
        ann.close()

    key, signature = headers["X-Pusher-Key"], headers["X-Pusher-Signature"]
    assert sdk.validate_webhook(key, signature, body)["events"] == [{"name": "channel_occupied", "channel": "orders"}]
    assert sdk.validate_webhook(key, signature, body.replace("orders", "others")) is None
    assert sdk_for(broker, secret="stolen").validate_webhook(key, signature, body) is None
