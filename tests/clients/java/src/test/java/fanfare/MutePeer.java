package fanfare;

import java.io.DataInputStream;
import java.io.IOException;
import java.net.Socket;
import java.nio.charset.StandardCharsets;

import static org.junit.jupiter.api.Assertions.assertTrue;

/** A connection that upgrades and then never says a word, not even a pong. */
final class MutePeer implements AutoCloseable {
    private static final int OPCODE_CLOSE = 8;

    private final Socket socket;
    private final DataInputStream in;

    MutePeer(Broker broker) throws IOException {
        socket = new Socket("127.0.0.1", broker.port());
        socket.setSoTimeout((int) (Broker.DEADLINE_S * 1000));
        in = new DataInputStream(socket.getInputStream());
        socket.getOutputStream().write(String.join("\r\n",
                "GET /app/" + Broker.KEY + "?protocol=7 HTTP/1.1",
                "Host: " + broker.address(),
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                "", "").getBytes(StandardCharsets.US_ASCII));
        StringBuilder head = new StringBuilder();
        while (head.indexOf("\r\n\r\n") < 0) {
            head.append((char) in.readUnsignedByte());
        }
        assertTrue(head.toString().startsWith("HTTP/1.1 101 "), head.toString());
    }

    /** Reads on until the broker closes, and returns the code of its close frame. */
    int closeCode() throws IOException {
        while (true) {
            int opcode = in.readUnsignedByte() & 0x0f;
            int length = in.readUnsignedByte();
            byte[] payload = in.readNBytes(length == 126 ? in.readUnsignedShort() : length);
            if (opcode == OPCODE_CLOSE) {
                return (payload[0] & 0xff) << 8 | payload[1] & 0xff;
            }
        }
    }

    @Override
    public void close() throws IOException {
        socket.close();
    }
}
