package ceiba

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// startMNS starts a broker that speaks MNS, and gives the section of its account.
func startMNS(t *testing.T) MNS {
	t.Helper()
	b := startBroker(t, BrokerConfig{MNS: &BrokerMNS{Keys: map[string]Secret{"id": SecretText("key")}}})
	if b.MNSAddress() == "" {
		t.Fatal("no address")
	}
	return MNS{URL: "http://" + b.MNSAddress(), AccessKeyID: SecretText("id"), AccessKeySecret: SecretText("key")}
}

func administer(t *testing.T, config any) *MnsAdmin {
	t.Helper()
	admin, err := NewMnsAdmin(config)
	if err != nil {
		t.Fatal(err)
	}
	return admin
}

func TestQueuesOfMNSAreAdministered(t *testing.T) {
	watchLeaks(t)
	account := startMNS(t)
	admin := administer(t, account)
	attributes := QueueAttributes{
		Delay: Some(time.Duration(0)), MaximumMessageSize: Some(int64(2048)), Retention: Some(time.Hour),
		Visibility: Some(45 * time.Second), PollingWait: Some(3 * time.Second), Logging: Some(true),
	}
	for _, expected := range []bool{true, false} {
		if created, err := admin.CreateQueue(background, "q", attributes); err != nil || created != expected {
			t.Fatal(created, err)
		}
	}
	_, err := admin.CreateQueue(background, "q", QueueAttributes{Visibility: Some(time.Minute)})
	wantKind(t, err, ErrInvalidArgument)
	if err := admin.SetQueue(background, "q", QueueAttributes{Visibility: Some(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	queue, err := admin.Queue(background, "q")
	if err != nil || queue.Name != "q" || queue.Visibility != time.Minute || queue.Retention != time.Hour ||
		queue.PollingWait != 3*time.Second || queue.MaximumMessageSize != 2048 || !queue.Logging || queue.Delay != 0 ||
		time.Since(queue.Created) > time.Minute || queue.Active != 0 {
		t.Errorf("%+v %v", queue, err)
	}

	section := account
	section.Queue, section.Priority = "q", 3
	p := openProducer(t, Config{ID: unique("mns"), Provider: section})
	receipt, err := p.Send(background, []byte("hello 木"))
	if err != nil || receipt.Stored || len(receipt.MessageID) == 0 {
		t.Fatal(receipt, err)
	}
	seen, err := admin.Peek(background, "q", 16)
	if err != nil || len(seen) != 1 || string(seen[0].Body) != "hello 木" || seen[0].MessageID != receipt.MessageID ||
		seen[0].Priority != 3 || time.Since(seen[0].Enqueued) > time.Minute {
		t.Errorf("%+v %v", seen, err)
	}
	if queue, err = admin.Queue(background, "q"); err != nil || queue.Active != 1 {
		t.Errorf("%+v %v", queue, err)
	}
	section = account
	section.Queue, section.Wait, section.Visibility, section.Prefetch, section.Pollers = "q", time.Second, 30*time.Second, 4, 1
	section.ExtendFor = -1
	c := openConsumer(t, Config{ID: unique("mns"), Provider: section})
	deliveries, err := c.Receive(within(t, 10*time.Second), 1)
	if err != nil || string(deliveries[0].Body) != "hello 木" {
		t.Fatal(deliveries, err)
	}
	if err := deliveries[0].Ack(); err != nil {
		t.Fatal(err)
	}
	// What is delayed is taken back by the code of its receipt.
	late, err := p.Send(background, []byte("late"), WithDelay(10*time.Minute))
	if err != nil || late.Code == "" || receipt.Code != "" {
		t.Fatal(late, receipt, err)
	}
	if queue, err = admin.Queue(background, "q"); err != nil || queue.Delayed != 1 {
		t.Errorf("%+v %v", queue, err)
	}
	if err := c.Ack(background, Delivery{Code: late.Code}); err != nil {
		t.Fatal(err)
	}
	if queue, err = admin.Queue(background, "q"); err != nil || queue.Delayed != 0 {
		t.Errorf("%+v %v", queue, err)
	}

	for i := range 25 {
		if _, err := admin.CreateQueue(background, fmt.Sprintf("many-%02d", i), QueueAttributes{}); err != nil {
			t.Fatal(err)
		}
	}
	names := []string{}
	for queue, err := range admin.Queues(background, MnsListOptions{Prefix: "many-", Limit: 10}) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, queue.Name)
	}
	if len(names) != 25 || !slices.IsSorted(names) {
		t.Error(names)
	}
	if err := admin.DeleteQueue(background, "q"); err != nil {
		t.Fatal(err)
	}
	_, err = admin.Queue(background, "q")
	wantKind(t, err, ErrNotFound)
	_, err = admin.CreateQueue(background, "q", QueueAttributes{Delay: Some(time.Millisecond)})
	wantKind(t, err, ErrInvalidArgument)
	wantKind(t, admin.SetQueue(background, "q", QueueAttributes{Delay: Some(time.Millisecond)}), ErrInvalidArgument)
}

func TestTopicsOfMNSAreAdministered(t *testing.T) {
	watchLeaks(t)
	account := startMNS(t)
	admin := administer(t, Config{Provider: account})
	if created, err := admin.CreateTopic(background, "t", TopicAttributes{MaximumMessageSize: Some(int64(4096))}); err != nil || !created {
		t.Fatal(created, err)
	}
	if err := admin.SetTopic(background, "t", TopicAttributes{Logging: Some(true)}); err != nil {
		t.Fatal(err)
	}
	topic, err := admin.Topic(background, "t")
	if err != nil || topic.Name != "t" || topic.MaximumMessageSize != 4096 || !topic.Logging || topic.Retention <= 0 {
		t.Errorf("%+v %v", topic, err)
	}
	if _, err := admin.CreateQueue(background, "q", QueueAttributes{}); err != nil {
		t.Fatal(err)
	}
	attributes := SubscriptionAttributes{
		Endpoint: "acs:mns:here:1:queues/q", FilterTag: "red", NotifyStrategy: "BACKOFF_RETRY", NotifyContentFormat: "SIMPLIFIED",
	}
	if created, err := admin.Subscribe(background, "t", "s", attributes); err != nil || !created {
		t.Fatal(created, err)
	}
	attributes.NotifyStrategy = "EXPONENTIAL_DECAY_RETRY"
	if err := admin.SetSubscription(background, "t", "s", SubscriptionAttributes{NotifyStrategy: attributes.NotifyStrategy}); err != nil {
		t.Fatal(err)
	}
	subscription, err := admin.Subscription(background, "t", "s")
	if err != nil || subscription.SubscriptionAttributes != attributes || subscription.Name != "s" || subscription.Topic != "t" {
		t.Errorf("%+v %v", subscription, err)
	}
	section := account
	section.Topic = "t"
	p := openProducer(t, Config{ID: unique("mns"), Provider: section})
	for _, tag := range []string{"red", "blue"} {
		if _, err := p.Send(background, []byte(tag), WithTag(tag)); err != nil {
			t.Fatal(err)
		}
	}
	var seen []PeekedMessage
	eventually(t, "the message is pushed", func() bool {
		seen, err = admin.Peek(background, "q", 16)
		return err == nil && len(seen) > 0
	})
	if len(seen) != 1 || string(seen[0].Body) != "red" {
		t.Errorf("%+v", seen)
	}
	count := 0
	for subscription, err := range admin.Subscriptions(background, "t", MnsListOptions{}) {
		if err != nil || subscription.Name != "s" {
			t.Fatal(subscription, err)
		}
		count++
	}
	for topic, err := range admin.Topics(background, MnsListOptions{Prefix: "t"}) {
		if err != nil || topic.Name != "t" {
			t.Fatal(topic, err)
		}
		count++
	}
	if count != 2 {
		t.Error(count)
	}
	if err := admin.Unsubscribe(background, "t", "s"); err != nil {
		t.Error(err)
	}
	if err := admin.DeleteTopic(background, "t"); err != nil {
		t.Error(err)
	}
	_, err = admin.Topic(background, "t")
	wantKind(t, err, ErrNotFound)
}

func TestBodiesOfMNSMayBeAnyBytes(t *testing.T) {
	watchLeaks(t)
	account := startMNS(t)
	admin := administer(t, &account)
	if _, err := admin.CreateQueue(background, "q", QueueAttributes{}); err != nil {
		t.Fatal(err)
	}
	account.Queue = "q"
	raw := openProducer(t, Config{ID: unique("mns"), Provider: account})
	_, err := raw.Send(background, []byte("\x00\xff"))
	wantKind(t, err, ErrUnsupported)
	account.BodyEncoding = "base64"
	any := openProducer(t, Config{ID: unique("mns"), Provider: account})
	if _, err := any.Send(background, []byte("\x00\xff")); err != nil {
		t.Fatal(err)
	}
	seen, err := administer(t, account).Peek(background, "q", 1)
	if err != nil || len(seen) != 1 || string(seen[0].Body) != "\x00\xff" {
		t.Errorf("%q %v", seen, err)
	}
	if seen, err = admin.Peek(background, "q", 1); err != nil || string(seen[0].Body) != base64.StdEncoding.EncodeToString([]byte("\x00\xff")) {
		t.Errorf("%q %v", seen, err)
	}
}

func TestWrongCallsOfMNSAreTyped(t *testing.T) {
	watchLeaks(t)
	account := startMNS(t)
	admin := administer(t, account)
	_, err := admin.Queue(background, "none")
	wantKind(t, err, ErrNotFound)
	_, err = admin.Queue(background, "a name")
	wantKind(t, err, ErrInvalidArgument)
	_, err = admin.Peek(background, "q", 17)
	wantKind(t, err, ErrInvalidArgument)
	errs := 0
	for _, err := range admin.Subscriptions(background, "none", MnsListOptions{}) {
		wantKind(t, err, ErrNotFound)
		errs++
	}
	if errs != 1 {
		t.Error(errs)
	}
	other := account
	other.AccessKeySecret = SecretText("wrong")
	_, err = administer(t, other).Queue(background, "q")
	wantKind(t, err, ErrAuthentication)
	other.URL = "http://" + deadAddress(t)
	_, err = administer(t, other).Queue(background, "q")
	wantKind(t, err, ErrUnavailable)
	_, err = administer(t, Memory{Topic: "t"}).Queue(background, "q")
	wantKind(t, err, ErrInvalidConfig)
	_, err = NewMnsAdmin(make(chan int))
	wantKind(t, err, ErrInvalidConfig)

	other.URL = "http://" + silentServer(t)
	silent := administer(t, other)
	_, err = silent.Queue(within(t, 50*time.Millisecond), "q")
	if e := wantKind(t, err, ErrTimeout); !errors.Is(e, context.DeadlineExceeded) {
		t.Error(e)
	}
	ctx, cancel := context.WithCancel(background)
	cancel()
	_, err = silent.Queue(ctx, "q")
	wantKind(t, err, ErrCancelled)

	account.AccessKeySecret = SecretText(hunted)
	hides(t, administer(t, account))
	hides(t, *administer(t, account))
	hides(t, BrokerConfig{MNS: &BrokerMNS{Keys: map[string]Secret{"seen": SecretText(hunted)}}})
	_, err = StartBroker(BrokerConfig{MNS: &BrokerMNS{}})
	if e := wantKind(t, err, ErrInvalidConfig); !strings.Contains(e.Message, "keys") {
		t.Error(e)
	}
}

func TestKeysOfMNSMayComeFromTheEnvironment(t *testing.T) {
	watchLeaks(t)
	account := startMNS(t)
	if _, err := administer(t, account).CreateQueue(background, "q", QueueAttributes{}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "id")
	t.Setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "key")
	p := openProducer(t, Config{ID: unique("mns"), Provider: MNS{
		URL: account.URL, Queue: "q", Credentials: "environment", Connections: 2, MaxBody: 1024,
	}})
	if _, err := p.Send(background, []byte("x")); err != nil {
		t.Fatal(err)
	}
}
