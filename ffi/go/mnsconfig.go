package ceiba

import (
	"encoding/json"
	"time"
)

// MNS is the provider section of a queue or a topic of MNS. A zero field is left out.
type MNS struct {
	// URL of the service, "http://HOST[:PORT]" or "https://HOST[:PORT]".
	URL string
	// Queue to send to or receive from.
	Queue string
	// Topic to publish to, in place of a queue. Producers only.
	Topic string
	// AccessKeyID and AccessKeySecret are the access key.
	AccessKeyID, AccessKeySecret Secret
	// SecurityToken of temporary credentials.
	SecurityToken Secret
	// Credentials, in place of the three above, say where keys that change are read from: "environment" (the variables
	// ALIBABA_CLOUD_ACCESS_KEY_ID, ALIBABA_CLOUD_ACCESS_KEY_SECRET and ALIBABA_CLOUD_SECURITY_TOKEN, when the client is
	// opened) or "file:PATH", JSON with access_key_id, access_key_secret and security_token, which is read again every 5 s.
	Credentials string
	// BodyEncoding is "raw" (default), text as the Go SDK sends it, or "base64", any bytes as the Java SDK does.
	BodyEncoding string
	// MaxBody is the longest body on the wire, in bytes, which the queue or topic allows too; 65536 without it. Producers
	// only.
	MaxBody int64
	// Priority of a message that names none: 1, the first, to 16; without it that of the service, 8. Producers to a queue
	// only.
	Priority int
	// Connections are the requests on their way at once, beside the receives that wait; 8 without it.
	Connections int
	// CAFile is a PEM file with the only certificates to trust.
	CAFile string
	// Prefetch is how many deliveries wait for a receive at most; 16 without it. Consumers only.
	Prefetch int
	// Pollers is how many receives wait at the service at once; 1 without it. Consumers only.
	Pollers int
	// Wait is how long one of them waits, in whole seconds up to 30, which is what holds without it. Consumers only.
	Wait time.Duration
	// Visibility is for how long a delivery is hidden from others each time that is renewed, in whole seconds from 1 to
	// 43200; 30 s without it. Consumers only.
	Visibility time.Duration
	// ExtendFor is how long a delivery is kept hidden in all while the program has it, after which it comes again; an hour
	// without it, and negative to renew none. Consumers only.
	ExtendFor time.Duration
}

// MarshalJSON writes the library's form, with stars for the keys.
func (m MNS) MarshalJSON() ([]byte, error) { return json.Marshal(m.fields()) }

func (m MNS) fields() any {
	extend := span(m.ExtendFor)
	if m.ExtendFor < 0 {
		extend = "0ms"
	}
	return struct {
		Type            string `json:"type"`
		URL             string `json:"url"`
		Queue           string `json:"queue,omitempty"`
		Topic           string `json:"topic,omitempty"`
		AccessKeyID     Secret `json:"access_key_id,omitzero"`
		AccessKeySecret Secret `json:"access_key_secret,omitzero"`
		SecurityToken   Secret `json:"security_token,omitzero"`
		Credentials     string `json:"credentials,omitempty"`
		BodyEncoding    string `json:"body_encoding,omitempty"`
		MaxBody         int64  `json:"max_body,omitempty"`
		Priority        int    `json:"priority,omitempty"`
		Connections     int    `json:"connections,omitempty"`
		CAFile          string `json:"ca_file,omitempty"`
		Prefetch        int    `json:"prefetch,omitempty"`
		Pollers         int    `json:"pollers,omitempty"`
		Wait            string `json:"wait,omitempty"`
		Visibility      string `json:"visibility,omitempty"`
		ExtendFor       string `json:"extend_for,omitempty"`
	}{
		"mns", m.URL, m.Queue, m.Topic, m.AccessKeyID, m.AccessKeySecret, m.SecurityToken, m.Credentials, m.BodyEncoding,
		m.MaxBody, m.Priority, m.Connections, m.CAFile, m.Prefetch, m.Pollers, span(m.Wait), span(m.Visibility), extend,
	}
}
