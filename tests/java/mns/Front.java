import com.aliyun.mns.client.CloudAccount;
import com.aliyun.mns.client.MNSClient;
import com.aliyun.mns.model.AccountAttributes;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;

/** Starts `ceiba broker`, and does with the official SDK everything that it can do: `java Front PROGRAM`. */
public final class Front {
    /** The SDK reads account and region out of it; java is told that it is this machine. */
    static final String HOST = "1234.mns.cn-test.aliyuncs.com";

    private Front() {}

    public static void main(String[] arguments) throws Exception {
        ProcessBuilder builder = new ProcessBuilder(
            arguments[0], "broker", "--listen", "127.0.0.1:0", "--mns", "127.0.0.1:0", "--mns-private-endpoints");
        builder.environment().put("CEIBA_SECRET", "test");
        builder.environment().put("CEIBA_MNS_KEY", "key-id:key-secret");
        builder.redirectError(ProcessBuilder.Redirect.INHERIT);
        Process broker = builder.start();
        int status = 1;
        try {
            String endpoint = "http://" + HOST + ":" + port(broker);
            MNSClient client = new CloudAccount("key-id", "key-secret", endpoint).getMNSClient();
            new Queues(client).run();
            new Messages(client).run();
            new Transactions(client).run();
            new Topics(client).run();
            account(client, endpoint);
            client.close();
            status = 0;
        } catch (Throwable failed) {
            failed.printStackTrace();
        } finally {
            broker.destroy();
        }
        if (!broker.waitFor(10, TimeUnit.SECONDS) || broker.exitValue() != 0) {
            broker.destroyForcibly();
            System.err.println("the broker did not end well");
            status = 1;
        }
        if (status == 0) {
            System.out.println("the Java SDK of MNS: all operations");
        }
        // The SDK has threads that do not end.
        System.exit(status);
    }

    private static int port(Process broker) throws Exception {
        BufferedReader lines =
            new BufferedReader(new InputStreamReader(broker.getInputStream(), StandardCharsets.UTF_8));
        lines.readLine();
        String line = lines.readLine();
        Check.is(line != null && line.startsWith("mns on 127.0.0.1:"), "the broker names its address: " + line);
        return Integer.parseInt(line.substring(line.lastIndexOf(':') + 1));
    }

    private static void account(MNSClient client, String endpoint) {
        AccountAttributes attributes = new AccountAttributes();
        attributes.setLoggingBucket("logs");
        client.SetAccountAttributes(attributes);
        Check.equal("the bucket", client.GetAccountAttributes().getLoggingBucket(), "logs");
        Check.is(!client.openService().getOrderId().isEmpty(), "there is an order");
        // Temporary keys bring a token, which is not signed.
        MNSClient temporary = new CloudAccount("key-id", "key-secret", endpoint, "a-token").getMNSClient();
        Check.equal("the bucket", temporary.GetAccountAttributes().getLoggingBucket(), "logs");
        temporary.close();
        MNSClient wrong = new CloudAccount("key-id", "another", endpoint).getMNSClient();
        Check.fails("SignatureDoesNotMatch", wrong::GetAccountAttributes);
        Check.fails("SignatureDoesNotMatch", () -> wrong.getQueueRef("q").popMessage());
        wrong.close();
        MNSClient nobody = new CloudAccount("nobody", "key-secret", endpoint).getMNSClient();
        Check.fails("InvalidAccessKeyId", () -> nobody.getTopicRef("t").getAttribute());
        nobody.close();
    }
}
