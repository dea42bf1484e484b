package fanfare;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The broker under test: one process with its own configuration and a port of its own, stopped by SIGTERM, which
 * must end in exit code 0.
 */
final class Broker implements AutoCloseable {
    static final String APP_ID = "1";
    static final String KEY = "app-key";
    static final String SECRET = "app-secret";
    static final long DEADLINE_S = 10;

    private static final Pattern LISTENING = Pattern.compile("listening on http://(\\S+):(\\d+)");

    private final Path directory;
    private Process process;
    private int port;

    /**
     * Starts a broker with one app, client events included. Each setting is `section.key = value` in TOML, where the section is `app` or
     * one of the configuration's own.
     */
    Broker(String... settings) {
        String app = of("app", settings);
        try {
            directory = Files.createTempDirectory("fanfare-");
            Files.writeString(config(), String.join("\n",
                    "[server]",
                    "bind = \"127.0.0.1:0\"",
                    "[metrics]",
                    "bind = \"\"",
                    "[connection]",
                    of("connection", settings),
                    "[[apps]]",
                    "id = \"" + APP_ID + "\"",
                    "keys = [{ key = \"" + KEY + "\", secret = \"" + SECRET + "\" }]",
                    app.contains("client_events =") ? "" : "client_events = true",
                    app));
        } catch (IOException e) {
            throw new AssertionError(e);
        }
        start();
    }

    /** host:port, as the SDKs want it. */
    String address() {
        return "127.0.0.1:" + port;
    }

    int port() {
        return port;
    }

    void restart() {
        stop();
        start();
    }

    void stop() {
        if (process == null) {
            return;
        }
        Process ending = process;
        process = null;
        // Not Process.destroy(), which closes the broker's standard output before its end.
        ending.toHandle().destroy();
        try {
            if (!ending.waitFor(DEADLINE_S, TimeUnit.SECONDS)) {
                ending.destroyForcibly().waitFor();
                throw new AssertionError("the broker ignored SIGTERM:\n" + log());
            }
        } catch (InterruptedException e) {
            throw new AssertionError(e);
        }
        if (ending.exitValue() != 0) {
            throw new AssertionError("the broker ended with " + ending.exitValue() + ":\n" + log());
        }
    }

    @Override
    public void close() {
        stop();
        try {
            Files.deleteIfExists(config());
            Files.deleteIfExists(stderr());
            Files.deleteIfExists(directory);
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    /** Runs the process; a second start takes the port of the first. */
    private void start() {
        List<String> command = new ArrayList<>(List.of(binary(), "serve", "--config", config().toString()));
        if (port != 0) {
            command.addAll(List.of("--bind", address()));
        }
        CompletableFuture<Integer> listening = new CompletableFuture<>();
        try {
            ProcessBuilder builder = new ProcessBuilder(command)
                    .redirectError(ProcessBuilder.Redirect.appendTo(stderr().toFile()));
            // Only the file configures it, whatever else is set on this machine.
            builder.environment().keySet().removeIf(name -> name.startsWith("FANFARE_"));
            process = builder.start();
            BufferedReader stdout = process.inputReader(StandardCharsets.UTF_8);
            Thread reader = new Thread(() -> readStdout(stdout, listening), "broker stdout");
            reader.setDaemon(true);
            reader.start();
            port = listening.get(DEADLINE_S, TimeUnit.SECONDS);
        } catch (IOException | InterruptedException | ExecutionException | TimeoutException e) {
            if (process != null) {
                process.destroyForcibly();
                process = null;
            }
            throw new AssertionError("the broker did not come up:\n" + log(), e);
        }
    }

    private static void readStdout(BufferedReader stdout, CompletableFuture<Integer> listening) {
        try (stdout) {
            for (String line = stdout.readLine(); line != null; line = stdout.readLine()) {
                Matcher found = LISTENING.matcher(line);
                if (found.find()) {
                    listening.complete(Integer.valueOf(found.group(2)));
                }
            }
        } catch (IOException e) {
            listening.completeExceptionally(e);
        }
        listening.completeExceptionally(new IOException("its output ended"));
    }

    private static String binary() {
        String path = System.getenv("FANFARE_BIN");
        if (path == null || !Path.of(path).isAbsolute()) {
            throw new AssertionError("FANFARE_BIN must be the absolute path of the fanfare binary");
        }
        return path;
    }

    private static String of(String section, String... settings) {
        StringBuilder lines = new StringBuilder();
        for (String setting : settings) {
            if (setting.startsWith(section + ".")) {
                lines.append(setting.substring(section.length() + 1)).append('\n');
            }
        }
        return lines.toString();
    }

    private Path config() {
        return directory.resolve("fanfare.toml");
    }

    private Path stderr() {
        return directory.resolve("stderr.log");
    }

    private String log() {
        try {
            return Files.exists(stderr()) ? Files.readString(stderr()) : "";
        } catch (IOException e) {
            return e.toString();
        }
    }
}
