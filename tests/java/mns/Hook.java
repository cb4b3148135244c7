import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** An endpoint of subscriptions; it keeps what came to each path. */
final class Hook implements AutoCloseable {
    private final HttpServer server;
    private final Map<String, BlockingQueue<String>> came = new ConcurrentHashMap<>();

    Hook() throws IOException {
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", exchange -> {
            String body = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
            at(exchange.getRequestURI().getPath()).add(body);
            exchange.sendResponseHeaders(204, -1);
            exchange.close();
        });
        server.start();
    }

    private BlockingQueue<String> at(String path) {
        return came.computeIfAbsent(path, any -> new LinkedBlockingQueue<>());
    }

    String url(String path) {
        return "http://127.0.0.1:" + server.getAddress().getPort() + path;
    }

    /** What came next to a path. */
    String next(String path) throws InterruptedException {
        String body = at(path).poll(10, TimeUnit.SECONDS);
        Check.is(body != null, "something came to " + path);
        return body;
    }

    @Override
    public void close() {
        server.stop(0);
    }
}
