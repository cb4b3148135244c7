import com.aliyun.mns.client.CloudPullTopic;
import com.aliyun.mns.client.CloudQueue;
import com.aliyun.mns.client.CloudTopic;
import com.aliyun.mns.client.MNSClient;
import com.aliyun.mns.model.Base64TopicMessage;
import com.aliyun.mns.model.MailAttributes;
import com.aliyun.mns.model.Message;
import com.aliyun.mns.model.MessageAttributes;
import com.aliyun.mns.model.PagingListResult;
import com.aliyun.mns.model.RawTopicMessage;
import com.aliyun.mns.model.SmsAttributes;
import com.aliyun.mns.model.SubscriptionMeta;
import com.aliyun.mns.model.SubscriptionMeta.NotifyContentFormat;
import com.aliyun.mns.model.SubscriptionMeta.NotifyStrategy;
import com.aliyun.mns.model.TopicMessage;
import com.aliyun.mns.model.TopicMeta;
import java.util.ArrayList;
import java.util.List;
import java.util.Vector;

/** Topics and subscriptions. */
final class Topics {
    private final MNSClient client;

    Topics(MNSClient client) {
        this.client = client;
    }

    private static TopicMeta meta(String name, long size) {
        TopicMeta meta = new TopicMeta();
        meta.setTopicName(name);
        meta.setMaxMessageSize(size);
        return meta;
    }

    private static SubscriptionMeta to(String name, String endpoint, NotifyContentFormat format, String tag) {
        SubscriptionMeta meta = new SubscriptionMeta();
        meta.setSubscriptionName(name);
        meta.setEndpoint(endpoint);
        meta.setNotifyContentFormat(format);
        meta.setNotifyStrategy(NotifyStrategy.EXPONENTIAL_DECAY_RETRY);
        meta.setFilterTag(tag);
        return meta;
    }

    private static <T extends TopicMessage> T message(T message, String body, String tag) {
        message.setMessageBody(body);
        message.setMessageTag(tag);
        return message;
    }

    void run() throws Exception {
        CloudTopic topic = topics();
        try (Hook hook = new Hook()) {
            CloudQueue queue = client.createQueue(Queues.meta("pushed", 30));
            subscriptions(topic, hook);
            pushes(topic, queue, hook);
        }
        ends(topic);
        pulls();
    }

    private CloudTopic topics() {
        TopicMeta meta = meta("t", 2048);
        meta.setLoggingEnabled(true);
        CloudTopic topic = client.createTopic(meta);
        Check.is(topic.getTopicURL().endsWith("/topics/t"), topic.getTopicURL());
        Check.is(topic.create(meta).endsWith("/topics/t"), "the address is told again");
        Check.fails("TopicAlreadyExist", () -> topic.create(meta("t", 4096)));
        topic.setAttribute(meta("t", 4096));
        TopicMeta told = topic.getAttribute();
        Check.equal("the name", told.getTopicName(), "t");
        Check.equal("the size", told.getMaxMessageSize(), 4096L);
        Check.equal("the log", told.isLoggingEnabled(), false);
        Check.equal("the messages", told.getMessageCount(), 0L);
        Check.is(told.getMessageRetentionPeriod() > 0 && told.getCreateTime() > 0, "there are times");
        Check.equal("the size", Check.later(topic.asyncGetAttribute(null)).getMaxMessageSize(), 4096L);
        // The SDK sends this one, a topic, to a queue of the topic's name.
        Check.failsLater("MalformedXML", topic.asyncSetAttribute(meta("t", 8192), null));
        for (String name : List.of("page-1", "page-2", "page-3")) {
            client.getTopicRef(name).create();
        }
        List<String> names = new ArrayList<>();
        String marker = "";
        do {
            PagingListResult<TopicMeta> page = client.listTopic("page-", marker, 2);
            page.getResult().forEach(one -> names.add(one.getTopicName()));
            marker = page.getMarker();
        } while (marker != null && !marker.isEmpty());
        Check.equal("all pages", names, List.of("page-1", "page-2", "page-3"));
        Check.is(client.listTopicURL("page-", "", 1).getResult().get(0).endsWith("/topics/page-1"), "the address");
        client.getTopicRef("page-1").delete();
        Check.later(client.getTopicRef("page-2").asyncDelete(null));
        Check.fails("TopicNotExist", () -> client.getTopicRef("page-1").getAttribute());
        RawTopicMessage lost = message(new RawTopicMessage(), "x", null);
        Check.fails("TopicNotExist", () -> client.getTopicRef("page-2").publishMessage(lost));
        Check.fails("TopicNameInvalid", () -> client.getTopicRef("a.b").create());
        return topic;
    }

    private static void subscriptions(CloudTopic topic, Hook hook) {
        String endpoint = topic.generateQueueEndpoint("pushed");
        Check.equal("the endpoint", endpoint, "acs:mns:cn-test:1234:queues/pushed");
        SubscriptionMeta red = to("queue", endpoint, NotifyContentFormat.SIMPLIFIED, "red");
        Check.is(topic.subscribe(red).endsWith("/topics/t/subscriptions/queue"), "the address");
        Check.is(topic.subscribe(red).endsWith("/topics/t/subscriptions/queue"), "the address is told again");
        SubscriptionMeta other = to("queue", endpoint, NotifyContentFormat.XML, "red");
        Check.fails("SubscriptionAlreadyExist", () -> topic.subscribe(other));
        topic.subscribe(to("xml", hook.url("/xml"), NotifyContentFormat.XML, null));
        topic.subscribe(to("simplified", hook.url("/simplified"), NotifyContentFormat.SIMPLIFIED, null));
        String address = Check.later(topic.asyncSubscribe(to("json", hook.url("/json"), NotifyContentFormat.JSON, "red"), null));
        Check.is(address.endsWith("/topics/t/subscriptions/json"), address);
        SubscriptionMeta strategy = new SubscriptionMeta();
        strategy.setSubscriptionName("queue");
        strategy.setNotifyStrategy(NotifyStrategy.BACKOFF_RETRY);
        topic.setSubscriptionAttr(strategy);
        SubscriptionMeta told = topic.getSubscriptionAttr("queue");
        Check.equal("the strategy", told.getNotifyStrategy(), NotifyStrategy.BACKOFF_RETRY);
        Check.equal("the format", told.getNotifyContentFormat(), NotifyContentFormat.SIMPLIFIED);
        Check.equal("the filter", told.getFilterTag(), "red");
        Check.equal("the endpoint", told.getEndpoint(), endpoint);
        Check.equal("the topic", told.getTopicName(), "t");
        strategy.setNotifyStrategy(NotifyStrategy.EXPONENTIAL_DECAY_RETRY);
        Check.later(topic.asyncSetSubscriptionAttr(strategy, null));
        Check.equal("the strategy", Check.later(topic.asyncGetSubscriptionAttr("queue", null)).getNotifyStrategy(),
            NotifyStrategy.EXPONENTIAL_DECAY_RETRY);
        PagingListResult<SubscriptionMeta> page = topic.listSubscriptions("", "", 3);
        Check.equal("the page", page.getResult().size(), 3);
        Check.equal("the first", page.getResult().get(0).getSubscriptionName(), "json");
        page = topic.listSubscriptions("", page.getMarker(), 3);
        Check.equal("the last", page.getResult().get(0).getSubscriptionName(), "xml");
        Check.is(topic.listSubscriptionUrls("q", "", 3).getResult().get(0).endsWith("/subscriptions/queue"), "the address");
        // There is nobody here who could bring mail or short messages.
        for (String odd : List.of(topic.generateMailEndpoint("a@example.com"), topic.generateSmsEndpoint(), "nowhere")) {
            Check.fails("EndpointInvalid", () -> topic.subscribe(to("odd", odd, NotifyContentFormat.SIMPLIFIED, null)));
        }
    }

    private static void pushes(CloudTopic topic, CloudQueue queue, Hook hook) throws Exception {
        TopicMessage sent = topic.publishMessage(message(new RawTopicMessage(), "hello \u6728 <&>", "red"));
        Message pushed = queue.popMessage(10);
        Check.equal("the body", pushed.getMessageBodyAsRawString(), "hello \u6728 <&>");
        queue.deleteMessage(pushed.getReceiptHandle());
        String xml = hook.next("/xml");
        for (String part : List.of("<TopicName>t</TopicName>", "<SubscriptionName>xml</SubscriptionName>",
            "<MessageId>" + sent.getMessageId() + "</MessageId>", "<MessageTag>red</MessageTag>",
            "<Message>hello \u6728 &lt;&amp;&gt;</Message>", "<MessageMD5>" + sent.getMessageBodyMD5() + "</MessageMD5>")) {
            Check.is(xml.contains(part), part + " in " + xml);
        }
        Check.equal("the text", hook.next("/simplified"), "hello \u6728 <&>");
        Check.is(hook.next("/json").contains("\"MessageId\":\"" + sent.getMessageId() + "\""), "the object");

        Base64TopicMessage base64 = message(new Base64TopicMessage(), "blue one", "blue");
        Check.later(topic.asyncPublishMessage(base64, null));
        Check.equal("the text", hook.next("/simplified"), "Ymx1ZSBvbmU=");
        Check.equal("what a filter keeps out", queue.popMessage(1), null);

        MessageAttributes attributes = new MessageAttributes();
        MailAttributes mail = new MailAttributes();
        mail.setAccountName("a@example.com");
        mail.setSubject("a subject");
        attributes.setMailAttributes(mail);
        SmsAttributes sms = new SmsAttributes();
        sms.setFreeSignName("sign");
        sms.setTemplateCode("SMS_1");
        sms.setReceiver("15000000000");
        sms.setSmsParam("name", "value");
        attributes.setSmsAttributes(sms);
        Check.is(!topic.publishMessage(message(new RawTopicMessage(), "to all", null), attributes).getMessageId().isEmpty(),
            "it has an id");
        Check.equal("the text", hook.next("/simplified"), "to all");
        Check.fails("InvalidArgument", () -> topic.publishMessage(message(new RawTopicMessage(), "x".repeat(4097), null)));
        Check.fails("InvalidArgument", () -> topic.publishMessage(message(new RawTopicMessage(), "x", "t".repeat(17))));
    }

    private static void ends(CloudTopic topic) {
        topic.unsubscribe("queue");
        Check.fails("SubscriptionNotExist", () -> topic.getSubscriptionAttr("queue"));
        Check.later(topic.asyncUnsubscribe("json", null));
        Check.failsLater("SubscriptionNotExist", topic.asyncGetSubscriptionAttr("json", null));
        topic.delete();
        Check.fails("TopicNotExist", topic::getAttribute);
        Check.fails("TopicNotExist", () -> topic.getSubscriptionAttr("xml"));
    }

    /** A topic and queues that the SDK keeps together. */
    private void pulls() {
        Vector<String> queues = new Vector<>(List.of("pull-1", "pull-2"));
        CloudPullTopic topic = client.createPullTopic(meta("pull", 65_536), queues, true, Queues.meta("x", 30));
        topic.publishMessage(message(new Base64TopicMessage(), "for both", null));
        for (String name : queues) {
            Check.equal("the body", client.getQueueRef(name).popMessage(10).getMessageBody(), "for both");
        }
        topic.delete();
        Check.fails("TopicNotExist", topic.getRawTopic()::getAttribute);
        Vector<String> tags = new Vector<>(List.of("a", "b"));
        topic = client.createPullTopic(meta("pull", 65_536), queues, true, null, tags);
        topic.publishMessage(message(new Base64TopicMessage(), "for one", "b"));
        Check.equal("the body", client.getQueueRef("pull-2").popMessage(10).getMessageBody(), "for one");
        Check.equal("the other", client.getQueueRef("pull-1").popMessage(0), null);
        topic.delete(true);
        Check.fails("QueueNotExist", () -> client.getQueueRef("pull-1").getAttributes());
    }
}
