package fanfare;

import com.pusher.client.PusherOptions;
import com.pusher.rest.data.PresenceUser;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.AfterEach;

/** What the tests share: a broker, the application's server and the devices, gone at the end of each test. */
abstract class Story {
    protected Broker broker;
    protected Backend backend;

    private final List<AutoCloseable> open = new ArrayList<>();

    /** Starts the broker of the test; for settings see {@link Broker}. */
    protected void given(String... settings) {
        broker = ending(new Broker(settings));
        backend = new Backend(broker);
    }

    protected <T extends AutoCloseable> T ending(T thing) {
        open.add(0, thing);
        return thing;
    }

    protected Device guest() {
        return device(new PresenceUser("guest"), null, UnaryOperator.identity());
    }

    /** A device whose user is a member of presence channels by this id, with a name in capitals. */
    protected Device member(String id) {
        return device(new PresenceUser(id, Map.of("name", id.toUpperCase())), null, UnaryOperator.identity());
    }

    /** A device that will be authenticated with this user data once it signs in. */
    protected Device user(String userData) {
        return device(new PresenceUser("guest"), userData, UnaryOperator.identity());
    }

    protected Device device(PresenceUser member, String userData, UnaryOperator<PusherOptions> options) {
        return ending(new Device(broker, Broker.KEY,
                (channel, socketId) -> backend.authorise(socketId, channel, member),
                socketId -> Backend.authenticateUser(socketId, userData),
                options));
    }

    @AfterEach
    void end() throws Exception {
        for (AutoCloseable thing : open) {
            thing.close();
        }
    }
}
