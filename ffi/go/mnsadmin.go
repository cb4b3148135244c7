package ceiba

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
	"time"
)

// MnsAdmin makes, changes, lists and deletes the queues, topics and subscriptions of an MNS account. Any goroutine may
// use it. Each call is one request, which ends at its context's deadline, and after 30 seconds where there is none;
// nothing is held between calls, so nothing is to be closed.
//
// Errors of all calls: [ErrInvalidConfig], [ErrInvalidArgument] (also where there is one with other attributes),
// [ErrNotFound], [ErrAuthentication], [ErrPermission], [ErrThrottled], [ErrUnavailable], [ErrTimeout] (it may have been
// done).
type MnsAdmin struct {
	// Behind a pointer, so that nothing prints the keys in it.
	config Secret
}

// NewMnsAdmin takes an [MNS] section, whose queue or topic is of no importance, or the configuration of a client as the
// Open functions do.
func NewMnsAdmin(config any) (*MnsAdmin, error) {
	if section, ok := config.(*MNS); ok && section != nil {
		config = *section
	}
	if section, ok := config.(MNS); ok {
		config = Config{Provider: section}
	}
	text, _, err := configText(config)
	if err != nil {
		return nil, err
	}
	return &MnsAdmin{SecretText(text)}, nil
}

// Some is a pointer to a value, for attributes that are set.
func Some[T any](value T) *T { return &value }

// QueueAttributes of a queue; nil leaves one as it is, and as the service has it where the queue is new. Times are in
// whole seconds.
type QueueAttributes struct {
	// Delay before a message can be received.
	Delay *time.Duration
	// MaximumMessageSize is the longest body, in bytes.
	MaximumMessageSize *int64
	// Retention is the time after which a message is gone.
	Retention *time.Duration
	// Visibility is for how long a received message is hidden from others.
	Visibility *time.Duration
	// PollingWait is how long a receive waits that names no time.
	PollingWait *time.Duration
	// Logging says whether the service keeps a log.
	Logging *bool
}

// MnsQueue is what is told of a queue.
type MnsQueue struct {
	Name                                      string
	Delay, Retention, Visibility, PollingWait time.Duration
	MaximumMessageSize                        int64
	Logging                                   bool
	// Active messages can be received, Inactive ones were received and are hidden, Delayed ones wait for their time.
	Active, Inactive, Delayed int64
	Created, Modified         time.Time
}

// TopicAttributes of a topic; nil leaves one as it is.
type TopicAttributes struct {
	// MaximumMessageSize is the longest body, in bytes.
	MaximumMessageSize *int64
	// Logging says whether the service keeps a log.
	Logging *bool
}

// MnsTopic is what is told of a topic.
type MnsTopic struct {
	Name               string
	MaximumMessageSize int64
	Logging            bool
	Retention          time.Duration
	// Messages that were not yet pushed to all.
	Messages          int64
	Created, Modified time.Time
}

// SubscriptionAttributes of a subscription.
type SubscriptionAttributes struct {
	// Endpoint is where messages are pushed to: "http://…", "acs:mns:REGION:ACCOUNT:queues/QUEUE" or
	// "mail:directmail:ADDRESS".
	Endpoint string `json:"endpoint,omitempty"`
	// FilterTag of the messages that are pushed; all without one.
	FilterTag string `json:"filter_tag,omitempty"`
	// NotifyStrategy is "BACKOFF_RETRY" or "EXPONENTIAL_DECAY_RETRY". It alone can be changed.
	NotifyStrategy string `json:"notify_strategy,omitempty"`
	// NotifyContentFormat is "XML", "SIMPLIFIED" or "JSON".
	NotifyContentFormat string `json:"notify_content_format,omitempty"`
}

// MnsSubscription is what is told of a subscription.
type MnsSubscription struct {
	Name, Topic, TopicOwner, Subscriber string
	SubscriptionAttributes
	Created, Modified time.Time
}

// PeekedMessage is one that stays in its queue.
type PeekedMessage struct {
	MessageID    string
	Body         []byte
	Enqueued     time.Time
	DequeueCount int
	Priority     int
}

// MnsListOptions say which part of a list is wanted. The zero one has all.
type MnsListOptions struct {
	// Prefix that the names begin with.
	Prefix string
	// After is the next of the part before.
	After string
	// Limit is how many names come at most: 1 to 1000, and 100 without one.
	Limit int
}

type metaJSON struct {
	Name                   string `json:"name"`
	DelaySeconds           int64  `json:"delay_seconds"`
	MaximumMessageSize     int64  `json:"maximum_message_size"`
	MessageRetentionPeriod int64  `json:"message_retention_period"`
	VisibilityTimeout      int64  `json:"visibility_timeout"`
	PollingWaitSeconds     int64  `json:"polling_wait_seconds"`
	LoggingEnabled         bool   `json:"logging_enabled"`
	ActiveMessages         int64  `json:"active_messages"`
	InactiveMessages       int64  `json:"inactive_messages"`
	DelayMessages          int64  `json:"delay_messages"`
	MessageCount           int64  `json:"message_count"`
	CreateTime             int64  `json:"create_time"`
	LastModifyTime         int64  `json:"last_modify_time"`
	Topic                  string `json:"topic"`
	TopicOwner             string `json:"topic_owner"`
	Subscriber             string `json:"subscriber"`
	SubscriptionAttributes
}

func (m metaJSON) queue() MnsQueue {
	return MnsQueue{
		Name: m.Name, Delay: seconds(m.DelaySeconds), Retention: seconds(m.MessageRetentionPeriod),
		Visibility: seconds(m.VisibilityTimeout), PollingWait: seconds(m.PollingWaitSeconds),
		MaximumMessageSize: m.MaximumMessageSize, Logging: m.LoggingEnabled, Active: m.ActiveMessages,
		Inactive: m.InactiveMessages, Delayed: m.DelayMessages, Created: time.Unix(m.CreateTime, 0),
		Modified: time.Unix(m.LastModifyTime, 0),
	}
}

func (m metaJSON) topic() MnsTopic {
	return MnsTopic{
		Name: m.Name, MaximumMessageSize: m.MaximumMessageSize, Logging: m.LoggingEnabled,
		Retention: seconds(m.MessageRetentionPeriod), Messages: m.MessageCount, Created: time.Unix(m.CreateTime, 0),
		Modified: time.Unix(m.LastModifyTime, 0),
	}
}

func (m metaJSON) subscription() MnsSubscription {
	return MnsSubscription{
		Name: m.Name, Topic: m.Topic, TopicOwner: m.TopicOwner, Subscriber: m.Subscriber,
		SubscriptionAttributes: m.SubscriptionAttributes, Created: time.Unix(m.CreateTime, 0),
		Modified: time.Unix(m.LastModifyTime, 0),
	}
}

// ask carries out a command.
func (a *MnsAdmin) ask(ctx context.Context, name string, arguments map[string]any, answer any) error {
	command, failed := json.Marshal(map[string]any{name: arguments})
	if failed != nil {
		return errorf(ErrInvalidArgument, "the command cannot be written as JSON: %v", failed)
	}
	return orNil(answered(orBackground(ctx), looking, answer, func(timeout int64) (string, *Error) {
		return cMnsAdmin(*a.config.text, string(command), timeout)
	}))
}

func (a *MnsAdmin) create(ctx context.Context, name string, arguments map[string]any) (bool, error) {
	var answer struct {
		Created bool `json:"created"`
	}
	err := a.ask(ctx, name, arguments, &answer)
	return answer.Created, err
}

func (a *MnsAdmin) change(ctx context.Context, name string, arguments map[string]any) error {
	return a.ask(ctx, name, arguments, &struct{}{})
}

// set adds an attribute that is not nil; times become whole seconds.
func set(attributes map[string]any, name string, value any) *Error {
	pointer := reflect.ValueOf(value)
	if pointer.IsNil() {
		return nil
	}
	given := pointer.Elem().Interface()
	if span, ok := given.(time.Duration); ok {
		if span%time.Second != 0 {
			return errorf(ErrInvalidArgument, "`%s` is in whole seconds, not %v", name, span)
		}
		given = int64(span / time.Second)
	}
	attributes[name] = given
	return nil
}

func (q QueueAttributes) keys() (map[string]any, *Error) {
	attributes := map[string]any{}
	for _, one := range []struct {
		name  string
		value any
	}{
		{"delay_seconds", q.Delay}, {"maximum_message_size", q.MaximumMessageSize},
		{"message_retention_period", q.Retention}, {"visibility_timeout", q.Visibility},
		{"polling_wait_seconds", q.PollingWait}, {"logging_enabled", q.Logging},
	} {
		if err := set(attributes, one.name, one.value); err != nil {
			return nil, err
		}
	}
	return attributes, nil
}

func (t TopicAttributes) keys() map[string]any {
	attributes := map[string]any{}
	// None of them is a time.
	_ = set(attributes, "maximum_message_size", t.MaximumMessageSize)
	_ = set(attributes, "logging_enabled", t.Logging)
	return attributes
}

// CreateQueue makes a queue. It returns false where there is one with the same attributes.
func (a *MnsAdmin) CreateQueue(ctx context.Context, queue string, attributes QueueAttributes) (bool, error) {
	keys, err := attributes.keys()
	if err != nil {
		return false, err
	}
	return a.create(ctx, "create_queue", map[string]any{"queue": queue, "attributes": keys})
}

// SetQueue changes attributes of a queue.
func (a *MnsAdmin) SetQueue(ctx context.Context, queue string, attributes QueueAttributes) error {
	keys, err := attributes.keys()
	if err != nil {
		return err
	}
	return a.change(ctx, "set_queue", map[string]any{"queue": queue, "attributes": keys})
}

// Queue tells of a queue.
func (a *MnsAdmin) Queue(ctx context.Context, queue string) (MnsQueue, error) {
	var meta metaJSON
	if err := a.ask(ctx, "get_queue", map[string]any{"queue": queue}, &meta); err != nil {
		return MnsQueue{}, err
	}
	return meta.queue(), nil
}

// DeleteQueue deletes a queue with its messages. MNS cannot empty one in another way.
func (a *MnsAdmin) DeleteQueue(ctx context.Context, queue string) error {
	return a.change(ctx, "delete_queue", map[string]any{"queue": queue})
}

// Peek returns up to so many of the next messages of a queue, 1 to 16, which stay there.
func (a *MnsAdmin) Peek(ctx context.Context, queue string, limit int) ([]PeekedMessage, error) {
	var answer struct {
		Messages []struct {
			MessageID    string `json:"message_id"`
			Body         string `json:"body"`
			BodyBase64   []byte `json:"body_base64"`
			EnqueuedMS   int64  `json:"enqueued_ms"`
			DequeueCount int    `json:"dequeue_count"`
			Priority     int    `json:"priority"`
		} `json:"messages"`
	}
	if err := a.ask(ctx, "peek", map[string]any{"queue": queue, "limit": limit}, &answer); err != nil {
		return nil, err
	}
	messages := make([]PeekedMessage, len(answer.Messages))
	for i, seen := range answer.Messages {
		body := seen.BodyBase64
		if body == nil {
			body = []byte(seen.Body)
		}
		messages[i] = PeekedMessage{
			MessageID: seen.MessageID, Body: body, Enqueued: time.UnixMilli(seen.EnqueuedMS),
			DequeueCount: seen.DequeueCount, Priority: seen.Priority,
		}
	}
	return messages, nil
}

// CreateTopic makes a topic. It returns false where there is one with the same attributes.
func (a *MnsAdmin) CreateTopic(ctx context.Context, topic string, attributes TopicAttributes) (bool, error) {
	return a.create(ctx, "create_topic", map[string]any{"topic": topic, "attributes": attributes.keys()})
}

// SetTopic changes attributes of a topic.
func (a *MnsAdmin) SetTopic(ctx context.Context, topic string, attributes TopicAttributes) error {
	return a.change(ctx, "set_topic", map[string]any{"topic": topic, "attributes": attributes.keys()})
}

// Topic tells of a topic.
func (a *MnsAdmin) Topic(ctx context.Context, topic string) (MnsTopic, error) {
	var meta metaJSON
	if err := a.ask(ctx, "get_topic", map[string]any{"topic": topic}, &meta); err != nil {
		return MnsTopic{}, err
	}
	return meta.topic(), nil
}

// DeleteTopic deletes a topic with its subscriptions.
func (a *MnsAdmin) DeleteTopic(ctx context.Context, topic string) error {
	return a.change(ctx, "delete_topic", map[string]any{"topic": topic})
}

// Subscribe makes a subscription. It returns false where there is the same already.
func (a *MnsAdmin) Subscribe(ctx context.Context, topic, subscription string, attributes SubscriptionAttributes) (bool, error) {
	return a.create(ctx, "subscribe", map[string]any{"topic": topic, "subscription": subscription, "attributes": attributes})
}

// SetSubscription changes the NotifyStrategy of a subscription.
func (a *MnsAdmin) SetSubscription(ctx context.Context, topic, subscription string, attributes SubscriptionAttributes) error {
	return a.change(ctx, "set_subscription", map[string]any{"topic": topic, "subscription": subscription, "attributes": attributes})
}

// Subscription tells of a subscription.
func (a *MnsAdmin) Subscription(ctx context.Context, topic, subscription string) (MnsSubscription, error) {
	var meta metaJSON
	err := a.ask(ctx, "get_subscription", map[string]any{"topic": topic, "subscription": subscription}, &meta)
	if err != nil {
		return MnsSubscription{}, err
	}
	return meta.subscription(), nil
}

// Unsubscribe deletes a subscription.
func (a *MnsAdmin) Unsubscribe(ctx context.Context, topic, subscription string) error {
	return a.change(ctx, "unsubscribe", map[string]any{"topic": topic, "subscription": subscription})
}

// Queues goes through the queues, a part of options.Limit at a time. An error ends it, and comes with an empty queue.
func (a *MnsAdmin) Queues(ctx context.Context, options MnsListOptions) iter.Seq2[MnsQueue, error] {
	return listedBy(ctx, a, "queues", "", options, metaJSON.queue)
}

// Topics goes through the topics, as [MnsAdmin.Queues] does.
func (a *MnsAdmin) Topics(ctx context.Context, options MnsListOptions) iter.Seq2[MnsTopic, error] {
	return listedBy(ctx, a, "topics", "", options, metaJSON.topic)
}

// Subscriptions goes through the subscriptions of a topic, as [MnsAdmin.Queues] does.
func (a *MnsAdmin) Subscriptions(ctx context.Context, topic string, options MnsListOptions) iter.Seq2[MnsSubscription, error] {
	return listedBy(ctx, a, "subscriptions", topic, options, metaJSON.subscription)
}

func listedBy[T any](
	ctx context.Context, a *MnsAdmin, what, topic string, options MnsListOptions, made func(metaJSON) T,
) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			arguments := map[string]any{}
			for name, value := range map[string]string{"topic": topic, "prefix": options.Prefix, "after": options.After} {
				if value != "" || name == "topic" && what == "subscriptions" {
					arguments[name] = value
				}
			}
			if options.Limit != 0 {
				arguments["limit"] = options.Limit
			}
			var answer map[string]json.RawMessage
			var metas []metaJSON
			var next string
			err := a.ask(ctx, "list_"+what, arguments, &answer)
			if err == nil {
				err = readBoth(answer, what, &metas, &next)
			}
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, meta := range metas {
				if !yield(made(meta), nil) {
					return
				}
			}
			if next == "" {
				return
			}
			options.After = next
		}
	}
}

func readBoth(answer map[string]json.RawMessage, what string, metas *[]metaJSON, next *string) error {
	for name, into := range map[string]any{what: metas, "next": next} {
		if err := json.Unmarshal(answer[name], into); err != nil {
			return errorf(ErrInternal, "the library's answer cannot be read: %v", err)
		}
	}
	return nil
}

// Format prints no more than what it is.
func (a *MnsAdmin) Format(f fmt.State, _ rune) { fmt.Fprint(f, "MnsAdmin{"+stars+"}") }
