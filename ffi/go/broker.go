package ceiba

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/url"
	"sync"
	"time"
)

// BrokerConfig is how an embedded broker runs. A zero field is left out, and the library's default
// applies. It prints, and marshals, without its secret.
type BrokerConfig struct {
	// Listen is the address; "127.0.0.1:0", the default, takes a free port.
	Listen string
	// SecretKey that clients must know; a random one by default.
	SecretKey Secret
	// Delivery is "work_queue" (default) or "publish_subscribe".
	Delivery string
	// DPMQ makes it speak the DPMQ protocol too, which has no login: whoever reaches the address can send
	// and receive.
	DPMQ bool
	// MNS makes it speak MNS too, at an address of its own.
	MNS *BrokerMNS
	// Data is a folder for the messages; without one they are in memory.
	Data string
	// Durability says when a message in the folder of Data counts as safe: "fsync" (default), "interval",
	// "interval:200ms" or "memory". Without Data only "memory" is taken.
	Durability string
	// RedeliverAfter is how long a consumer may take to acknowledge.
	RedeliverAfter time.Duration
	// Advertise is the host that its registry names for it; by default the one it listens on.
	Advertise string
	// Nodes are other brokers that its registry names, each "HOST:PORT".
	Nodes []string
	// Topic is how all topics keep and deliver their messages.
	Topic TopicConfig
	// Topics are settings of single topics over those of Topic, by name.
	Topics map[string]TopicConfig
}

// BrokerMNS is how a broker speaks MNS.
type BrokerMNS struct {
	// Listen is the address; "127.0.0.1:0", the default, takes a free port.
	Listen string
	// Keys are the secrets of access keys, by their ids.
	Keys map[string]Secret
	// PrivateEndpoints lets subscriptions push to HTTP endpoints at loopback, link-local and private addresses.
	PrivateEndpoints bool
	// Endpoints are networks of such addresses that they may push to in any case, such as "10.1.0.0/16".
	Endpoints []string
}

type brokerMNS struct {
	Listen           string         `json:"listen,omitempty"`
	Keys             map[string]any `json:"keys"`
	PrivateEndpoints bool           `json:"private_endpoints,omitempty"`
	Endpoints        []string       `json:"endpoints,omitempty"`
}

func (m *BrokerMNS) plain() *brokerMNS {
	if m == nil {
		return nil
	}
	keys := make(map[string]any, len(m.Keys))
	for id, secret := range m.Keys {
		keys[id] = secret.plain()
	}
	return &brokerMNS{m.Listen, keys, m.PrivateEndpoints, m.Endpoints}
}

// TopicConfig is how a topic keeps and delivers its messages. Nothing of it is on unless set.
type TopicConfig struct {
	// MaxAttempts is how often a message is pushed that nobody acknowledges, before it goes to the dead
	// letters, the topic NAME.dead.
	MaxAttempts uint32
	// ExpireAfter is the age, counted from when it is due, at which a message goes to the dead letters.
	ExpireAfter time.Duration
	// PushEvery is the time between two batches of pushes, and PushCount the messages of one (1).
	PushEvery time.Duration
	PushCount uint32
	// MaxMessages and MaxBytes, of bodies, are the most that a topic holds.
	MaxMessages, MaxBytes uint64
	// WhenFull is "wait" (default) or "refuse".
	WhenFull string
	// Deduplicate is how long a second message with the same key counts as the first.
	Deduplicate time.Duration
	// Compat makes the first ack consume a message for every consumer in publish_subscribe.
	Compat bool
}

// topicKeys is its form in JSON.
type topicKeys struct {
	MaxAttempts uint32 `json:"max_attempts,omitempty"`
	ExpireAfter string `json:"expire_after,omitempty"`
	PushEvery   string `json:"push_every,omitempty"`
	PushCount   uint32 `json:"push_count,omitempty"`
	MaxMessages uint64 `json:"max_messages,omitempty"`
	MaxBytes    uint64 `json:"max_bytes,omitempty"`
	WhenFull    string `json:"when_full,omitempty"`
	Deduplicate string `json:"deduplicate,omitempty"`
	Compat      bool   `json:"compat,omitempty"`
}

func (t TopicConfig) keys() topicKeys {
	return topicKeys{
		MaxAttempts: t.MaxAttempts, ExpireAfter: span(t.ExpireAfter), PushEvery: span(t.PushEvery),
		PushCount: t.PushCount, MaxMessages: t.MaxMessages, MaxBytes: t.MaxBytes, WhenFull: t.WhenFull,
		Deduplicate: span(t.Deduplicate), Compat: t.Compat,
	}
}

// Broker is a broker inside this process, for tests and small deployments.
type Broker struct {
	broker  cBroker
	address string
	secret  Secret
	// The library frees it at the stop: nobody may be in a call then.
	using   sync.RWMutex
	stopped bool
}

// StartBroker starts a broker. It runs until Stop.
func StartBroker(config BrokerConfig) (*Broker, error) {
	if err := checkLibrary(); err != nil {
		return nil, err
	}
	if config.SecretKey == (Secret{}) {
		config.SecretKey = SecretText(rand.Text())
	}
	secret, err := config.SecretKey.read()
	if err != nil {
		return nil, err
	}
	topics := make(map[string]topicKeys, len(config.Topics))
	for name, topic := range config.Topics {
		topics[name] = topic.keys()
	}
	text, failure := json.Marshal(struct {
		Listen         string     `json:"listen,omitempty"`
		SecretKey      string     `json:"secret_key"`
		Delivery       string     `json:"delivery,omitempty"`
		DPMQ           bool       `json:"dpmq,omitempty"`
		MNS            *brokerMNS `json:"mns,omitempty"`
		Data           string     `json:"data,omitempty"`
		Durability     string     `json:"durability,omitempty"`
		RedeliverAfter string     `json:"redeliver_after,omitempty"`
		Advertise      string     `json:"advertise,omitempty"`
		Nodes          []string   `json:"nodes,omitempty"`
		topicKeys
		Topics map[string]topicKeys `json:"topics,omitempty"`
	}{
		config.Listen, secret, config.Delivery, config.DPMQ, config.MNS.plain(), config.Data, config.Durability,
		span(config.RedeliverAfter), config.Advertise, config.Nodes, config.Topic.keys(), topics,
	})
	if failure != nil {
		return nil, errorf(ErrInvalidConfig, "the broker's configuration cannot be written as JSON")
	}
	b := &Broker{secret: SecretText(secret)}
	err, _ = opening.run(context.Background(), func() (err *Error) {
		b.broker, b.address, err = cBrokerStart(string(text))
		return err
	}, nothingLate)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Address returns "HOST:PORT".
func (b *Broker) Address() string { return b.address }

// MNSAddress returns "HOST:PORT" of its MNS, empty where it speaks none or was stopped.
func (b *Broker) MNSAddress() string {
	var answer struct {
		Address string `json:"mns_address"`
	}
	status, err := b.Status()
	if err != nil || json.Unmarshal(status, &answer) != nil {
		return ""
	}
	return answer.Address
}

// SecretKey returns the key that clients must know.
func (b *Broker) SecretKey() string { return *b.secret.text }

// URL returns a configuration for a client of this topic. It holds the secret: do not print it.
func (b *Broker) URL(topic string) string {
	u := url.URL{Scheme: "kapokmq", User: url.UserPassword("", b.SecretKey()), Host: b.address, Path: "/" + topic}
	return u.String()
}

// Status returns counts of what the broker did and holds as JSON.
func (b *Broker) Status() (json.RawMessage, error) {
	b.using.RLock()
	defer b.using.RUnlock()
	if b.stopped {
		return nil, errorf(ErrClosed, "the broker was stopped")
	}
	text, err := b.broker.status()
	if err != nil {
		return nil, err
	}
	return json.RawMessage(text), nil
}

// Stop ends the broker and its connections. A second Stop does nothing.
func (b *Broker) Stop(ctx context.Context) error {
	ctx = orBackground(ctx)
	b.using.Lock()
	stopped := b.stopped
	b.stopped = true
	b.using.Unlock()
	if stopped {
		return nil
	}
	by := closeBy(ctx, 0)
	return orNil(opening.finish(ctx, func() *Error { return b.broker.stop(by.timeout()) }))
}
