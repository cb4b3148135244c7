// Package config has the settings of packages topic and dingTalk, with the names of github.com/coffee1998/go-mns.
package config

import (
	"fmt"
	"log/slog"
	"net/url"
	"strings"
)

const (
	// DefaultRetryTimes is how often a stored message is tried where nothing else is said.
	DefaultRetryTimes = 5
	// DefaultRetrySecond is the time between two tries where topics try by themselves, in seconds.
	DefaultRetrySecond = 120
)

// MNSConfig says which topic is published to, and where messages are kept that could not be. It prints without its
// secrets.
type MNSConfig struct {
	// Endpoint of the service, such as "http://ACCOUNT.mns.cn-hangzhou.aliyuncs.com/". Needed.
	Endpoint string
	// AccessKeyId and AccessKeySecret are the access key. Needed.
	AccessKeyId     string
	AccessKeySecret string
	// SecurityToken of a temporary access key.
	SecurityToken string
	// TopicName is the topic. Needed.
	TopicName string
	// MongoURI is a MongoDB that keeps what could not be published, "mongodb://USER:PASSWORD@HOST/DATABASE"; a
	// "collection" among its options is the one that is used, ceiba_outbox without it. Without MongoURI and without a Store
	// nothing is kept: an error is all that is left of a message.
	MongoURI string
	// Store keeps it in a file in place of a MongoDB: "sqlite:FILE". Several processes may share either.
	Store string
	// RetryIntervalInSecond is the time between two tries where the topic tries by itself: it does so when this is set,
	// or when topic.NewMNSTopic is given a notice, and then every 120 s unless this says otherwise. Without both nothing
	// is tried but by Retry.
	RetryIntervalInSecond int
	// RetryIntervalInTimes is how often a message is tried by the topic itself; 5 unless set.
	RetryIntervalInTimes int
}

// FileStore is how a Store begins.
const FileStore = "sqlite:"

const stars = "***"

// hiddenUnless hides what is not as it should be, since that may be a secret at the wrong place.
func hiddenUnless(fits bool, text string) string {
	if fits {
		return text
	}
	return hidden(text)
}

func plainAddress(text string) bool {
	address, err := url.Parse(text)
	return err == nil && address.User == nil && address.RawQuery == ""
}

func hidden(secret string) string {
	if secret == "" {
		return ""
	}
	return stars
}

// Format prints everything but the secrets, whatever the verb.
func (c MNSConfig) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "MNSConfig{Endpoint: %q, AccessKeyId: %q, AccessKeySecret: %q, SecurityToken: %q, TopicName: %q, MongoURI: %q, Store: %q, RetryIntervalInSecond: %d, RetryIntervalInTimes: %d}",
		hiddenUnless(plainAddress(c.Endpoint), c.Endpoint), c.AccessKeyId, hidden(c.AccessKeySecret), hidden(c.SecurityToken),
		c.TopicName, hidden(c.MongoURI), hiddenUnless(strings.HasPrefix(c.Store, FileStore), c.Store), c.RetryIntervalInSecond, c.RetryIntervalInTimes)
}

// LogValue is everything but the secrets.
func (c MNSConfig) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// DingTalkConfig says who is told, through an HTTP gateway in front of DingTalk. It prints without its address, which may
// hold a token.
type DingTalkConfig struct {
	// Url of the gateway. Needed.
	Url string
	// UserList has ids of users, with commas between them.
	UserList string
	// GroupId is the id of a group.
	GroupId string
	// Message is what they are told first; what failed stands behind it.
	Message string
}

// Format prints everything but the address, whatever the verb.
func (c DingTalkConfig) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "DingTalkConfig{Url: %q, UserList: %q, GroupId: %q, Message: %q}", hidden(c.Url), c.UserList, c.GroupId, c.Message)
}

// LogValue is everything but the address.
func (c DingTalkConfig) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// NoticeFunc is called when messages were given up. It is not told which: see [DigestFunc].
type NoticeFunc func() error

// DigestFunc is called when messages were given up: once for all of a run, and at the end of each Retry that gave some up.
// When it returns an error it is called again after a minute. Calling it with nothing tries whether it works.
type DigestFunc func(given ...Digest) error

// Digest is what was given up in a run.
type Digest struct {
	// Text for people: how many there are, and a line for each of the first 20 with its id, attempts, error and short form.
	Text string
	// Failed are these 20.
	Failed []Failed
}

// Failed is a message that was given up. It stays in the store, as dead.
type Failed struct {
	// ID of its row in the store.
	ID string
	// Topic that it was for.
	Topic string
	// Attempts out of the store that failed.
	Attempts int
	// Error of the last one.
	Error error
	// Short is the begin of its body.
	Short string
}
