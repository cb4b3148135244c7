import com.aliyun.mns.client.AsyncCallback;
import com.aliyun.mns.client.CloudQueue;
import com.aliyun.mns.client.MNSClient;
import com.aliyun.mns.common.BatchDeleteException;
import com.aliyun.mns.common.BatchSendException;
import com.aliyun.mns.common.ServiceException;
import com.aliyun.mns.model.ErrorMessageResult;
import com.aliyun.mns.model.Message;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** Messages of queues. */
final class Messages {
    private static final String BODY = "a<b>&\"c'\t\n  d \u4f60\u597d \ud83d\ude00 ]]>";
    private final MNSClient client;

    Messages(MNSClient client) {
        this.client = client;
    }

    static Message message(String body) {
        return new Message(body);
    }

    static Message message(String body, int priority, int delay) {
        Message message = message(body);
        message.setPriority(priority);
        message.setDelaySeconds(delay);
        return message;
    }

    void run() throws Exception {
        CloudQueue queue = client.createQueue(Queues.meta("q", 30));
        one(queue);
        batches(queue);
        times(queue);
        later(queue);
        queue.delete();
    }

    private static void one(CloudQueue queue) {
        Message sent = queue.putMessage(message(BODY, 3, 0));
        Check.is(!sent.getMessageId().isEmpty(), "it has an id");
        Message seen = queue.peekMessage();
        Check.equal("the look", seen.getMessageBody(), BODY);
        Check.equal("the count", seen.getDequeueCount(), 0);
        Check.equal("the handle of a look", seen.getReceiptHandle(), null);
        Message got = queue.popMessage(5);
        Check.equal("the body", got.getMessageBody(), BODY);
        Check.equal("the id", got.getMessageId(), sent.getMessageId());
        Check.equal("the digest", got.getMessageBodyMD5(), sent.getMessageBodyMD5());
        Check.equal("the priority", got.getPriority(), 3);
        Check.equal("the count", got.getDequeueCount(), 1);
        long age = System.currentTimeMillis() - got.getEnqueueTime().getTime();
        Check.is(age >= 0 && age < 60_000, "the time of the send: " + got.getEnqueueTime());
        Check.is(got.getNextVisibleTime().getTime() - got.getFirstDequeueTime().getTime() == 30_000, "hidden for 30 s");
        Message changed = queue.changeMessageVisibility(got.getReceiptHandle(), 100);
        Check.is(changed.getNextVisibleTime().after(got.getNextVisibleTime()), "hidden for longer");
        Check.fails("MessageNotExist", () -> queue.deleteMessage(got.getReceiptHandle()));
        String handle = queue.changeMessageVisibilityTimeout(changed.getReceiptHandle(), 50);
        queue.deleteMessage(handle);
        Check.equal("a delete again", code(() -> queue.deleteMessage(handle)), "MessageNotExist");
        Check.fails("ReceiptHandleError", () -> queue.deleteMessage("nobody-gave-this"));
        Check.fails("ReceiptHandleError", () -> queue.changeMessageVisibility("nobody-gave-this", 5));
        Check.equal("an empty queue", queue.popMessage(0), null);
        Check.equal("an empty queue", queue.peekMessage(), null);

        // Bytes, and texts as they are.
        byte[] bytes = new byte[256];
        for (int at = 0; at < bytes.length; at++) {
            bytes[at] = (byte) at;
        }
        queue.putMessage(new Message(bytes));
        Message binary = queue.popMessage(5);
        Check.is(Arrays.equals(binary.getMessageBodyAsBytes(), bytes), "the bytes");
        queue.deleteMessage(binary.getReceiptHandle());
        Message raw = new Message();
        raw.setMessageBody(BODY, Message.MessageBodyType.RAW_STRING);
        queue.putMessage(raw);
        Message text = queue.popMessage(5);
        Check.equal("the text", text.getMessageBodyAsRawString(), BODY);
        queue.deleteMessage(text.getReceiptHandle());

        Check.fails("InvalidArgument", () -> queue.putMessage(message("x", 17, 0)));
        Check.fails("InvalidArgument", () -> queue.putMessage(message("x", 1, 604_801)));
        Check.fails("InvalidArgument", () -> queue.putMessage(message("x".repeat(66_000))));
        // Signs that no XML may have.
        Message malformed = new Message();
        malformed.setMessageBody("\u0001", Message.MessageBodyType.RAW_STRING);
        Check.fails("MalformedXML", () -> queue.putMessage(malformed));
    }

    private static String code(Runnable call) {
        try {
            call.run();
            return null;
        } catch (ServiceException refused) {
            return refused.getErrorCode();
        }
    }

    private static void batches(CloudQueue queue) {
        List<Message> sent =
            queue.batchPutMessage(List.of(message("low", 16, 0), message("high", 1, 0), message("late", 1, 100)));
        Check.equal("the batch", sent.size(), 3);
        Check.is(sent.get(2).getReceiptHandle() != null, "what is delayed has a handle");
        try {
            queue.batchPutMessage(List.of(message("middle", 8, 0), message("none", 17, 0)));
            throw new AssertionError("a priority that may not be was taken");
        } catch (BatchSendException partly) {
            Check.equal("the parts", partly.getMessages().size(), 2);
            Check.is(!partly.getMessages().get(0).isErrorMessage(), "the first was taken");
            Check.equal("the second", partly.getMessages().get(1).getErrorMessageDetail().getErrorCode(), "InvalidArgument");
        }
        Check.equal("the look", queue.batchPeekMessage(16).size(), 3);
        List<String> bodies = new ArrayList<>();
        List<String> handles = new ArrayList<>();
        for (Message message : queue.batchPopMessage(16, 5)) {
            bodies.add(message.getMessageBody());
            handles.add(message.getReceiptHandle());
        }
        Check.equal("the order", bodies, List.of("high", "middle", "low"));
        handles.add("nobody-gave-this");
        try {
            queue.batchDeleteMessage(handles);
            throw new AssertionError("a handle that nobody gave was taken");
        } catch (BatchDeleteException partly) {
            Map<String, ErrorMessageResult> failed = partly.getErrorMessages();
            Check.equal("what failed", failed.keySet(), Collections.singleton("nobody-gave-this"));
            Check.equal("why", failed.get("nobody-gave-this").getErrorCode(), "ReceiptHandleError");
        }
        Check.equal("the rest", queue.getAttributes().getDelayMessages(), 1L);
        Check.equal("an empty queue", queue.batchPopMessage(16), null);
        Check.equal("an empty queue", queue.batchPeekMessage(16), null);
        // What is delayed can be deleted before anybody sees it.
        queue.batchDeleteMessage(List.of(sent.get(2).getReceiptHandle()));
        Check.equal("the rest", queue.getAttributes().getDelayMessages(), 0L);
        Check.fails("InvalidArgument", () -> queue.batchPopMessage(17));
    }

    private static void times(CloudQueue queue) throws Exception {
        // A receive that waits gets what comes meanwhile; and a delay is never early.
        long begun = System.nanoTime();
        Thread sender = new Thread(() -> queue.putMessage(message("delayed", 8, 1)));
        sender.start();
        Message got = queue.popMessage(10);
        long took = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - begun);
        sender.join();
        Check.equal("the body", got.getMessageBody(), "delayed");
        Check.is(took >= 1000 && took < 5000, "it took " + took + " ms");
        begun = System.nanoTime();
        Check.equal("an empty queue", queue.popMessage(1), null);
        took = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - begun);
        Check.is(took >= 950 && took < 4000, "it waited " + took + " ms");

        // What is not deleted in time comes again, with another handle; the one before it is of no use then.
        Message brief = queue.changeMessageVisibility(got.getReceiptHandle(), 1);
        Message again = queue.popMessage(10);
        Check.equal("the id", again.getMessageId(), got.getMessageId());
        Check.equal("the count", again.getDequeueCount(), 2);
        Check.fails("MessageNotExist", () -> queue.deleteMessage(brief.getReceiptHandle()));
        Check.fails("MessageNotExist", () -> queue.changeMessageVisibility(brief.getReceiptHandle(), 5));
        queue.deleteMessage(again.getReceiptHandle());
    }

    private static void later(CloudQueue queue) throws Exception {
        CountDownLatch told = new CountDownLatch(1);
        AsyncCallback<Message> callback = new AsyncCallback<>() {
            @Override
            public void onSuccess(Message result) {
                told.countDown();
            }

            @Override
            public void onFail(Exception failed) {
                failed.printStackTrace();
            }
        };
        Check.later(queue.asyncPutMessage(message("one"), callback));
        Check.is(told.await(10, TimeUnit.SECONDS), "the callback was called");
        Check.equal("the look", Check.later(queue.asyncPeekMessage(null)).getMessageBody(), "one");
        Message got = Check.later(queue.asyncPopMessage(5, null));
        Message changed = Check.later(queue.asyncChangeMessageVisibility(got.getReceiptHandle(), 40, null));
        String handle = Check.later(queue.asyncChangeMessageVisibilityTimeout(changed.getReceiptHandle(), 41, null));
        Check.later(queue.asyncDeleteMessage(handle, null));
        Check.equal("the batch", Check.later(queue.asyncBatchPutMessage(List.of(message("a"), message("b")), null)).size(), 2);
        Check.equal("the look", Check.later(queue.asyncBatchPeekMessage(16, null)).size(), 2);
        List<Message> all = Check.later(queue.asyncBatchPopMessage(1, null));
        all = new ArrayList<>(all);
        all.addAll(Check.later(queue.asyncBatchPopMessage(16, 5, null)));
        Check.equal("the batch", all.size(), 2);
        List<String> handles = new ArrayList<>();
        all.forEach(message -> handles.add(message.getReceiptHandle()));
        Check.later(queue.asyncBatchDeleteMessage(handles, null));
        Check.failsLater("ReceiptHandleError", queue.asyncDeleteMessage("nobody-gave-this", null));
        Check.failsLater("MessageNotExist", queue.asyncPopMessage(null));
    }
}
