package topic

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"time"

	"ceiba"
	"ceiba/mns/config"
)

// settings are those of a config, checked as far as the library does not.
type settings struct {
	endpoint, host          string
	keyID, keySecret, token string
	topic                   string
	// Its address, empty for none.
	store string
	// How often rows are tried by themselves; 0 for never, or for as it is.
	interval time.Duration
	// After how many attempts rows are given up; 0 for as it is.
	attempts int
	// insists says which of the last two count also where the producer is open with others.
	insists insistence
}

type insistence int

const (
	onNothing insistence = iota
	onInterval
	onAttempts
)

func wrong(format string, args ...any) error {
	return &ceiba.Error{Kind: ceiba.ErrInvalidConfig, Message: "mns topic: " + fmt.Sprintf(format, args...)}
}

func settingsOf(c *config.MNSConfig) (settings, error) {
	if c == nil {
		return settings{}, wrong("the config is nil")
	}
	for _, needed := range []struct{ name, value string }{
		{"Endpoint", c.Endpoint}, {"AccessKeyId", c.AccessKeyId}, {"AccessKeySecret", c.AccessKeySecret},
		{"TopicName", c.TopicName},
	} {
		if needed.value == "" {
			return settings{}, wrong("%s is required", needed.name)
		}
	}
	address, err := url.Parse(c.Endpoint)
	if err != nil || address.Host == "" {
		// The error quotes the text, which may hold a password.
		return settings{}, wrong("Endpoint is no address such as http://HOST")
	}
	if address.User != nil {
		return settings{}, wrong("Endpoint has a name or password in it; the access key stands in AccessKeyId and AccessKeySecret")
	}
	store := c.Store
	switch {
	case c.MongoURI != "" && c.Store != "":
		return settings{}, wrong("MongoURI and Store are both set")
	case c.Store != "" && !strings.HasPrefix(c.Store, config.FileStore):
		// The error does not quote it: it may hold a password.
		return settings{}, wrong("Store is no file such as sqlite:FILE; a MongoDB stands in MongoURI")
	case c.MongoURI != "":
		store = c.MongoURI
	}
	if c.RetryIntervalInSecond < 0 || c.RetryIntervalInTimes < 0 {
		return settings{}, wrong("RetryIntervalInSecond and RetryIntervalInTimes are not negative")
	}
	return settings{
		endpoint: strings.TrimRight(c.Endpoint, "/"), host: address.Host, keyID: c.AccessKeyId,
		keySecret: c.AccessKeySecret, token: c.SecurityToken, topic: c.TopicName, store: store,
		interval: time.Duration(c.RetryIntervalInSecond) * time.Second, attempts: c.RetryIntervalInTimes,
	}, nil
}

// longestID is the longest one that the library takes.
const longestID = 256

// id is what rows belong to: the same in all processes, whatever their keys and however they name the store.
func (s settings) id() string {
	id := "mns:" + s.topic + "@" + s.host
	if len(id) > longestID-max(len("notices of "), len(withoutStore)) {
		sum := sha256.Sum256([]byte(id))
		id = id[:160] + "#" + hex.EncodeToString(sum[:16])
	}
	return id
}

const (
	// never is how long a row waits that nothing but a Retry is to try: the longest time that the library takes.
	never = 3650 * 24 * time.Hour
	// seldom is how often a process that tries nothing by itself looks for what a Retry elsewhere has to be tried.
	seldom = 10 * time.Second
)

// client is the library's configuration. Where the notices are held nobody is told of dead rows before listen.
func (s settings) client(notices string, held bool) ceiba.Config {
	c := ceiba.Config{
		ID: s.id(),
		Provider: ceiba.MNS{
			URL: s.endpoint, Topic: s.topic, AccessKeyID: ceiba.SecretText(s.keyID),
			AccessKeySecret: ceiba.SecretText(s.keySecret),
		},
		// What cannot be sent now is stored, or the caller's.
		Lazy: true, FailWhenDisconnected: true,
	}
	if s.token != "" {
		section := c.Provider.(ceiba.MNS)
		section.SecurityToken = ceiba.SecretText(s.token)
		c.Provider = section
	}
	if s.store == "" {
		return c
	}
	outbox := ceiba.OutboxStrategy{URL: ceiba.SecretText(s.store), MaxAttempts: s.attempts, Notify: notices, NotifyHeld: held}
	if s.interval > 0 {
		outbox.Schedule = fmt.Sprintf("%ds", s.interval/time.Second)
	} else {
		outbox.Backoff, outbox.Poll = ceiba.OutboxBackoff{Wait: never}, seldom
	}
	c.Strategies = []any{outbox}
	return c
}
