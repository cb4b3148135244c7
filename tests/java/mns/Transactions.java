import com.aliyun.mns.client.CloudQueue;
import com.aliyun.mns.client.MNSClient;
import com.aliyun.mns.client.TransactionQueue;
import com.aliyun.mns.model.Message;

/** The SDK's transactions: messages with a long delay that is taken back, or that are deleted before it ends. */
final class Transactions {
    private final MNSClient client;

    Transactions(MNSClient client) {
        this.client = client;
    }

    void run() {
        TransactionQueue plain = client.createTransQueue(Queues.meta("trans", 30));
        CloudQueue queue = plain.getInnerQueue();
        Check.equal("the delay", queue.getAttributes().getDelaySeconds(), TransactionQueue.DEFAULT_DELAY＿TIME_IN_SECONDS);
        Message sent = plain.sendTransMessage(Messages.message("kept"), message -> true);
        Check.equal("one that is rolled back", plain.sendTransMessage(Messages.message("not"), message -> false), null);
        Message got = queue.popMessage(10);
        Check.equal("the id", got.getMessageId(), sent.getMessageId());
        Check.equal("the body", got.getMessageBody(), "kept");
        queue.deleteMessage(got.getReceiptHandle());
        Check.equal("the delayed", queue.getAttributes().getDelayMessages(), 0L);
        Check.equal("the notes", plain.getTransOpLogQueue().getAttributes().getDelayMessages(), 0L);

        // What nobody ended is asked for, and ended by the answer.
        TransactionQueue checked = client.getTransQueueRef("trans", message -> true);
        checked.setCheckIntervalInMillsecond(100);
        Message open = checked.sendPrepareMessage(Messages.message("ended by the check"));
        checked.getTransOpLogQueue().putMessage(new Message(open.getReceiptHandle()));
        Check.equal("the body", queue.popMessage(20).getMessageBody(), "ended by the check");
        checked.stopCheckThread();
        plain.delete();
        Check.fails("QueueNotExist", queue::getAttributes);
    }
}
