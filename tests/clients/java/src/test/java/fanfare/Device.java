package fanfare;

import com.pusher.client.ChannelAuthorizer;
import com.pusher.client.Pusher;
import com.pusher.client.PusherOptions;
import com.pusher.client.UserAuthenticator;
import com.pusher.client.channel.PresenceChannelEventListener;
import com.pusher.client.channel.PrivateEncryptedChannelEventListener;
import com.pusher.client.channel.PusherEvent;
import com.pusher.client.channel.User;
import com.pusher.client.connection.ConnectionEventListener;
import com.pusher.client.connection.ConnectionState;
import com.pusher.client.connection.ConnectionStateChange;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.function.UnaryOperator;
import java.util.logging.Logger;
import java.util.stream.Collectors;

import static org.junit.jupiter.api.Assertions.assertEquals;

/**
 * A user's device: the official client with all it tells the application, in the order of the telling.
 *
 * Channels are joined before `connect()`, or after something was heard: between the connection and its first
 * news the client may subscribe twice by itself.
 */
final class Device implements AutoCloseable {
    /** An event, or one of the news of a channel: `joined`, `members`, `entered`, `left`, `refused`. */
    record Heard(String what, String channel, String data, String userId) {
        static Heard event(String name, String channel, String data) {
            return new Heard(name, channel, data, null);
        }

        static Heard joined(String channel) {
            return new Heard("joined", channel, null, null);
        }

        /** The members of a presence channel, sorted and separated by commas; told just before `joined`. */
        static Heard members(String channel, String ids) {
            return new Heard("members", channel, ids, null);
        }

        static Heard entered(String channel, String user, String info) {
            return new Heard("entered", channel, info, user);
        }

        static Heard left(String channel, String user) {
            return new Heard("left", channel, null, user);
        }
    }

    record Trouble(String code, String message) {}

    // The client logs what it also tells; one place is enough. Kept, since loggers are held weakly.
    private static final Logger CLIENT_LOG = Logger.getLogger("com.pusher.client");

    static {
        CLIENT_LOG.setUseParentHandlers(false);
    }

    final Pusher pusher;

    private final BlockingQueue<Heard> heard = new LinkedBlockingQueue<>();
    private final BlockingQueue<Trouble> troubles = new LinkedBlockingQueue<>();
    private final BlockingQueue<ConnectionState> states = new LinkedBlockingQueue<>();
    private final Ears ears = new Ears();

    Device(Broker broker, String key, ChannelAuthorizer authoriser, UserAuthenticator authenticator,
            UnaryOperator<PusherOptions> options) {
        pusher = new Pusher(key, options.apply(new PusherOptions()
                .setHost("127.0.0.1")
                .setWsPort(broker.port())
                .setUseTLS(false)
                .setMaxReconnectGapInSeconds(1)
                .setChannelAuthorizer(authoriser)
                .setUserAuthenticator(authenticator)));
    }

    Device join(String channel, String... events) {
        if (channel.startsWith("presence-")) {
            pusher.subscribePresence(channel, ears, events);
        } else if (channel.startsWith("private-encrypted-")) {
            pusher.subscribePrivateEncrypted(channel, ears, events);
        } else if (channel.startsWith("private-")) {
            pusher.subscribePrivate(channel, ears, events);
        } else {
            pusher.subscribe(channel, ears, events);
        }
        return this;
    }

    /** Signs in and listens to events for the user. */
    Device signIn(String... events) {
        for (String event : events) {
            pusher.user().bind(event, ears);
        }
        pusher.signin();
        return this;
    }

    /** Starts connecting, whatever comes of it. */
    Device open() {
        pusher.connect(new Watch(), ConnectionState.ALL);
        return this;
    }

    Device connect() {
        open();
        isNow(ConnectionState.CONNECTING, ConnectionState.CONNECTED);
        return this;
    }

    /** Insists that the next news are these. */
    void hears(Heard... wanted) {
        for (Heard want : wanted) {
            assertEquals(want, next());
        }
    }

    Heard next() {
        return Await.next(heard, "news");
    }

    Trouble trouble() {
        return Await.next(troubles, "error");
    }

    /** Insists that the connection goes through these states next. */
    void isNow(ConnectionState... wanted) {
        for (ConnectionState want : wanted) {
            assertEquals(want, Await.next(states, "change of state before " + want));
        }
    }

    /** Waits until the connection is in this state, whatever comes before. */
    void becomes(ConnectionState wanted) {
        while (Await.next(states, "change of state before " + wanted) != wanted) {
            continue;
        }
    }

    void isSignedIn() {
        Await.until("signed in", () -> pusher.user().userId() != null);
    }

    String socketId() {
        return pusher.getConnection().getSocketId();
    }

    ConnectionState state() {
        return pusher.getConnection().getState();
    }

    @Override
    public void close() {
        pusher.disconnect();
    }

    private final class Watch implements ConnectionEventListener {
        @Override
        public void onConnectionStateChange(ConnectionStateChange change) {
            states.add(change.getCurrentState());
        }

        @Override
        public void onError(String message, String code, Exception e) {
            if (e == null) { // exceptions are those of connecting while the broker is away
                troubles.add(new Trouble(code, message));
            }
        }
    }

    private final class Ears implements PresenceChannelEventListener, PrivateEncryptedChannelEventListener {
        @Override
        public void onEvent(PusherEvent event) {
            heard.add(new Heard(event.getEventName(), event.getChannelName(), event.getData(), event.getUserId()));
        }

        @Override
        public void onSubscriptionSucceeded(String channel) {
            heard.add(Heard.joined(channel));
        }

        @Override
        public void onUsersInformationReceived(String channel, Set<User> users) {
            heard.add(Heard.members(channel,
                    users.stream().map(User::getId).sorted().collect(Collectors.joining(","))));
        }

        @Override
        public void userSubscribed(String channel, User user) {
            heard.add(Heard.entered(channel, user.getId(), user.getInfo()));
        }

        @Override
        public void userUnsubscribed(String channel, User user) {
            heard.add(Heard.left(channel, user == null ? null : user.getId()));
        }

        @Override
        public void onAuthenticationFailure(String message, Exception e) {
            heard.add(new Heard("refused", null, message, null));
        }

        @Override
        public void onDecryptionFailure(String event, String reason) {
            heard.add(new Heard("undecipherable", null, reason, null));
        }
    }
}
