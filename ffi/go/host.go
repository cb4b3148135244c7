package ceiba

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"ceiba/comm"
)

// HostSender sends for the library: it is a provider that this program implements. It is called from many goroutines
// at once and returns when ctx ends: at the deadline of the send, or when nobody waits for it any more. It may make any
// call of this package but the close of a producer that waits for it. It returns the other side's id of the message,
// or "".
//
// An error that is an [*Error] keeps its kind, whether a retry may help, and its wait; [comm.Permanent] ends retries. Of
// several (errors.Join, a retry's, a failover's) the first counts. The message was not sent when every one of them says
// so: an *Error by its outcome, the errors of the packages below comm that come before a send, and a Permanent one.
// For any other error the outcome is unknown.
type HostSender func(ctx context.Context, message *Message) (id string, err error)

// RegisterHost makes a sender known under a name, for configs such as
// {"provider": {"type": "callback", "name": "sms"}}, so that any strategy can be put around it. A panic inside is an
// error of that attempt, of the kind internal, which is not tried again unless a retry says "retry_on": "any". One that
// does not return is reported at its deadline with an unknown outcome; its goroutine stays, and counts among the calls
// that may be under way (the config's threads, 16 unless set), until it returns.
func RegisterHost(name string, sender HostSender) error {
	if err := checkLibrary(); err != nil {
		return err
	}
	if sender == nil {
		return errorf(ErrInvalidArgument, "the sender is nil")
	}
	return orNil(cCallbackRegister(name, &hostSends{sender: sender}))
}

// UnregisterHost forgets a name. Producers that were opened with it go on with it until they are closed.
func UnregisterHost(name string) error { return orNil(cCallbackUnregister(name)) }

// RegisterSender makes a sender of package comm known under a name: biz is the message's template, args its arguments
// (for a message without arguments its body, where T is string or []byte), and to its recipients. A message with a delay
// or anything else that such a sender has no place for is refused as unsupported.
func RegisterSender[T any](name string, sender comm.Sender[T]) error {
	if sender == nil {
		return errorf(ErrInvalidArgument, "the sender is nil")
	}
	return RegisterHost(name, func(ctx context.Context, message *Message) (string, error) {
		if name := noPlaceFor[T](message); name != "" {
			return "", errorf(ErrUnsupported, "a sender of package comm has no place for the message's %s", name)
		}
		var args T
		if raw, _ := message.Args.(json.RawMessage); raw != nil {
			if err := json.Unmarshal(raw, &args); err != nil {
				return "", errorf(ErrInvalidArgument, "the arguments do not fit the sender's: %v", err)
			}
		} else {
			switch args := any(&args).(type) {
			case *string:
				*args = string(message.Body)
			case *[]byte:
				*args = message.Body
			}
		}
		return "", sender.Send(ctx, message.Template, args, message.Recipients...)
	})
}

// noPlaceFor names what a sender of package comm would lose of a message.
func noPlaceFor[T any](message *Message) string {
	raw, _ := message.Args.(json.RawMessage)
	takesBody := false
	switch any(*new(T)).(type) {
	case string, []byte:
		takesBody = raw == nil
	}
	switch {
	case message.Delay != 0:
		return "delay"
	case len(message.Body) > 0 && !takesBody:
		return "body"
	case message.ContentType != "":
		return "content type"
	case message.Key != "":
		return "key"
	case message.Tag != "":
		return "tag"
	case message.Topic != "":
		return "topic"
	case len(message.Attributes) > 0:
		return "attributes"
	case len(message.Attachments) > 0:
		return "attachments"
	}
	return ""
}

// hostSends holds what ends the contexts of the calls that are under way.
type hostSends struct {
	sender  HostSender
	cancels sync.Map
}

func (h *hostSends) take(call hostCall) { go h.send(call) }

func (h *hostSends) abandon(number uint64) {
	if cancel, ok := h.cancels.Load(number); ok {
		cancel.(context.CancelFunc)()
	}
}

func (h *hostSends) send(call hostCall) {
	var id string
	err := func() (err error) {
		defer func() {
			if panicked := recover(); panicked != nil {
				err = &Error{Kind: ErrInternal, Outcome: Unknown, Message: fmt.Sprintf("the sender panicked: %v", panicked)}
			}
		}()
		message, err := hostMessage(call)
		if err != nil {
			return err
		}
		var ctx context.Context
		var cancel context.CancelFunc
		if left := call.remaining(); left >= 0 {
			ctx, cancel = context.WithTimeout(context.Background(), time.Duration(left)*time.Millisecond)
		} else {
			ctx, cancel = context.WithCancel(context.Background())
		}
		defer cancel()
		number := call.number()
		h.cancels.Store(number, cancel)
		defer h.cancels.Delete(number)
		if call.abandoned() {
			// That may have been told before there was anything to cancel.
			cancel()
		}
		id, err = h.sender(ctx, message)
		return err
	}()
	if err == nil {
		call.sent(id)
		return
	}
	call.failed(hostError(err))
}

func hostMessage(call hostCall) (*Message, error) {
	text, failed := call.fields()
	if failed != nil {
		return nil, failed
	}
	var fields struct {
		DelayMS     int64             `json:"delay_ms"`
		ContentType string            `json:"content_type"`
		Key         string            `json:"key"`
		Tag         string            `json:"tag"`
		Topic       string            `json:"topic"`
		Template    string            `json:"template"`
		Args        json.RawMessage   `json:"args"`
		Recipients  []string          `json:"recipients"`
		Attributes  map[string]string `json:"attributes"`
		Attachments []struct {
			Name        string `json:"name"`
			ContentType string `json:"content_type"`
		} `json:"attachments"`
	}
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		return nil, errorf(ErrInternal, "the fields of a message: %v", err)
	}
	message := &Message{
		Body: call.body(), Delay: time.Duration(fields.DelayMS) * time.Millisecond, ContentType: fields.ContentType,
		Key: fields.Key, Tag: fields.Tag, Topic: fields.Topic, Template: fields.Template, Recipients: fields.Recipients,
		Attributes: fields.Attributes,
	}
	if fields.Args != nil {
		message.Args = fields.Args
	}
	for i, file := range fields.Attachments {
		message.Attachments = append(message.Attachments, Attachment{Name: file.Name, ContentType: file.ContentType, Body: call.attachment(i)})
	}
	return message, nil
}
