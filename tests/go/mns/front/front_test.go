// Package front drives the MNS front of `ceiba broker` with the official SDK: every operation that it has.
package front

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	ali_mns "github.com/aliyun/aliyun-mns-go-sdk"
	"github.com/gogap/errors"
	"github.com/valyala/fasthttp"
)

// to leads what is sent to a host of the service to the broker: the SDK takes no address of this machine.
type to struct{ client *fasthttp.HostClient }

func (t to) RoundTrip(_ *fasthttp.HostClient, req *fasthttp.Request, resp *fasthttp.Response) (bool, error) {
	return false, t.client.Do(req, resp)
}

// broker starts one and returns the address of its MNS.
func broker(t *testing.T, arguments ...string) string {
	t.Helper()
	program := os.Getenv("CEIBA")
	if program == "" {
		program = filepath.Join("..", "..", "..", "..", "target", "debug", "ceiba")
	}
	arguments = append([]string{"broker", "--listen", "127.0.0.1:0", "--mns", "127.0.0.1:0"}, arguments...)
	command := exec.Command(program, arguments...)
	command.Env = append(os.Environ(), "CEIBA_SECRET=test", "CEIBA_MNS_KEY=key-id:key-secret")
	command.Stderr = os.Stderr
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		if err := command.Wait(); err != nil {
			t.Errorf("the broker ended with %v", err)
		}
	})
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if address, found := strings.CutPrefix(lines.Text(), "mns on "); found {
			return address
		}
	}
	t.Fatal("the broker named no address")
	return ""
}

func client(address, secret string) ali_mns.MNSClient {
	client := ali_mns.NewAliMNSClientWithToken("http://1234.mns.cn-test.aliyuncs.com", "key-id", secret, "")
	client.SetTransport(to{&fasthttp.HostClient{Addr: address}})
	return client
}

func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func done(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fails(t *testing.T, err error, code errors.ErrCodeTemplate) {
	t.Helper()
	if err == nil || !code.IsEqual(err) {
		t.Fatalf("it ended with %v", err)
	}
}

func one(t *testing.T, call func(chan ali_mns.MessageReceiveResponse, chan error)) (ali_mns.MessageReceiveResponse, error) {
	t.Helper()
	got, failed := make(chan ali_mns.MessageReceiveResponse, 1), make(chan error, 1)
	call(got, failed)
	select {
	case message := <-got:
		return message, nil
	case err := <-failed:
		return ali_mns.MessageReceiveResponse{}, err
	}
}

func many(t *testing.T, call func(chan ali_mns.BatchMessageReceiveResponse, chan error)) ([]ali_mns.MessageReceiveResponse, error) {
	t.Helper()
	got, failed := make(chan ali_mns.BatchMessageReceiveResponse, 1), make(chan error, 1)
	call(got, failed)
	select {
	case messages := <-got:
		return messages.Messages, nil
	case err := <-failed:
		return nil, err
	}
}

func equal[T comparable](t *testing.T, what string, got, wanted T) {
	t.Helper()
	if got != wanted {
		t.Fatalf("%s is %v, not %v", what, got, wanted)
	}
}

func TestQueues(t *testing.T) {
	mns := client(broker(t), "key-secret")
	queues := ali_mns.NewMNSQueueManager(mns)
	done(t, queues.CreateQueue("q", 0, 4096, 3600, 9, 1, 2))
	fails(t, queues.CreateQueue("q", 0, 4096, 3600, 9, 1, 2), ali_mns.ERR_MNS_QUEUE_ALREADY_EXIST_AND_HAVE_SAME_ATTR)
	fails(t, queues.CreateSimpleQueue("q"), ali_mns.ERR_MNS_QUEUE_ALREADY_EXIST)
	done(t, queues.CreateSimpleQueue("p1"))
	done(t, queues.CreateQueueWithOptions("p2", ali_mns.WithVisibilityTimeout(77), ali_mns.WithLoggingEnabled(true)))
	done(t, queues.SetQueueAttributes("q", 0, 8192, 7200, 11, 2, 2))
	done(t, queues.SetQueueAttributesWithOptions("p2", ali_mns.WithDelaySeconds(3)))
	meta := must[ali_mns.QueueAttribute](t)(queues.GetQueueAttributes("q"))
	equal(t, "the name", meta.QueueName, "q")
	equal(t, "the size", meta.MaxMessageSize, 8192)
	equal(t, "the retention", meta.MessageRetentionPeriod, 7200)
	equal(t, "the visibility", meta.VisibilityTimeout, 11)
	equal(t, "the wait", meta.PollingWaitSeconds, 2)
	meta = must[ali_mns.QueueAttribute](t)(queues.GetQueueAttributes("p2"))
	equal(t, "the visibility", meta.VisibilityTimeout, 77)
	equal(t, "the delay", meta.DelaySeconds, 3)
	page := must[ali_mns.Queues](t)(queues.ListQueue("", 1, "p"))
	equal(t, "the page", len(page.Queues), 1)
	equal(t, "the address", page.Queues[0].QueueURL, "http://1234.mns.cn-test.aliyuncs.com/queues/p1")
	details := must[ali_mns.QueueDetails](t)(queues.ListQueueDetail(page.NextMarker, 10, "p"))
	equal(t, "the page", len(details.Attrs), 1)
	equal(t, "the name", details.Attrs[0].QueueName, "p2")
	equal(t, "the end", details.NextMarker, "")
	done(t, queues.DeleteQueue("p1"))
	_, err := queues.GetQueueAttributes("p1")
	fails(t, err, ali_mns.ERR_MNS_QUEUE_NOT_EXIST)
}

func TestMessages(t *testing.T) {
	mns := client(broker(t), "key-secret")
	done(t, ali_mns.NewMNSQueueManager(mns).CreateQueue("q", 0, 65536, 3600, 30, 0, 2))
	queue := ali_mns.NewMNSQueue("q", mns, 1000)
	body := "a<b>&\"c'\t\n  d \u4f60\u597d \U0001f600 ]]>"
	sent := must[ali_mns.MessageSendResponse](t)(queue.SendMessage(ali_mns.MessageSendRequest{MessageBody: body, Priority: 3}))
	seen := must[ali_mns.MessageReceiveResponse](t)(one(t, queue.PeekMessage))
	equal(t, "the body", seen.MessageBody, body)
	equal(t, "the count", seen.DequeueCount, 0)
	got := must[ali_mns.MessageReceiveResponse](t)(one(t, func(c chan ali_mns.MessageReceiveResponse, e chan error) { queue.ReceiveMessage(c, e, 5) }))
	equal(t, "the body", got.MessageBody, body)
	equal(t, "the id", got.MessageId, sent.MessageId)
	equal(t, "the digest", got.MessageBodyMD5, sent.MessageBodyMD5)
	equal(t, "the priority", got.Priority, 3)
	equal(t, "the count", got.DequeueCount, 1)
	changed := must[ali_mns.MessageVisibilityChangeResponse](t)(queue.ChangeMessageVisibility(got.ReceiptHandle, 100))
	fails(t, queue.DeleteMessage(got.ReceiptHandle), ali_mns.ERR_MNS_MESSAGE_NOT_EXIST)
	done(t, queue.DeleteMessage(changed.ReceiptHandle))
	fails(t, queue.DeleteMessage("nobody-gave-this"), ali_mns.ERR_MNS_RECEIPT_HANDLE_ERROR)
	_, err := one(t, func(c chan ali_mns.MessageReceiveResponse, e chan error) { queue.ReceiveMessage(c, e, 1) })
	fails(t, err, ali_mns.ERR_MNS_MESSAGE_NOT_EXIST)

	batch := must[ali_mns.BatchMessageSendResponse](t)(queue.BatchSendMessage(
		ali_mns.MessageSendRequest{MessageBody: "low", Priority: 16},
		ali_mns.MessageSendRequest{MessageBody: "high", Priority: 1},
		ali_mns.MessageSendRequest{MessageBody: "late", Priority: 1, DelaySeconds: 100}))
	equal(t, "the batch", len(batch.Messages), 3)
	_, err = queue.BatchSendMessage(
		ali_mns.MessageSendRequest{MessageBody: "middle", Priority: 8},
		ali_mns.MessageSendRequest{MessageBody: "none", Priority: 17})
	if err == nil {
		t.Fatal("a message without a priority that may be was taken")
	}
	looked := must[[]ali_mns.MessageReceiveResponse](t)(many(t, func(c chan ali_mns.BatchMessageReceiveResponse, e chan error) { queue.BatchPeekMessage(c, e, 16) }))
	equal(t, "the look", len(looked), 3)
	all := must[[]ali_mns.MessageReceiveResponse](t)(many(t, func(c chan ali_mns.BatchMessageReceiveResponse, e chan error) { queue.BatchReceiveMessage(c, e, 16, 5) }))
	var order, handles []string
	for _, message := range all {
		order, handles = append(order, message.MessageBody), append(handles, message.ReceiptHandle)
	}
	equal(t, "the order", strings.Join(order, " "), "high middle low")
	failed, err := queue.BatchDeleteMessage(append(handles, "nobody-gave-this")...)
	if err == nil || len(failed.FailedMessages) != 1 || failed.FailedMessages[0].ErrorCode != "ReceiptHandleError" {
		t.Fatalf("the delete of one that is none: %v %v", failed, err)
	}
	meta := must[ali_mns.QueueAttribute](t)(ali_mns.NewMNSQueueManager(mns).GetQueueAttributes("q"))
	equal(t, "the delayed", meta.DelayMessages, 1)
	equal(t, "the others", meta.ActiveMessages+meta.InactiveMessages, 0)
}

func TestTopics(t *testing.T) {
	came := make(chan string, 10)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	done(t, err)
	hook := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		came <- string(body)
		w.WriteHeader(http.StatusNoContent)
	})}
	go func() { _ = hook.Serve(listener) }()
	t.Cleanup(func() { _ = hook.Close() })

	mns := client(broker(t, "--mns-private-endpoints"), "key-secret")
	topics := ali_mns.NewMNSTopicManager(mns)
	done(t, topics.CreateTopic("t", 2048, true))
	fails(t, topics.CreateTopic("t", 2048, true), ali_mns.ERR_MNS_TOPIC_ALREADY_EXIST_AND_HAVE_SAME_ATTR)
	fails(t, topics.CreateSimpleTopic("t"), ali_mns.ERR_MNS_TOPIC_ALREADY_EXIST)
	done(t, topics.CreateSimpleTopic("other"))
	done(t, topics.SetTopicAttributes("t", 4096, false))
	meta := must[ali_mns.TopicAttribute](t)(topics.GetTopicAttributes("t"))
	equal(t, "the size", meta.MaxMessageSize, 4096)
	equal(t, "the log", meta.LoggingEnabled, false)
	page := must[ali_mns.Topics](t)(topics.ListTopic("", 1, ""))
	equal(t, "the address", page.Topics[0].TopicURL, "http://1234.mns.cn-test.aliyuncs.com/topics/other")
	details := must[ali_mns.TopicDetails](t)(topics.ListTopicDetail(page.NextMarker, 10, ""))
	equal(t, "the name", details.Attrs[0].TopicName, "t")

	done(t, ali_mns.NewMNSQueueManager(mns).CreateSimpleQueue("q"))
	topic, queue := ali_mns.NewMNSTopic("t", mns), ali_mns.NewMNSQueue("q", mns)
	done(t, topic.Subscribe("to-queue", ali_mns.MessageSubsribeRequest{
		Endpoint: topic.GenerateQueueEndpoint("q"), FilterTag: "red", NotifyContentFormat: ali_mns.SIMPLIFIED}))
	done(t, topic.Subscribe("to-hook", ali_mns.MessageSubsribeRequest{
		Endpoint: fmt.Sprintf("http://%s/hook", listener.Addr()), NotifyStrategy: ali_mns.EXPONENTIAL_DECAY_RETRY}))
	done(t, topic.SetSubscriptionAttributes("to-hook", ali_mns.BACKOFF_RETRY))
	subscription := must[ali_mns.SubscriptionAttribute](t)(topic.GetSubscriptionAttributes("to-hook"))
	equal(t, "the strategy", subscription.NotifyStrategy, ali_mns.BACKOFF_RETRY)
	equal(t, "the topic", subscription.TopicName, "t")
	subscriptions := must[ali_mns.Subscriptions](t)(topic.ListSubscriptionByTopic("", 10, "to-"))
	equal(t, "the subscriptions", len(subscriptions.Subscriptions), 2)
	all := must[ali_mns.SubscriptionDetails](t)(topic.ListSubscriptionDetailByTopic("", 1, ""))
	equal(t, "the first", all.Attrs[0].SubscriptionName, "to-hook")

	sent := must[ali_mns.MessageSendResponse](t)(topic.PublishMessage(ali_mns.MessagePublishRequest{MessageBody: "hello", MessageTag: "red"}))
	got := must[ali_mns.MessageReceiveResponse](t)(one(t, func(c chan ali_mns.MessageReceiveResponse, e chan error) { queue.ReceiveMessage(c, e, 10) }))
	equal(t, "the body", got.MessageBody, "hello")
	select {
	case body := <-came:
		if !strings.Contains(body, "<MessageId>"+sent.MessageId+"</MessageId>") || !strings.Contains(body, "<Message>hello</Message>") {
			t.Fatalf("the hook got %s", body)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came to the hook")
	}
	done(t, topic.Unsubscribe("to-queue"))
	_, err = topic.GetSubscriptionAttributes("to-queue")
	if err == nil || !strings.Contains(err.Error(), "SubscriptionNotExist") {
		t.Fatalf("it ended with %v", err)
	}
	done(t, topics.DeleteTopic("t"))
	_, err = topics.GetTopicAttributes("t")
	fails(t, err, ali_mns.ERR_MNS_TOPIC_NOT_EXIST)
}

func TestAccount(t *testing.T) {
	address := broker(t)
	opened := must[ali_mns.OpenService](t)(ali_mns.NewAccountManager(client(address, "key-secret")).OpenService())
	if opened.OrderId == "" {
		t.Fatal("there is no order")
	}
	fails(t, ali_mns.NewMNSQueueManager(client(address, "another")).DeleteQueue("q"), ali_mns.ERR_MNS_SIGNATURE_DOES_NOT_MATCH)
}
