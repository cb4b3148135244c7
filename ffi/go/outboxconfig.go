package ceiba

import (
	"encoding/json"
	"time"
)

// OutboxStrategy is the section of an outbox, a strategy that keeps messages until they are sent. It stands first among
// the Strategies of a [Config], whose producer then opens without waiting for a connection. A zero field is left out.
type OutboxStrategy struct {
	// Name in statuses and metrics.
	Name string
	// File of the store, which is made where there is none; several processes may share it. Either this or URL.
	File string
	// URL of the store, such as "mongodb://USER:PASSWORD@HOST/DATABASE". It prints, and marshals, as stars.
	URL Secret
	// Always stores a message before it is sent; otherwise it is sent first, and stored where that fails.
	Always bool
	// Schedule is when what failed is tried again: a cron pattern with seconds, such as "0 */10 * * * *", or a span, such
	// as "120s", which is the default where there is no Backoff.
	Schedule string
	// TimeZone of the pattern: a name such as "Europe/Berlin", or "local"; UTC without one.
	TimeZone string
	// Backoff is the wait of each row after a failure. With a Schedule it goes on at the first run after that.
	//
	// Where the other side names a longer time, it is waited for, up to 366 days; when the producer is opened anew, no
	// longer than Schedule and Backoff say.
	Backoff OutboxBackoff
	// MaxAttempts out of the store that may fail before a row is dead, 1 to 10000; 5 without it. What was held back on this
	// side, such as by a rate limit, counts for none; what ended as [ErrCancelled] counts.
	MaxAttempts int
	// Notify is the id of an open producer that is told of dead rows: in one text at the end of a run, and right after a
	// [Outbox.Drain].
	Notify string
	// NotifyHeld leaves the telling to other processes with the same store, until {"strategy": "outbox", "notify": true}
	// is given to Control.
	NotifyHeld bool
	// StopOnUnknown gives a message up, or does not store it, when it is unknown whether an attempt sent it: it may never
	// arrive. Otherwise there is another attempt, and it may arrive twice.
	StopOnUnknown bool
	// Ordered: messages with the same key are sent one after the other, in the order in which they were accepted.
	Ordered bool
	// DeduplicateKeys: of messages with the same key one is kept, as long as its row is there.
	DeduplicateKeys bool
	// Concurrency is how many sends out of the store are under way at once, 1 to 10000; 64 without it.
	Concurrency int
	// Lease is how long a row belongs to who sends it, at least 250 ms longer than the client's Deadline; twice that and
	// 10 s without it.
	Lease time.Duration
	// KeepDone is how long rows that were sent are kept: not at all without it.
	KeepDone time.Duration
	// KeepDead is how long dead rows are kept, and at least until Notify was told of them: for ever without it.
	KeepDead time.Duration
	// StoreTimeout is how long storing what failed may take beyond the caller's deadline; 5 s without it.
	StoreTimeout time.Duration
	// Poll is how often the store is asked for what other processes left; 1 s without it.
	Poll time.Duration
}

// OutboxBackoff is a wait after a failure: always Wait, or from Base (1 s) on twice the one before, up to Max (10 min).
type OutboxBackoff struct {
	Wait      time.Duration
	Base, Max time.Duration
	// Jitter says how much of a wait from Base on is drawn: "full" (default), "equal" or "none".
	Jitter string
}

func (b OutboxBackoff) fields() map[string]string {
	fields := map[string]string{}
	for name, value := range map[string]string{"wait": span(b.Wait), "base": span(b.Base), "max": span(b.Max), "jitter": b.Jitter} {
		if value != "" {
			fields[name] = value
		}
	}
	switch {
	case b == OutboxBackoff{}:
		return nil
	case b.Wait != 0:
		fields["type"] = "fixed"
	default:
		fields["type"] = "exponential"
	}
	return fields
}

// MarshalJSON writes the library's form, with stars for the URL.
func (o OutboxStrategy) MarshalJSON() ([]byte, error) { return json.Marshal(o.fields()) }

func (o OutboxStrategy) fields() any {
	// With both, or none, the library says what is wrong.
	url := o.URL
	if url == (Secret{}) {
		url = SecretText("sqlite:" + o.File)
	} else if o.File != "" {
		url = SecretText("both a File and a URL are set")
	}
	return struct {
		Type         string            `json:"type"`
		Name         string            `json:"name,omitempty"`
		URL          Secret            `json:"url"`
		When         string            `json:"when,omitempty"`
		Schedule     string            `json:"schedule,omitempty"`
		TimeZone     string            `json:"time_zone,omitempty"`
		Backoff      map[string]string `json:"backoff,omitempty"`
		MaxAttempts  int               `json:"max_attempts,omitempty"`
		Notify       string            `json:"notify,omitempty"`
		NotifyHeld   bool              `json:"notify_held,omitempty"`
		OnUnknown    string            `json:"on_unknown,omitempty"`
		Ordered      bool              `json:"ordered,omitempty"`
		Deduplicate  string            `json:"deduplicate,omitempty"`
		Concurrency  int               `json:"concurrency,omitempty"`
		Lease        string            `json:"lease,omitempty"`
		KeepDone     string            `json:"keep_done,omitempty"`
		KeepDead     string            `json:"keep_dead,omitempty"`
		StoreTimeout string            `json:"store_timeout,omitempty"`
		Poll         string            `json:"poll,omitempty"`
	}{
		"outbox", o.Name, url, choice(o.Always, "always"), o.Schedule, o.TimeZone, o.Backoff.fields(), o.MaxAttempts,
		o.Notify, o.NotifyHeld, choice(o.StopOnUnknown, "stop"), o.Ordered, choice(o.DeduplicateKeys, "key"), o.Concurrency,
		span(o.Lease), span(o.KeepDone), span(o.KeepDead), span(o.StoreTimeout), span(o.Poll),
	}
}
