package fanfare;

import com.google.gson.JsonParser;
import com.pusher.client.channel.PrivateChannel;
import com.pusher.client.connection.ConnectionState;
import com.pusher.client.connection.websocket.WebSocketConnection;
import com.pusher.client.util.HttpChannelAuthorizer;
import com.pusher.client.util.HttpUserAuthenticator;
import com.pusher.rest.data.PresenceUser;
import com.sun.net.httpserver.HttpServer;
import fanfare.Device.Heard;
import fanfare.Device.Trouble;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.function.UnaryOperator;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static fanfare.Device.Heard.entered;
import static fanfare.Device.Heard.event;
import static fanfare.Device.Heard.joined;
import static fanfare.Device.Heard.left;
import static fanfare.Device.Heard.members;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

@DisplayName("The Java client")
class ClientTest extends Story {

    // Connecting

    @Test
    @DisplayName("P1, P4: connects and learns its socket id")
    void connects() {
        given();

        Device ann = guest().connect();

        assertTrue(ann.socketId().matches("\\d+\\.\\d+"), ann.socketId());
    }

    @Test
    @DisplayName("P3: stops for good on an unknown key")
    void unknownKey() {
        given();
        Device ann = ending(new Device(broker, "unknown", null, null, UnaryOperator.identity())).open();

        assertEquals("4001", ann.trouble().code());

        ann.isNow(ConnectionState.CONNECTING, ConnectionState.DISCONNECTING, ConnectionState.DISCONNECTED);
    }

    @Test
    @DisplayName("P7: its pings without data are answered, so it stays connected")
    void pings() {
        given();
        BlockingQueue<String> pings = new LinkedBlockingQueue<>();
        Logger log = Logger.getLogger(WebSocketConnection.class.getName());
        Handler handler = new Handler() {
            @Override
            public void publish(LogRecord logged) {
                if (logged.getMessage().equals("Sending ping") || logged.getMessage().startsWith("Timed out")) {
                    pings.add(logged.getMessage());
                }
            }

            @Override
            public void flush() {}

            @Override
            public void close() {}
        };
        log.setLevel(Level.FINE);
        log.addHandler(handler);
        try {
            Device ann = device(null, null, options -> options.setActivityTimeout(1_000).setPongTimeout(1_000)).connect();
            String socketId = ann.socketId();

            // A further ping is sent only after something came back.
            assertEquals("Sending ping", Await.next(pings, "ping"));
            assertEquals("Sending ping", Await.next(pings, "ping"));

            assertEquals(ConnectionState.CONNECTED, ann.state());
            assertEquals(socketId, ann.socketId());
        } finally {
            log.removeHandler(handler);
            log.setLevel(null);
        }
    }

    @Test
    @DisplayName("P10: saying nothing, it outlives a connection that ignores pings")
    void silence() throws IOException {
        given("connection.ping_after_s = 1", "connection.pong_timeout_s = 2");
        Device ann = guest().join("orders", "placed").connect();
        ann.hears(joined("orders"));
        String socketId = ann.socketId();

        // Opened after the client went silent, so given up after the client would have been.
        assertEquals(4201, ending(new MutePeer(broker)).closeCode());

        backend.publish("orders", "placed", 1);
        ann.hears(event("placed", "orders", "1"));
        assertEquals(socketId, ann.socketId());
    }

    // Channels

    @Test
    @DisplayName("P22, P23: hears the events of a public channel")
    void publicChannel() {
        given();
        Device ann = guest().join("orders", "placed").connect();
        ann.hears(joined("orders"));

        backend.publish("orders", "placed", Map.of("total", "12 €"));

        ann.hears(event("placed", "orders", "{\"total\":\"12 €\"}"));
    }

    @Test
    @DisplayName("P25, P26: unsubscribes silently and may come back")
    void unsubscribes() {
        given();
        Device ann = guest().join("orders", "placed").join("news", "marker").connect();
        assertEquals(Set.of(joined("orders"), joined("news")), both(ann));

        ann.pusher.unsubscribe("orders");
        Await.until("orders is vacated", () -> backend.subscriptionCount("orders") == 0);
        backend.publish("orders", "placed", 1);
        backend.publish("news", "marker", 2);
        ann.hears(event("marker", "news", "2"));

        ann.join("orders", "placed").hears(joined("orders"));
        backend.publish("orders", "placed", 3);
        ann.hears(event("placed", "orders", "3"));
    }

    @Test
    @DisplayName("P40: enters a private channel with the token of the server SDK")
    void privateChannel() {
        given();
        Device ann = guest().join("private-orders", "placed").connect();
        ann.hears(joined("private-orders"));

        backend.publish("private-orders", "placed", 1);

        ann.hears(event("placed", "private-orders", "1"));
    }

    @Test
    @DisplayName("P42: channel_data on a private channel is part of the signature")
    void channelDataOnAPrivateChannel() {
        given();
        String channelData = "{\"any\":\"thing\"}";
        Device ann = ending(new Device(broker, Broker.KEY,
                (channel, socketId) -> {
                    String signature = com.pusher.rest.SignatureUtil.sign(
                            socketId + ":" + channel + ":" + channelData, Broker.SECRET);
                    return "{\"auth\":\"" + Broker.KEY + ":" + signature
                            + "\",\"channel_data\":\"{\\\"any\\\":\\\"thing\\\"}\"}";
                },
                null, UnaryOperator.identity())).join("private-orders").connect();

        ann.hears(joined("private-orders"));
    }

    @Test
    @DisplayName("P27, P43: is told of a refused subscription and stays connected")
    void refusedSubscription() {
        given();
        backend = new Backend(broker, Broker.KEY, "wrong");
        Device ann = guest().join("private-orders", "placed").join("news", "marker").connect();

        Trouble trouble = ann.trouble();

        assertNull(trouble.code());
        assertTrue(trouble.message().startsWith(
                "Invalid signature: Expected HMAC SHA256 hex digest of " + ann.socketId() + ":private-orders, but got "),
                trouble.message());
        ann.hears(joined("news"));
        backend = new Backend(broker);
        backend.publish("private-orders", "placed", 1);
        backend.publish("news", "marker", 2);
        ann.hears(event("marker", "news", "2"));
    }

    @Test
    @DisplayName("P40, P50: asks authorising endpoints over HTTP")
    void authorisingEndpoints() throws IOException {
        given();
        HttpServer endpoint = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        ending(() -> endpoint.stop(0));
        endpoint.createContext("/", exchange -> {
            Map<String, String> form = form(exchange.getRequestBody().readAllBytes());
            String answer = form.containsKey("channel_name")
                    ? backend.authorise(form.get("socket_id"), form.get("channel_name"), new PresenceUser("ann"))
                    : Backend.authenticateUser(form.get("socket_id"), "{\"id\":\"ann\"}");
            byte[] body = answer.getBytes(StandardCharsets.UTF_8);
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        endpoint.start();
        String url = "http://127.0.0.1:" + endpoint.getAddress().getPort() + "/";

        Device ann = ending(new Device(broker, Broker.KEY,
                new HttpChannelAuthorizer(url + "channel"), new HttpUserAuthenticator(url + "user"),
                UnaryOperator.identity())).join("presence-room").signIn().connect();

        ann.hears(members("presence-room", "ann"), joined("presence-room"));
        ann.isSignedIn();
        assertEquals("ann", ann.pusher.user().userId());
    }

    @Test
    @DisplayName("P45: deciphers the events of an encrypted channel")
    void encryptedChannel() {
        given();
        Device ann = guest().join("private-encrypted-vault", "secret").connect();
        ann.hears(joined("private-encrypted-vault"));

        backend.publish("private-encrypted-vault", "secret", Map.of("pin", 1234));

        ann.hears(event("secret", "private-encrypted-vault", "{\"pin\":1234}"));
    }

    // Cache channels

    @Test
    @DisplayName("P28, P29: hears of an empty cache, and later the last event first")
    void cacheChannel() {
        given();
        for (String channel : new String[] {
            "cache-prices", "private-cache-prices", "private-encrypted-cache-prices", "presence-cache-prices"}) {
            boolean presence = channel.startsWith("presence-");
            Device ann = guest().join(channel, "pusher:cache_miss", "quoted").connect();
            if (presence) {
                ann.hears(members(channel, "guest"));
            }
            ann.hears(joined(channel), event("pusher:cache_miss", channel, "{}"));

            backend.publish(channel, "quoted", 1);
            backend.publish(channel, "quoted", 2);
            ann.hears(event("quoted", channel, "1"), event("quoted", channel, "2"));
            ann.close();
            Await.until(channel + " is vacated", () -> backend.subscriptionCount(channel) == 0);

            Device bob = guest().join(channel, "pusher:cache_miss", "quoted").connect();
            if (presence) {
                bob.hears(members(channel, "guest"));
            }
            bob.hears(joined(channel), event("quoted", channel, "2"));
            backend.publish(channel, "quoted", 3);
            bob.hears(event("quoted", channel, "3"));
        }
    }

    // Presence

    @Test
    @DisplayName("P31, P32: two users, and the second connection of one")
    void presence() {
        given();
        Device ann = member("ann").join("presence-room", "marker").connect();
        ann.hears(members("presence-room", "ann"), joined("presence-room"));
        assertEquals("ann", ann.pusher.getPresenceChannel("presence-room").getMe().getId());

        Device phone = member("bob").join("presence-room").connect();
        phone.hears(members("presence-room", "ann,bob"), joined("presence-room"));
        phone.pusher.getPresenceChannel("presence-room").getUsers().forEach(user ->
                assertEquals("{\"name\":\"" + user.getId().toUpperCase() + "\"}", user.getInfo()));
        ann.hears(entered("presence-room", "bob", "{\"name\":\"BOB\"}"));

        Device laptop = member("bob").join("presence-room").connect();
        laptop.hears(members("presence-room", "ann,bob"), joined("presence-room"));
        backend.publish("presence-room", "marker", "the second connection was not announced");
        ann.hears(event("marker", "presence-room", "\"the second connection was not announced\""));

        phone.close();
        Await.until("the phone has left", () -> backend.subscriptionCount("presence-room") == 2);
        backend.publish("presence-room", "marker", "nor was its end");
        ann.hears(event("marker", "presence-room", "\"nor was its end\""));

        laptop.pusher.unsubscribe("presence-room");
        ann.hears(left("presence-room", "bob"));
        assertEquals(1, ann.pusher.getPresenceChannel("presence-room").getUsers().size());
    }

    @Test
    @DisplayName("P33: a numeric user id is a string to the others and to itself")
    void numericUserId() {
        given();
        Device ann = member("ann").join("presence-room", "marker").connect();
        ann.hears(members("presence-room", "ann"), joined("presence-room"));

        Device ten = device(new PresenceUser(10), null, UnaryOperator.identity()).join("presence-room").connect();

        ten.hears(members("presence-room", "10,ann"), joined("presence-room"));
        assertEquals("10", ten.pusher.getPresenceChannel("presence-room").getMe().getId());
        assertEquals("10", ann.next().userId());
        member("10").join("presence-room").connect().hears(members("presence-room", "10,ann"), joined("presence-room"));
        backend.publish("presence-room", "marker", 1);
        ann.hears(event("marker", "presence-room", "1"));
    }

    @Test
    @DisplayName("P34: a full channel refuses a further user, but not a further connection of a member")
    void fullChannel() {
        given("app.presence_members_max = 2");
        for (String id : new String[] {"ann", "bob"}) {
            Device device = member(id).join("presence-room").connect();
            device.next();
            device.hears(joined("presence-room"));
        }

        Trouble trouble = member("cat").join("presence-room").connect().trouble();

        assertEquals(new Trouble(null, "Presence channel presence-room is full (maximum 2 members)"), trouble);
        member("bob").join("presence-room").connect().hears(members("presence-room", "ann,bob"), joined("presence-room"));
    }

    // Client events

    @Test
    @DisplayName("P66, P68: client events reach the others, on presence channels with their sender")
    void clientEvents() {
        given();
        String[] events = {"client-typing", "marker"};
        Device ann = member("ann").join("private-orders", events).join("presence-room", events).connect();
        joinsBoth(ann);
        Device bob = member("bob").join("private-orders", events).join("presence-room", events).connect();
        joinsBoth(bob);
        ann.hears(entered("presence-room", "bob", "{\"name\":\"BOB\"}"));

        ann.pusher.getPrivateChannel("private-orders").trigger("client-typing", "{\"keys\":3}");
        ann.pusher.getPresenceChannel("presence-room").trigger("client-typing", "plain");

        bob.hears(
                event("client-typing", "private-orders", "{\"keys\":3}"),
                new Heard("client-typing", "presence-room", "plain", "ann"));
        backend.publish("private-orders", "marker", 1);
        ann.hears(event("marker", "private-orders", "1"));
    }

    @Test
    @DisplayName("P65: client events are refused where the app has them switched off")
    void clientEventsOff() {
        given("app.client_events = false");
        Device ann = guest().join("private-orders").connect();
        ann.hears(joined("private-orders"));

        ann.pusher.getPrivateChannel("private-orders").trigger("client-typing", "{}");

        assertEquals(
                new Trouble(null, "To send client events, you must enable this feature in the Settings page of your dashboard."),
                ann.trouble());
    }

    @Test
    @DisplayName("P69: too many client events are dropped with 4301 and the connection stays")
    void clientEventLimit() {
        given("app.client_events_per_s = 1");
        Device ann = guest().join("private-orders", "marker").connect();
        Device bob = guest().join("private-orders", "client-typing", "marker").connect();
        ann.hears(joined("private-orders"));
        bob.hears(joined("private-orders"));
        PrivateChannel channel = ann.pusher.getPrivateChannel("private-orders");

        for (int number = 0; number < 20; number++) {
            channel.trigger("client-typing", String.valueOf(number));
        }

        assertEquals("4301", ann.trouble().code());
        bob.hears(event("client-typing", "private-orders", "0"));
        backend.publish("private-orders", "marker", 1);
        ann.hears(event("marker", "private-orders", "1"));
        assertEquals(ConnectionState.CONNECTED, ann.state());
    }

    // Subscription counts

    @Test
    @DisplayName("P37: hears how many are subscribed, where the app has it switched on and never on presence channels")
    void subscriptionCount() {
        given("app.subscription_counts = true");
        String count = "pusher:subscription_count";
        Device ann = member("ann").join("orders", count).connect();
        ann.hears(joined("orders"), event(count, "orders", "{\"subscription_count\":1}"));

        Device bob = member("bob").join("orders", count).connect();
        bob.hears(joined("orders"), event(count, "orders", "{\"subscription_count\":2}"));
        ann.hears(event(count, "orders", "{\"subscription_count\":2}"));
        bob.close();
        ann.hears(event(count, "orders", "{\"subscription_count\":1}"));

        ann.join("presence-room", count, "marker").hears(members("presence-room", "ann"), joined("presence-room"));
        backend.publish("presence-room", "marker", 1);
        ann.hears(event("marker", "presence-room", "1"));
    }

    @Test
    @DisplayName("P37: hears no counts where the app has them switched off")
    void noSubscriptionCount() {
        given();
        Device ann = guest().join("orders", "pusher:subscription_count", "marker").connect();
        ann.hears(joined("orders"));

        backend.publish("orders", "marker", 1);

        ann.hears(event("marker", "orders", "1"));
    }

    // Users

    @Test
    @DisplayName("P50, P54: signed in on two devices, a user hears its events once on each")
    void serverToUser() {
        given();
        Device phone = user("{\"id\":\"ann\",\"user_info\":{\"name\":\"Ann\"}}").signIn("hello", "marker").connect();
        Device laptop = user("{\"id\":\"ann\"}").signIn("hello", "marker").connect();
        Device bob = user("{\"id\":\"bob\"}").signIn("hello", "marker").connect();
        for (Device device : new Device[] {phone, laptop, bob}) {
            device.isSignedIn();
        }
        assertEquals("ann", phone.pusher.user().userId());

        backend.publishToUser("ann", "hello", "{\"n\":1}");
        backend.publishToUser("ann", "marker", "2");
        backend.publishToUser("bob", "marker", "3");

        for (Device device : new Device[] {phone, laptop}) {
            device.hears(
                    event("hello", "#server-to-user-ann", "{\"n\":1}"),
                    event("marker", "#server-to-user-ann", "2"));
        }
        bob.hears(event("marker", "#server-to-user-bob", "3"));
        assertEquals(JsonParser.parseString("{\"channels\":{}}"), backend.ask("/channels", Map.of()));
    }

    @Test
    @DisplayName("P51: a sign-in with a bad signature is refused and the connection stays")
    void refusedSignIn() {
        given();
        Device ann = ending(new Device(broker, Broker.KEY, null,
                socketId -> Backend.authenticateUser("1.1", "{\"id\":\"ann\"}"),
                UnaryOperator.identity())).join("orders", "marker").signIn("hello").connect();

        Trouble trouble = ann.trouble();

        assertNull(trouble.code());
        assertTrue(trouble.message().startsWith("Invalid signature: Expected HMAC SHA256 hex digest of "), trouble.message());
        ann.hears(joined("orders"));
        backend.publishToUser("ann", "hello", "1");
        backend.publish("orders", "marker", 2);
        ann.hears(event("marker", "orders", "2"));
        assertNull(ann.pusher.user().userId());
    }

    @Test
    @DisplayName("P56: knowing no watchlists, it is not disturbed by the events of its own")
    void watchlist() {
        given();
        Device ann = user("{\"id\":\"ann\",\"watchlist\":[\"bob\",\"cat\"]}").signIn("marker").connect();
        ann.isSignedIn();
        Device bob = user("{\"id\":\"bob\"}").signIn("marker").connect();
        bob.isSignedIn();
        bob.close();

        backend.publishToUser("ann", "marker", "1");

        ann.hears(event("marker", "#server-to-user-ann", "1"));
        assertEquals(ConnectionState.CONNECTED, ann.state());
    }

    @Test
    @DisplayName("P58: a terminated user is disconnected everywhere and does not come back by itself")
    void terminated() {
        given();
        Device phone = user("{\"id\":\"ann\"}").signIn().connect();
        Device laptop = user("{\"id\":\"ann\"}").signIn().connect();
        Device bob = user("{\"id\":\"bob\"}").signIn("marker").connect();
        for (Device device : new Device[] {phone, laptop, bob}) {
            device.isSignedIn();
        }

        Backend.succeeded("{}", backend.terminate("ann"));

        for (Device device : new Device[] {phone, laptop}) {
            assertEquals("4009", device.trouble().code());
            device.isNow(ConnectionState.DISCONNECTING, ConnectionState.DISCONNECTED);
        }
        backend.publishToUser("bob", "marker", "1");
        bob.hears(event("marker", "#server-to-user-bob", "1"));
        assertEquals(ConnectionState.CONNECTED, bob.state());
    }

    // Coming back

    @Test
    @DisplayName("P11: after a restart of the broker it reconnects, joins its channels and signs in again")
    void restart() {
        given();
        String[] channels = {"orders", "private-orders", "private-encrypted-vault", "presence-room"};
        Device ann = device(new PresenceUser("ann"), "{\"id\":\"ann\"}", UnaryOperator.identity());
        for (String channel : channels) {
            ann.join(channel, "placed");
        }
        ann.signIn("hello").connect();
        joins(ann, channels);
        ann.isSignedIn();
        String socketId = ann.socketId();

        broker.restart();

        assertEquals("4200", ann.trouble().code());
        ann.isNow(ConnectionState.RECONNECTING);
        ann.becomes(ConnectionState.CONNECTED);
        joins(ann, channels);
        ann.isSignedIn();
        assertNotEquals(socketId, ann.socketId());
        for (String channel : channels) {
            backend.publish(channel, "placed", 1);
            ann.hears(event("placed", channel, "1"));
        }
        backend.publishToUser("ann", "hello", "1");
        ann.hears(event("hello", "#server-to-user-ann", "1"));
    }

    /** Reads the news of the channels being joined, which come in any order; presence tells its members first. */
    private static void joins(Device device, String... channels) {
        Set<String> missing = new HashSet<>(Set.of(channels));
        while (!missing.isEmpty()) {
            Heard heard = device.next();
            if (heard.what().equals("members")) {
                heard = device.next();
            }
            assertEquals("joined", heard.what(), heard.toString());
            assertTrue(missing.remove(heard.channel()), heard + " came twice");
        }
    }

    private static void joinsBoth(Device device) {
        joins(device, "private-orders", "presence-room");
    }

    private static Set<Heard> both(Device device) {
        Heard first = device.next();
        return Set.of(first, device.next());
    }

    private static Map<String, String> form(byte[] body) {
        Map<String, String> form = new HashMap<>();
        for (String pair : new String(body, StandardCharsets.UTF_8).split("&")) {
            int equals = pair.indexOf('=');
            form.put(pair.substring(0, equals), URLDecoder.decode(pair.substring(equals + 1), StandardCharsets.UTF_8));
        }
        return form;
    }
}
