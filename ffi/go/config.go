package ceiba

import (
	"encoding/json"
	"errors"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Config is the configuration of one client. The Open functions also take the same as a JSON text, as a
// URL ("kapokmq://:SECRET@HOST:PORT/TOPIC?id=orders"), or as any value that marshals to that JSON: they see
// the secrets in it, which encoding/json shows as stars.
// A zero field is left out, and the library's default applies.
type Config struct {
	// ID is the id that the client is known by; [WithID] overrides it.
	ID string
	// Provider is the section of one provider: [KapokMQ], [DPMQ], [MNS], [Memory], or any value that marshals to it.
	Provider any
	// Strategies are the strategies over it, the first listed outermost: an [OutboxStrategy], or any value that marshals
	// to the section of one.
	Strategies []any
	// Deadline of a call whose context has none; 30 s without it.
	Deadline time.Duration
	// Lazy: open returns at once instead of waiting for the first connection. With an [OutboxStrategy] it does so anyway.
	Lazy bool
	// ConnectTimeout is how long open waits for the first connection; 5 s without it.
	ConnectTimeout time.Duration
	// FailWhenDisconnected: a send fails at once while there is no connection, instead of waiting for it.
	FailWhenDisconnected bool
	// MaxPending is how many sends may be under way at once; 65536 without it.
	MaxPending int
	// MaxPendingBytes is how many bytes of bodies may be under way at once; 256 MiB without it.
	MaxPendingBytes int64
}

// MarshalJSON writes the library's form, with stars for the secrets.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.fields()) }

func (c Config) fields() any {
	return struct {
		ID               string `json:"id,omitempty"`
		Provider         any    `json:"provider"`
		Strategies       []any  `json:"strategies,omitempty"`
		Deadline         string `json:"deadline,omitempty"`
		Connect          string `json:"connect,omitempty"`
		ConnectTimeout   string `json:"connect_timeout,omitempty"`
		WhenDisconnected string `json:"when_disconnected,omitempty"`
		MaxPending       int    `json:"max_pending,omitempty"`
		MaxPendingBytes  int64  `json:"max_pending_bytes,omitempty"`
	}{
		c.ID, c.Provider, c.Strategies, span(c.Deadline), choice(c.Lazy, "lazy"), span(c.ConnectTimeout),
		choice(c.FailWhenDisconnected, "fail"), c.MaxPending, c.MaxPendingBytes,
	}
}

// KapokMQ is the provider section of a KapokMQ broker or cluster. A zero field is left out.
type KapokMQ struct {
	// URL of the broker, "ws://HOST:PORT" or "wss://HOST:PORT". Either this or Registry.
	URL string
	// Registry of a cluster, "http://HOST:PORT" or "https://HOST:PORT". Producers only.
	Registry string
	// Topic to send to or receive from.
	Topic string
	// SecretKey that the broker asks for.
	SecretKey Secret
	// ClientID that the broker knows this client by.
	ClientID string
	// Durable keeps the consumer's subscription while it is away, where every consumer gets every message. It
	// needs ClientID, and a broker of ceiba. Consumers only.
	Durable bool
	// CheckTime is the time between two pings, and between two requests to the registry.
	CheckTime time.Duration
	// Window is how many messages may wait for their ack. Producers only.
	Window int
	// ResendUnacked sends again, after a lost connection, what was written and not acknowledged.
	// Producers only.
	ResendUnacked bool
	// Spread over a cluster's nodes: "random", "round_robin" or "least_pending".
	Spread string
	// NodeProtocol is how a cluster's nodes are reached: "ws" or "wss".
	NodeProtocol string
	// ReconnectBase is the wait before the second try to connect, ReconnectMax the longest wait.
	ReconnectBase, ReconnectMax time.Duration
	// CAFile is a PEM file with the only certificates to trust.
	CAFile string
	// Prefetch and PrefetchBytes bound what a consumer holds that was not received yet.
	Prefetch      int
	PrefetchBytes int64
}

// MarshalJSON writes the library's form, with stars for the secret.
func (k KapokMQ) MarshalJSON() ([]byte, error) { return json.Marshal(k.fields()) }

func (k KapokMQ) fields() any {
	return struct {
		Type          string `json:"type"`
		URL           string `json:"url,omitempty"`
		Registry      string `json:"registry,omitempty"`
		Topic         string `json:"topic"`
		SecretKey     Secret `json:"secret_key"`
		ClientID      string `json:"client_id,omitempty"`
		Durable       bool   `json:"durable,omitempty"`
		CheckTime     string `json:"check_time,omitempty"`
		Window        int    `json:"window,omitempty"`
		ResendUnacked bool   `json:"resend_unacked,omitempty"`
		Spread        string `json:"spread,omitempty"`
		NodeProtocol  string `json:"node_protocol,omitempty"`
		ReconnectBase string `json:"reconnect_base,omitempty"`
		ReconnectMax  string `json:"reconnect_max,omitempty"`
		CAFile        string `json:"ca_file,omitempty"`
		Prefetch      int    `json:"prefetch,omitempty"`
		PrefetchBytes int64  `json:"prefetch_bytes,omitempty"`
	}{
		"kapokmq", k.URL, k.Registry, k.Topic, k.SecretKey, k.ClientID, k.Durable, span(k.CheckTime), k.Window,
		k.ResendUnacked, k.Spread, k.NodeProtocol, span(k.ReconnectBase), span(k.ReconnectMax), k.CAFile, k.Prefetch, k.PrefetchBytes,
	}
}

// DPMQ is the provider section of a DPMQ server, which has no login. A zero field is left out.
type DPMQ struct {
	// URL of the server, "http://HOST:PORT" or "https://HOST:PORT".
	URL string
	// Topic to send to or receive from; it holds neither "|" nor "/".
	Topic string
	// ClientID that the server knows the consumer by. Consumers only.
	ClientID string
	// Connections, each with one message on its way; with 1 messages keep the order of their calls. Producers
	// only.
	Connections int
	// CheckTime is the time between two checks of an idle connection.
	CheckTime time.Duration
	// CAFile is a PEM file with the only certificates to trust.
	CAFile string
	// Prefetch and PrefetchBytes bound what a consumer holds that was not received yet. Consumers only.
	Prefetch      int
	PrefetchBytes int64
	// ReconnectBase is the wait before the second try to connect, ReconnectMax the longest wait.
	ReconnectBase, ReconnectMax time.Duration
}

// MarshalJSON writes the library's form.
func (d DPMQ) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Type          string `json:"type"`
		URL           string `json:"url,omitempty"`
		Topic         string `json:"topic"`
		ClientID      string `json:"client_id,omitempty"`
		Connections   int    `json:"connections,omitempty"`
		CheckTime     string `json:"check_time,omitempty"`
		CAFile        string `json:"ca_file,omitempty"`
		Prefetch      int    `json:"prefetch,omitempty"`
		PrefetchBytes int64  `json:"prefetch_bytes,omitempty"`
		ReconnectBase string `json:"reconnect_base,omitempty"`
		ReconnectMax  string `json:"reconnect_max,omitempty"`
	}{
		"dpmq", d.URL, d.Topic, d.ClientID, d.Connections, span(d.CheckTime), d.CAFile, d.Prefetch, d.PrefetchBytes,
		span(d.ReconnectBase), span(d.ReconnectMax),
	})
}

// Memory is the provider section of a topic inside the process.
type Memory struct {
	// Topic, shared by the clients of this process.
	Topic string
	// Capacity is how many messages the topic holds; a send to a full one fails as [ErrQueueFull].
	Capacity int
	// Discard accepts each message and forgets it, to measure what a call costs. Producers only.
	Discard bool
	// RedeliverAfter is how long a delivery may stay unacknowledged before it comes again. Consumers only.
	RedeliverAfter time.Duration
}

// MarshalJSON writes the library's form.
func (m Memory) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Type           string `json:"type"`
		Topic          string `json:"topic"`
		Capacity       int    `json:"capacity,omitempty"`
		Discard        bool   `json:"discard,omitempty"`
		RedeliverAfter string `json:"redeliver_after,omitempty"`
	}{"memory", m.Topic, m.Capacity, m.Discard, span(m.RedeliverAfter)})
}

func choice(set bool, name string) string {
	if set {
		return name
	}
	return ""
}

// span writes a duration as configurations do: a whole number with a unit, rounded up.
func span(d time.Duration) string {
	switch {
	case d <= 0:
		return ""
	case d%time.Millisecond == 0:
		return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
	}
	return strconv.FormatInt(int64((d-1)/time.Microsecond)+1, 10) + "us"
}

// configText is the text of a configuration and the id in it, empty where it has none.
func configText(config any) (text, id string, err *Error) {
	switch config := config.(type) {
	case string:
		text = config
	case []byte:
		text = string(config)
	case json.RawMessage:
		text = string(config)
	default:
		var written []byte
		whole, failure := revealed(reflect.ValueOf(config), 0)
		if failure == nil {
			written, failure = json.Marshal(whole)
		}
		if failure != nil {
			// An encoder's text can quote the value, which may hold a secret: only its type is told.
			var unsupported *json.UnsupportedTypeError
			if errors.As(failure, &unsupported) {
				return "", "", errorf(ErrInvalidConfig, "a %T cannot be written as JSON: it holds a %s", config, unsupported.Type)
			}
			if errors.Is(failure, errDeep) || errors.Is(failure, errHidden) {
				return "", "", errorf(ErrInvalidConfig, "a %T cannot be written as JSON: %v", config, failure)
			}
			return "", "", errorf(ErrInvalidConfig, "a %T cannot be written as JSON", config)
		}
		text = string(written)
	}
	return text, idIn(text), nil
}

// idIn finds the id in a configuration. What is not well-formed is left to the library to refuse.
func idIn(text string) string {
	trimmed := strings.TrimSpace(text)
	if strings.HasPrefix(trimmed, "{") {
		var named struct {
			ID string `json:"id"`
		}
		if json.Unmarshal([]byte(trimmed), &named) != nil {
			return ""
		}
		return named.ID
	}
	parsed, err := url.Parse(trimmed)
	if err != nil {
		return ""
	}
	return parsed.Query().Get("id")
}
