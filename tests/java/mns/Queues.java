import com.aliyun.mns.client.CloudQueue;
import com.aliyun.mns.client.MNSClient;
import com.aliyun.mns.model.PagingListResult;
import com.aliyun.mns.model.QueueMeta;
import java.util.ArrayList;
import java.util.List;

/** Queues themselves. */
final class Queues {
    private final MNSClient client;

    Queues(MNSClient client) {
        this.client = client;
    }

    static QueueMeta meta(String name, long visibility) {
        QueueMeta meta = new QueueMeta();
        meta.setQueueName(name);
        meta.setVisibilityTimeout(visibility);
        return meta;
    }

    void run() {
        QueueMeta meta = meta("admin", 9);
        meta.setDelaySeconds(2L);
        meta.setMaxMessageSize(4096L);
        meta.setMessageRetentionPeriod(3600L);
        meta.setPollingWaitSeconds(1);
        meta.setLoggingEnabled(true);
        CloudQueue queue = client.createQueue(meta);
        Check.is(queue.getQueueURL().endsWith("/queues/admin"), queue.getQueueURL());
        // The same again is well; other attributes are not.
        Check.is(queue.create(meta).endsWith("/queues/admin"), "the address is told again");
        Check.fails("QueueAlreadyExist", () -> client.createQueue(meta("admin", 10)));
        Check.is(queue.isQueueExist(), "there is the queue");
        QueueMeta told = queue.getAttributes();
        Check.equal("the name", told.getQueueName(), "admin");
        Check.equal("the visibility", told.getVisibilityTimeout(), 9L);
        Check.equal("the delay", told.getDelaySeconds(), 2L);
        Check.equal("the size", told.getMaxMessageSize(), 4096L);
        Check.equal("the retention", told.getMessageRetentionPeriod(), 3600L);
        Check.equal("the wait", told.getPollingWaitSeconds(), 1);
        Check.equal("the log", told.isLoggingEnabled(), true);
        Check.equal("messages", told.getActiveMessages() + told.getInactiveMessages() + told.getDelayMessages(), 0L);
        // Times come in seconds, which the SDK takes for milliseconds or not: they are there.
        Check.is(told.getCreateTime() != null && told.getLastModifyTime() != null, "there are times");
        queue.setAttributes(meta("admin", 30));
        Check.equal("the visibility", queue.getAttributes().getVisibilityTimeout(), 30L);
        Check.equal("the size", queue.getAttributes().getMaxMessageSize(), 4096L);
        QueueMeta wrong = meta("admin", 50_000);
        Check.fails("InvalidArgument", () -> queue.setAttributes(wrong));

        for (String name : List.of("page-1", "page-2", "page-3")) {
            client.getQueueRef(name).create();
        }
        List<String> names = new ArrayList<>();
        String marker = "";
        do {
            PagingListResult<QueueMeta> page = client.listQueue("page-", marker, 2);
            Check.is(page.getResult().size() <= 2, "a page has two");
            page.getResult().forEach(one -> names.add(one.getQueueName()));
            marker = page.getMarker();
        } while (marker != null && !marker.isEmpty());
        Check.equal("all pages", names, List.of("page-1", "page-2", "page-3"));
        PagingListResult<String> urls = client.listQueueURL("page-", "", 1);
        Check.is(urls.getResult().get(0).endsWith("/queues/page-1"), "the address");
        Check.is(urls.getMarker() != null, "there are more");
        PagingListResult<QueueMeta> none = client.listQueue("nothing-has-this", "", 10);
        Check.is(none == null || none.getResult() == null || none.getResult().isEmpty(), "there are none");

        client.getQueueRef("page-1").delete();
        Check.is(!client.getQueueRef("page-1").isQueueExist(), "it is gone");
        Check.fails("QueueNotExist", () -> client.getQueueRef("page-1").getAttributes());
        Check.fails("QueueNotExist", () -> client.getQueueRef("page-1").putMessage(Messages.message("x")));
        Check.fails("InvalidQueueName", () -> client.getQueueRef("a.b").create());
        Check.fails("QueueNameLengthError", () -> client.getQueueRef("q".repeat(257)).create());

        CloudQueue other = client.getQueueRef("later");
        Check.is(Check.later(other.asyncCreate(meta("later", 20), null)).endsWith("/queues/later"), "the address");
        Check.later(other.asyncSetAttributes(meta("later", 21), null));
        Check.equal("the visibility", Check.later(other.asyncGetAttributes(null)).getVisibilityTimeout(), 21L);
        Check.later(other.asyncDelete(null));
        Check.failsLater("QueueNotExist", other.asyncGetAttributes(null));
    }
}
