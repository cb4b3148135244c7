package ceiba

import (
	"encoding/json"
	"math"
	"time"
)

// Message is a message with all its fields. A provider that cannot honour a field that is set refuses
// the message as [ErrUnsupported].
type Message struct {
	// Body is any bytes; some providers carry only UTF-8 text.
	Body []byte
	// Delay until it may be delivered, counted from when it is accepted; rounded up to the provider's
	// unit.
	Delay time.Duration
	// ContentType is the MIME type of the body.
	ContentType string
	// Key for order and de-duplication.
	Key string
	// Tag for filters.
	Tag string
	// Topic, where it differs from the client's.
	Topic string
	// Template is the name or id of a template.
	Template string
	// Args are the template's arguments: any value that marshals to JSON.
	Args any
	// Recipients are addresses, numbers or user ids.
	Recipients []string
	// Attributes are free.
	Attributes map[string]string
	// Attachments are files that go along.
	Attachments []Attachment
}

// Attachment is a file that goes along with a message.
type Attachment struct {
	// Name is the file name as the recipient sees it.
	Name string
	// ContentType is the MIME type.
	ContentType string
	// Body is the content.
	Body []byte
}

// Receipt is what a finished send returns.
type Receipt struct {
	// MessageID is the other side's id of the message; empty where its wire gives none.
	MessageID string
	// Code is what a consumer of the same queue takes the message back by, with Ack, before it was ever received: MNS
	// gives one for a delayed message. Mostly empty.
	Code string
	// Provider that sent it, such as "kapokmq".
	Provider string
	// Attempts made, at least 1.
	Attempts int
	// Stored: the outbox has the message and will send it, and MessageID is the id of its row. Otherwise the other side
	// has it.
	Stored bool
	// Warning is what the caller should know though the send succeeded; mostly empty.
	Warning string
	// Parts is how each recipient or member ended, where there were several.
	Parts []Part
}

// Result is how one message of a batch ended: Err is nil, or an [*Error].
type Result struct {
	Receipt Receipt
	Err     error
}

// SendOption changes one message that is sent.
type SendOption func(*call)

// call is a message with how it is to be sent.
type call struct {
	Message
	timeout    time.Duration
	hasTimeout bool
	rich       bool
}

// WithDelay delays the message.
func WithDelay(delay time.Duration) SendOption {
	return func(c *call) { c.Delay = delay }
}

// WithTimeout bounds this call. With a context that ends earlier, the earlier one counts.
func WithTimeout(timeout time.Duration) SendOption {
	return func(c *call) { c.timeout, c.hasTimeout = timeout, true }
}

// WithKey sets the key.
func WithKey(key string) SendOption {
	return func(c *call) { c.Key, c.rich = key, true }
}

// WithTag sets the tag.
func WithTag(tag string) SendOption {
	return func(c *call) { c.Tag, c.rich = tag, true }
}

// WithTopic sets the topic.
func WithTopic(topic string) SendOption {
	return func(c *call) { c.Topic, c.rich = topic, true }
}

// WithContentType sets the MIME type of the body.
func WithContentType(contentType string) SendOption {
	return func(c *call) { c.ContentType, c.rich = contentType, true }
}

// WithTemplate sets the template and its arguments.
func WithTemplate(template string, args any) SendOption {
	return func(c *call) { c.Template, c.Args, c.rich = template, args, true }
}

// WithRecipients adds recipients.
func WithRecipients(recipients ...string) SendOption {
	return func(c *call) {
		c.Recipients = append(c.Recipients[:len(c.Recipients):len(c.Recipients)], recipients...)
		c.rich = true
	}
}

// WithAttribute sets an attribute.
func WithAttribute(name, value string) SendOption {
	return func(c *call) {
		attributes := make(map[string]string, len(c.Attributes)+1)
		for name, value := range c.Attributes {
			attributes[name] = value
		}
		attributes[name] = value
		c.Attributes, c.rich = attributes, true
	}
}

// WithAttachment adds an attachment.
func WithAttachment(attachment Attachment) SendOption {
	return func(c *call) {
		c.Attachments = append(c.Attachments[:len(c.Attachments):len(c.Attachments)], attachment)
		c.rich = true
	}
}

// args is the JSON of the template's arguments, nil where there are none.
func (m *Message) args() ([]byte, *Error) {
	if m.Args == nil {
		return nil, nil
	}
	args, err := json.Marshal(m.Args)
	if err != nil {
		return nil, errorf(ErrInvalidArgument, "the arguments of the template cannot be written as JSON: %v", err)
	}
	return args, nil
}

// milliseconds rounds up, so that nothing comes early; a negative duration stays negative.
func milliseconds(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	ms := int64(d / time.Millisecond)
	if d%time.Millisecond != 0 {
		ms++
	}
	return ms
}

// wholeSeconds returns the delay in seconds where it is a whole number of them.
func wholeSeconds(d time.Duration) (int64, bool) {
	return int64(d / time.Second), d%time.Second == 0
}

// seconds is a delay in whole seconds as a duration, the longest there is where it does not fit.
func seconds(delay int64) time.Duration {
	if delay > math.MaxInt64/int64(time.Second) {
		return math.MaxInt64 / time.Second * time.Second
	}
	return time.Duration(delay) * time.Second
}
