package fanfare;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.pusher.client.channel.PrivateChannel;
import com.pusher.rest.Pusher;
import com.pusher.rest.PusherAsync;
import com.pusher.rest.data.Event;
import com.pusher.rest.data.Result;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static fanfare.Backend.succeeded;
import static fanfare.Device.Heard.event;
import static fanfare.Device.Heard.joined;
import static fanfare.Device.Heard.members;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

@DisplayName("The Java server SDK")
class ServerSdkTest extends Story {

    // Publishing

    @Test
    @DisplayName("P88: trigger reaches one channel and many")
    void trigger() {
        given();
        Device ann = listener("orders");
        Device bob = listener("news");

        succeeded("{}", backend.sdk.trigger("orders", "placed", Map.of("total", "12 €")));
        succeeded("{}", backend.sdk.trigger(List.of("orders", "news"), "placed", "text"));
        succeeded("{}", backend.sdk.trigger(List.of("orders", "orders"), "placed", 3));
        succeeded("{}", backend.sdk.trigger("orders", "marker", 4));

        ann.hears(
                event("placed", "orders", "{\"total\":\"12 €\"}"),
                event("placed", "orders", "\"text\""),
                event("placed", "orders", "3"),
                event("marker", "orders", "4"));
        bob.hears(event("placed", "news", "\"text\""));
    }

    @Test
    @DisplayName("P76: a hundred channels at once")
    void hundredChannels() {
        given();
        Device ann = listener("c-99");

        succeeded("{}", backend.sdk.trigger(
                IntStream.range(0, 100).mapToObj(number -> "c-" + number).toList(), "placed", 1));

        ann.hears(event("placed", "c-99", "1"));
        refused(400, "Missing required parameter: channels\n", backend.sdk.trigger(Collections.emptyList(), "placed", 1));
    }

    @Test
    @DisplayName("P39: data arrives byte for byte")
    void bytes() {
        given();
        Device ann = listener("orders");
        backend.sdk.setDataMarshaller(data -> (String) data);
        List<String> texts = List.of("", " padded\n", "{\"a\" : 1 ,\"b\":[ ]}", "Zoë 日本 🎉 \\u00eb \" \\ / \t\n\u0001 <&>", "null",
                "x".repeat(10_240));

        for (String text : texts) {
            succeeded("{}", backend.sdk.trigger("orders", "placed", text));
        }

        for (String text : texts) {
            ann.hears(event("placed", "orders", text));
        }
    }

    @Test
    @DisplayName("P79: socket_id spares the connection that caused the event")
    void socketId() {
        given();
        Device ann = listener("orders");
        Device bob = listener("orders");

        succeeded("{}", backend.sdk.trigger("orders", "placed", 1, ann.socketId()));
        succeeded("{}", backend.sdk.trigger(List.of("orders", "news"), "placed", 2, ann.socketId()));
        succeeded("{}", backend.sdk.trigger(List.of(new Event("orders", "placed", 3, ann.socketId()))));
        succeeded("{}", backend.sdk.trigger("orders", "marker", 4, "1.1"));

        ann.hears(event("marker", "orders", "4"));
        bob.hears(
                event("placed", "orders", "1"),
                event("placed", "orders", "2"),
                event("placed", "orders", "3"),
                event("marker", "orders", "4"));
    }

    @Test
    @DisplayName("P81: a batch is published in order, sealed where the channel is encrypted")
    void batch() {
        given();
        Device ann = listener("orders");
        Device bob = listener("private-encrypted-vault");

        succeeded("{}", backend.sdk.trigger(List.of(
                new Event("orders", "placed", 1),
                new Event("private-encrypted-vault", "placed", Map.of("pin", 1234)),
                new Event("orders", "placed", 2))));

        ann.hears(event("placed", "orders", "1"), event("placed", "orders", "2"));
        bob.hears(event("placed", "private-encrypted-vault", "{\"pin\":1234}"));
    }

    @Test
    @DisplayName("P81: eleven events are too many and none is published; ten and none are fine")
    void batchLimits() {
        given();
        Device ann = listener("orders");
        List<Event> events = new ArrayList<>();
        IntStream.range(0, 11).forEach(number -> events.add(new Event("orders", "placed", number)));

        refused(400, "Batch too large (11 > 10)\n", backend.sdk.trigger(events));
        succeeded("{}", backend.sdk.trigger(events.subList(1, 11)));
        succeeded("{}", backend.sdk.trigger(Collections.emptyList()));

        for (int number = 1; number < 11; number++) {
            ann.hears(event("placed", "orders", String.valueOf(number)));
        }
    }

    @Test
    @DisplayName("P80, P81: info is answered per channel and per event of a batch")
    void info() {
        given();
        enter("presence-room", "ann", "bob", "bob");

        succeeded("{\"channels\":{\"presence-room\":{\"user_count\":2,\"subscription_count\":3},\"orders\":{\"subscription_count\":0}}}",
                backend.sdk.post("/events",
                        "{\"name\":\"e\",\"channels\":[\"presence-room\",\"orders\"],\"data\":\"1\",\"info\":\"user_count,subscription_count\"}"));
        succeeded("{\"batch\":[{},{\"user_count\":2}]}",
                backend.sdk.post("/batch_events",
                        "{\"batch\":[{\"name\":\"e\",\"channel\":\"orders\",\"data\":\"1\"},"
                                + "{\"name\":\"e\",\"channel\":\"presence-room\",\"data\":\"2\",\"info\":\"user_count\"}]}"));
    }

    @Test
    @DisplayName("P88: the asynchronous SDK passes, many calls at once")
    void asynchronous() throws Exception {
        given();
        Device ann = listener("orders");
        try (PusherAsync sdk = new PusherAsync(Broker.APP_ID, Broker.KEY, Broker.SECRET)) {
            sdk.setHost(broker.address());
            sdk.setEncrypted(false);

            var results = IntStream.range(0, 20).mapToObj(number -> sdk.trigger("orders", "placed", number)).toList();

            for (var result : results) {
                succeeded("{}", result.get(Broker.DEADLINE_S, TimeUnit.SECONDS));
            }
            TreeSet<Integer> heard = new TreeSet<>();
            IntStream.range(0, 20).forEach(number -> heard.add(Integer.valueOf(ann.next().data())));
            assertEquals(20, heard.size());
            succeeded("{\"channels\":{\"orders\":{}}}", sdk.get("/channels").get(Broker.DEADLINE_S, TimeUnit.SECONDS));
            succeeded("{}", sdk.trigger(List.of(new Event("orders", "placed", 21))).get(Broker.DEADLINE_S, TimeUnit.SECONDS));
            ann.hears(event("placed", "orders", "21"));
        }
    }

    // Asking

    @Test
    @DisplayName("P70, P82: GET channels lists and counts, with its comma percent-encoded")
    void channels() {
        given();
        succeeded("{\"channels\":{}}", backend.sdk.get("/channels"));
        enter("presence-a", "ann");
        enter("presence-b", "ann", "bob");
        listener("orders");

        succeeded("{\"channels\":{\"presence-a\":{},\"presence-b\":{},\"orders\":{}}}", backend.sdk.get("/channels"));
        succeeded("{\"channels\":{\"orders\":{}}}", backend.sdk.get("/channels", Map.of("filter_by_prefix", "ord")));
        succeeded("{\"channels\":{\"presence-a\":{\"user_count\":1,\"subscription_count\":1},"
                        + "\"presence-b\":{\"user_count\":2,\"subscription_count\":2}}}",
                backend.sdk.get("/channels", Map.of("filter_by_prefix", "presence-", "info", "user_count,subscription_count")));
        refused(400, "user_count may only be requested for presence channels - "
                        + "please supply filter_by_prefix begining with presence-\n",
                backend.sdk.get("/channels", Map.of("info", "user_count")));
    }

    @Test
    @DisplayName("P83, P85: GET channel counts users and connections apart")
    void channel() {
        given();
        String room = "presence-a@b=c,d;e.f_g";
        enter(room, "ann", "bob", "bob");

        succeeded("{\"occupied\":true}", backend.sdk.get("/channels/" + room));
        succeeded("{\"occupied\":true,\"user_count\":2,\"subscription_count\":3}",
                backend.sdk.get("/channels/" + room, Map.of("info", "user_count,subscription_count")));
        succeeded("{\"occupied\":false}", backend.sdk.get("/channels/nobody-here"));
        refused(400, "Cannot retrieve the user count unless the channel is a presence channel\n",
                backend.sdk.get("/channels/orders", Map.of("info", "user_count")));
        refused(400, "Cannot retrieve the cache unless the channel is a cache channel\n",
                backend.sdk.get("/channels/orders", Map.of("info", "cache")));
    }

    @Test
    @DisplayName("P83: GET channel shows the cached event and how long it stays")
    void cache() {
        given("app.cache_ttl_s = 60");
        succeeded("{\"occupied\":false,\"cache\":null}", backend.sdk.get("/channels/cache-prices", Map.of("info", "cache")));

        backend.publish("cache-prices", "quoted", Map.of("eur", 1));

        JsonObject cache = backend.ask("/channels/cache-prices", Map.of("info", "cache"))
                .getAsJsonObject().getAsJsonObject("cache");
        assertEquals("{\"eur\":1}", cache.get("data").getAsString());
        assertTrue(cache.get("ttl").getAsInt() >= 50 && cache.get("ttl").getAsInt() <= 60, cache.toString());
    }

    @Test
    @DisplayName("P84, P86: GET users lists each user once and takes no parameters")
    void users() {
        given();
        enter("presence-room", "ann", "bob", "bob");

        JsonArray users = backend.ask("/channels/presence-room/users", Map.of()).getAsJsonObject().getAsJsonArray("users");

        TreeSet<String> ids = new TreeSet<>();
        for (JsonElement user : users) {
            assertTrue(ids.add(user.getAsJsonObject().get("id").getAsString()), users.toString());
        }
        assertEquals(List.of("ann", "bob"), List.copyOf(ids));
        succeeded("{\"users\":[]}", backend.sdk.get("/channels/presence-empty/users"));
        refused(400, "Users can only be retrieved for presence channels\n", backend.sdk.get("/channels/orders/users"));
        refused(400, "The following query string parameters are extraneous: info\n",
                backend.sdk.get("/channels/presence-room/users", Map.of("info", "user_count")));
    }

    @Test
    @DisplayName("P58: terminating a user nobody knows succeeds")
    void terminate() {
        given();

        succeeded("{}", backend.terminate("nobody"));
    }

    @Test
    @DisplayName("P70: a URI signed by the SDK works with another HTTP client")
    void signedUri() throws IOException, InterruptedException {
        given();
        Device ann = listener("orders");
        HttpClient http = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(Broker.DEADLINE_S)).build();
        String body = "{\"name\":\"placed\",\"channel\":\"orders\",\"data\":\"1\"}";

        URI get = backend.sdk.signedUri("GET", "/apps/" + Broker.APP_ID + "/channels", null, Map.of("filter_by_prefix", "o"));
        URI post = backend.sdk.signedUri("POST", "/apps/" + Broker.APP_ID + "/events", body);
        HttpResponse<String> channels = http.send(request(get).GET().build(), HttpResponse.BodyHandlers.ofString());
        HttpResponse<String> triggered = http.send(
                request(post).POST(HttpRequest.BodyPublishers.ofString(body)).build(), HttpResponse.BodyHandlers.ofString());
        HttpResponse<String> other = http.send(
                request(post).POST(HttpRequest.BodyPublishers.ofString(body + " ")).build(), HttpResponse.BodyHandlers.ofString());

        assertEquals(200, channels.statusCode(), channels.body());
        assertEquals("{\"channels\":{\"orders\":{}}}", channels.body());
        assertEquals(200, triggered.statusCode(), triggered.body());
        assertEquals("Invalid body_md5\n", other.body());
        assertEquals(401, other.statusCode());
        ann.hears(event("placed", "orders", "1"));
    }

    @Test
    @DisplayName("P88: a client made from a URL works")
    void fromUrl() throws Exception {
        given();
        try (Pusher sdk = new Pusher("http://" + Broker.KEY + ":" + Broker.SECRET + "@" + broker.address() + "/apps/" + Broker.APP_ID)) {
            succeeded("{\"channels\":{}}", sdk.get("/channels"));
        }
    }

    // Refusals, by the status the SDK gives them

    @Test
    @DisplayName("P71: wrong secrets and unknown keys are authentication errors")
    void authentication() {
        given();
        Pusher forged = new Backend(broker, Broker.KEY, "wrong").sdk;
        Pusher stranger = new Backend(broker, "unknown", Broker.SECRET).sdk;

        for (Result result : List.of(
                forged.trigger("orders", "placed", 1),
                forged.trigger(List.of(new Event("orders", "placed", 1))),
                forged.get("/channels"),
                forged.get("/channels/presence-room/users"),
                forged.post("/users/ann/terminate_connections", "{}"))) {
            assertEquals(Result.Status.AUTHENTICATION_ERROR, result.getStatus());
            assertTrue(result.getMessage().startsWith("Invalid signature: you should have sent HmacSHA256Hex("), result.getMessage());
        }
        for (Result result : List.of(stranger.trigger("orders", "placed", 1), stranger.get("/channels"))) {
            assertEquals(Result.Status.AUTHENTICATION_ERROR, result.getStatus());
            assertTrue(result.getMessage().startsWith("Unknown auth_key"), result.getMessage());
        }
    }

    @Test
    @DisplayName("P75: bad names, too much data, unknown apps and routes have their statuses")
    void statuses() throws Exception {
        given();
        Pusher sdk = backend.sdk;

        refused(400, "Invalid event name 'pusher:error'\n", sdk.trigger("orders", "pusher:error", 1));
        refused(400, "Event name too long (201 > 200)\n", sdk.trigger("orders", "x".repeat(201), 1));
        refused(400, "Invalid channel name '#server-to-user-'\n",
                sdk.post("/events", "{\"name\":\"e\",\"channel\":\"#server-to-user-\",\"data\":\"1\"}"));
        refused(400, "Invalid JSON provided\n", sdk.post("/events", "{"));
        refused(413, "The data content of this event exceeds the allowed maximum (10240 bytes)\n",
                sdk.trigger("orders", "placed", "x".repeat(10_239)));
        assertEquals(Result.Status.NOT_FOUND, sdk.get("/weather").getStatus());
        try (Pusher unknown = new Pusher("404", Broker.KEY, Broker.SECRET)) {
            unknown.setHost(broker.address());
            Result result = unknown.trigger("orders", "placed", 1);
            assertEquals(Result.Status.NOT_FOUND, result.getStatus());
            assertTrue(result.getMessage().startsWith("Unknown app_id"), result.getMessage());
        }
    }

    @Test
    @DisplayName("P75: a disabled app is forbidden, and that is not worth a retry")
    void disabled() {
        given("app.enabled = false");

        Result result = backend.sdk.trigger("orders", "placed", 1);

        assertEquals(Result.Status.MESSAGE_QUOTA_EXCEEDED, result.getStatus(), result.getMessage());
        assertFalse(result.getStatus().shouldRetry());
    }

    @Test
    @DisplayName("P66: a client event and a trigger on one channel both arrive, in their order")
    void alongsideClientEvents() {
        given();
        Device ann = listener("private-orders");
        Device bob = guest().join("private-orders", "client-typing", "placed").connect();
        bob.hears(joined("private-orders"));
        PrivateChannel channel = ann.pusher.getPrivateChannel("private-orders");

        channel.trigger("client-typing", "1");
        bob.hears(event("client-typing", "private-orders", "1"));
        succeeded("{}", backend.sdk.trigger("private-orders", "placed", 2));
        bob.hears(event("placed", "private-orders", "2"));
    }

    /** A device that has joined the channel and hears `placed` and `marker`. */
    private Device listener(String channel) {
        Device device = guest().join(channel, "placed", "marker").connect();
        device.hears(joined(channel));
        return device;
    }

    /** One device per id, in this order, all in the presence channel. */
    private void enter(String channel, String... ids) {
        TreeSet<String> present = new TreeSet<>();
        for (String id : ids) {
            present.add(id);
            member(id).join(channel).connect().hears(members(channel, String.join(",", present)), joined(channel));
        }
    }

    private static void refused(int status, String text, Result result) {
        assertEquals(text, result.getMessage());
        assertEquals(status, result.getHttpStatus());
    }

    private static HttpRequest.Builder request(URI uri) {
        return HttpRequest.newBuilder(uri).timeout(Duration.ofSeconds(Broker.DEADLINE_S));
    }
}
