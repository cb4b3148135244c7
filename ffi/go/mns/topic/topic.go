// Package topic publishes to topics of MNS and keeps what could not be published until it is. A program that was written
// for github.com/coffee1998/go-mns runs after a change of its imports: the names are the same.
//
//	resp, err := topic.NewMNSTopic(&options).SendMessage(data)
//
//	// every ten minutes, by a scheduler of the program's own
//	topic.NewMNSTopic(&options).Retry(5, dingTalk.SendMessageToUser(notice))
//
// What is different: a wrong setting is an error of SendMessage, not the end of the process. A message that is neither
// published nor stored is an error that says so; one that is stored fails as [ErrStored]. Several processes may share a
// store: a row is tried by one at a time. A Retry tries every row, and a message whose first send fails meanwhile is
// stored too. Notices are told which messages were given up. The store is where the settings say.
//
// A row whose message no other attempt can help, such as one that is too long, is given up at once.
//
// # A store that is away
//
// The store is opened by the first call that needs it, for all of a topic at once. While it cannot be opened, messages
// are published without it, and the answer has a Warning. One that cannot be published either fails with the error of
// the service, in whose text "nor is it stored: …" stands: it is not [ErrStored], and the message is the caller's. A Retry
// fails as [ceiba.ErrStorage]. For five seconds no SendMessage asks for the store again; then the next one does and waits
// for it, up to 30 seconds and no longer than its context. A topic that tries by itself asks every five seconds, behind
// all calls. A store that goes away once it is open is missed only by what cannot be published: that fails as
// [ceiba.ErrStorage].
//
// # Notices
//
// A notice that returns an error is called again after a minute, for all that was given up until then. In a process that
// was given none, because neither Retry nor a NewMNSTopic with a notice was called, what is given up is left to other
// processes and told as soon as somebody knows how: it is asked again after 15 seconds, then after twice as long each
// time, up to 4 minutes. What was given up and not told yet stays in the store.
package topic

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"ceiba"
	"ceiba/mns/config"
)

// MNSTopic publishes to one topic. All of one topic of a service share a connection and the rows in the store, however
// many are made, so that one for each call costs nothing. Any goroutine may use it.
type MNSTopic struct {
	// NoticeFunc is what NewMNSTopic was given.
	NoticeFunc any

	settings settings
	wrong    error
}

// NewMNSTopic makes one. It asks nothing of the service, and never fails: what is wrong with the settings is the error of
// each SendMessage and Retry.
//
// With a notice, as of [MNSTopic.Retry] and also when it is nil, or with RetryIntervalInSecond set, stored messages are
// tried from now on every RetryIntervalInSecond (120 s), and given up after RetryIntervalInTimes (5), or after as many
// attempts as the last Retry of the topic said. The store is opened behind, again every five seconds while it is away.
func NewMNSTopic(c *config.MNSConfig, notice ...any) *MNSTopic {
	t := &MNSTopic{}
	t.settings, t.wrong = settingsOf(c)
	if len(notice) > 0 {
		t.NoticeFunc = notice[0]
	}
	if t.wrong == nil && len(notice) > 1 {
		t.wrong = wrong("NewMNSTopic takes one notice, not %d", len(notice))
	}
	automatic := len(notice) > 0 || t.settings.interval > 0
	if t.wrong != nil || !automatic || t.settings.store == "" {
		return t
	}
	if t.settings.interval == 0 {
		t.settings.interval = config.DefaultRetrySecond * time.Second
	}
	var tell config.DigestFunc
	if tell, t.wrong = noticeOf(t.NoticeFunc); t.wrong != nil {
		return t
	}
	s := sharedOf(t.settings)
	if len(notice) > 0 {
		s.tellTo(tell)
	}
	// SendMessage and Retry tell why it fails.
	want := t.settings
	want.insists = onInterval
	s.openBehind(want)
	return t
}

// MessageSendResponse is what the service says of a message that it took.
type MessageSendResponse struct {
	// MessageId is the service's id of the message; empty where it was not sent.
	MessageId string `json:"message_id"`
	// MessageBodyMD5 is that of the body that was sent, in capital hex digits.
	MessageBodyMD5 string `json:"message_body_md5"`
	// Warning says what was not as it should be though the message was published: that its store is away.
	Warning string `json:"warning,omitempty"`
}

// ErrStored is what errors.Is finds in the error of a message that was not sent and is stored: Retry tries it again.
var ErrStored = errors.New("the message is stored")

// StoredError is the error of a message that was not sent and is stored.
type StoredError struct {
	// Topic that it is for.
	Topic string
	// ID of its row in the store.
	ID string
	// Reason says why it was not sent.
	Reason string
}

// Error tells why, and that it is stored.
func (e *StoredError) Error() string {
	return fmt.Sprintf("mns topic %s: the message is stored as row %s: %s", e.Topic, e.ID, e.Reason)
}

// Is reports whether target is [ErrStored].
func (e *StoredError) Is(target error) bool { return target == ErrStored }

// SendMessage publishes a string as it is and anything else as JSON, within 30 seconds. An error that is [ErrStored]
// says that it was not published and is in the store; any other that the message is with the caller alone. Errors are
// *ceiba.Error or *StoredError. While the store is away, which the first to need it waits for, messages are published all
// the same, with a Warning.
func (t *MNSTopic) SendMessage(messageBody any) (MessageSendResponse, error) {
	return t.SendMessageContext(context.Background(), messageBody)
}

// SendMessageContext is SendMessage until the context ends. Where it ends while the store is opened, nothing was sent, and
// the error is [ceiba.ErrTimeout] or [ceiba.ErrCancelled] and the context's own. A message whose deadline passes while it
// is published is stored, which takes up to 6 seconds more; one that is cancelled is the caller's.
func (t *MNSTopic) SendMessageContext(ctx context.Context, messageBody any) (MessageSendResponse, error) {
	if t.wrong != nil {
		return MessageSendResponse{}, t.wrong
	}
	body, ok := messageBody.(string)
	if !ok {
		text, err := json.Marshal(messageBody)
		if err != nil {
			return MessageSendResponse{}, &ceiba.Error{
				Kind: ceiba.ErrInvalidArgument, Message: fmt.Sprintf("a %T cannot be written as JSON: %v", messageBody, err),
			}
		}
		body = string(text)
	}
	receipt, err := sharedOf(t.settings).send(ctx, t.settings, []byte(body))
	switch {
	case err != nil:
		return MessageSendResponse{}, err
	case receipt.Stored:
		reason := strings.TrimPrefix(receipt.Warning, "it is stored, because sending failed: ")
		return MessageSendResponse{}, &StoredError{Topic: t.settings.topic, ID: receipt.MessageID, Reason: reason}
	}
	sum := md5.Sum([]byte(body))
	return MessageSendResponse{
		MessageId: receipt.MessageID, MessageBodyMD5: strings.ToUpper(hex.EncodeToString(sum[:])), Warning: receipt.Warning,
	}, nil
}

// ErrNoStore is the error of a Retry where the settings name no store, so that there is nothing to try.
var ErrNoStore = errors.New("mns topic: there is nothing to retry without a MongoURI or a Store")

// retryPatience bounds a Retry that names no context.
const retryPatience = 10 * time.Minute

// Retry tries every stored message of the topic once, now, and waits until all were tried, for up to ten minutes; those
// that are left are tried all the same. It does not wait for those that another process is sending. One that fails for the
// retryTimes-th time is given up: it stays in the store, as dead, and the notice is called, once for all of them, before
// Retry returns; also for those that other processes gave up and nobody was told of. A process that never said whom to
// tell leaves that to others. Where the notice has not ended after 25 seconds Retry returns [ceiba.ErrTimeout].
//
// The notice is a [config.DigestFunc] such as those of package dingTalk, a [config.NoticeFunc] or func() error, which are
// not told what failed, or nil. It counts until the next Retry of the topic names another. A message that has failed more
// often already, because an earlier Retry named a greater number, is tried once more.
//
// The result may be dropped: it is nil, or why it could not try all, or the error of the notice.
func (t *MNSTopic) Retry(retryTimes int, notice any) error {
	ctx, cancel := context.WithTimeout(context.Background(), retryPatience)
	defer cancel()
	return t.RetryContext(ctx, retryTimes, notice)
}

// RetryContext is Retry until the context ends.
func (t *MNSTopic) RetryContext(ctx context.Context, retryTimes int, notice any) error {
	if t.wrong != nil {
		return t.wrong
	}
	tell, err := noticeOf(notice)
	if err != nil {
		return err
	}
	if t.settings.store == "" {
		return ErrNoStore
	}
	if retryTimes < 1 {
		return &ceiba.Error{Kind: ceiba.ErrInvalidArgument, Message: fmt.Sprintf("a message is tried 1 to 10000 times, not %d", retryTimes)}
	}
	want := t.settings
	want.attempts, want.insists = retryTimes, onAttempts
	return sharedOf(want).retry(ctx, want, tell)
}

// CronRetry is the Retry that a topic does by itself, at once.
func (t *MNSTopic) CronRetry() {
	times := t.settings.attempts
	if times == 0 {
		times = config.DefaultRetryTimes
	}
	// Who wants to know how it went calls Retry.
	_ = t.Retry(times, t.NoticeFunc)
}

// noticeOf is a notice in the form that is told everything; nil for none.
func noticeOf(notice any) (config.DigestFunc, error) {
	plain := func(tell func() error) config.DigestFunc {
		if tell == nil {
			return nil
		}
		return func(...config.Digest) error { return tell() }
	}
	switch notice := notice.(type) {
	case nil:
		return nil, nil
	case config.DigestFunc:
		return notice, nil
	case func(...config.Digest) error:
		return notice, nil
	case config.NoticeFunc:
		return plain(notice), nil
	case func() error:
		return plain(notice), nil
	}
	return nil, wrong("a notice is a config.DigestFunc, a config.NoticeFunc or nil, not a %T", notice)
}
