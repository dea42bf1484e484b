package fanfare;

import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonParser;
import com.pusher.rest.Pusher;
import com.pusher.rest.SignatureUtil;
import com.pusher.rest.data.PresenceUser;
import com.pusher.rest.data.Result;
import java.util.Map;

import static org.junit.jupiter.api.Assertions.assertEquals;

/** The application's own server: it publishes, asks and lets connections in through the official server SDK. */
final class Backend {
    /** 32 bytes, base64. */
    static final String MASTER_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

    private static final Gson GSON = new Gson();

    final Pusher sdk;

    Backend(Broker broker) {
        this(broker, Broker.KEY, Broker.SECRET);
    }

    Backend(Broker broker, String key, String secret) {
        sdk = new Pusher(Broker.APP_ID, key, secret, MASTER_KEY);
        sdk.setHost(broker.address());
        sdk.setEncrypted(false);
    }

    void publish(String channel, String event, Object data) {
        succeeded("{}", sdk.trigger(channel, event, data));
    }

    /** The SDK has no call for this and refuses the channel's name in `trigger`, so the request is made by hand. */
    void publishToUser(String userId, String event, String data) {
        Map<String, String> body = Map.of("channel", "#server-to-user-" + userId, "name", event, "data", data);
        succeeded("{}", sdk.post("/events", GSON.toJson(body)));
    }

    Result terminate(String userId) {
        return sdk.post("/users/" + userId + "/terminate_connections", "{}");
    }

    JsonElement ask(String path, Map<String, String> parameters) {
        Result result = sdk.get(path, parameters);
        assertEquals(Result.Status.SUCCESS, result.getStatus(), result.getMessage());
        return JsonParser.parseString(result.getMessage());
    }

    int subscriptionCount(String channel) {
        return ask("/channels/" + channel, Map.of("info", "subscription_count"))
                .getAsJsonObject().get("subscription_count").getAsInt();
    }

    /** What the authorising endpoint answers; `member` is for presence channels. */
    String authorise(String socketId, String channel, PresenceUser member) {
        return channel.startsWith("presence-")
                ? sdk.authenticate(socketId, channel, member)
                : sdk.authenticate(socketId, channel);
    }

    /** What the user-authenticating endpoint answers. The SDK has no call for it, so it signs only. */
    static String authenticateUser(String socketId, String userData) {
        String signature = SignatureUtil.sign(socketId + "::user::" + userData, Broker.SECRET);
        return GSON.toJson(Map.of("auth", Broker.KEY + ":" + signature, "user_data", userData));
    }

    static void succeeded(String json, Result result) {
        assertEquals(Result.Status.SUCCESS, result.getStatus(), result.getMessage());
        assertEquals(JsonParser.parseString(json), JsonParser.parseString(result.getMessage()));
    }
}
