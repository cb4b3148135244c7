package ceiba

import (
	"encoding/json"
	"slices"
	"time"
)

// Whole is what something is a part of.
type Whole string

// What a part is a part of.
const (
	// OfAttempts is one attempt of a retry; its name is its number, from 1.
	OfAttempts Whole = "attempt"
	// OfMembers is one member of a failover or fan-out.
	OfMembers Whole = "member"
	// OfRecipients is one recipient of the message.
	OfRecipients Whole = "recipient"
)

// Part is how one attempt, member or recipient ended.
type Part struct {
	Of Whole
	// Name is the number of the attempt, the name of the member, or the recipient.
	Name string
	// MessageID is the other side's id, where it went well and the wire gives one.
	MessageID string
	// Err is nil when it went well, else an [*Error].
	Err error
}

type partJSON struct {
	Of        Whole      `json:"of"`
	Name      string     `json:"name"`
	MessageID string     `json:"message_id"`
	Error     *errorJSON `json:"error"`
}

type errorJSON struct {
	Code         int32      `json:"code"`
	Outcome      string     `json:"outcome"`
	Retryable    bool       `json:"retryable"`
	RetryAfterMs int64      `json:"retry_after_ms"`
	Provider     string     `json:"provider"`
	Attempts     int        `json:"attempts"`
	Message      string     `json:"message"`
	Parts        []partJSON `json:"parts"`
}

// readParts reads the parts of an error or a receipt as the library tells them.
func readParts(text string) []Part {
	var whole struct {
		Parts []partJSON `json:"parts"`
	}
	if json.Unmarshal([]byte(text), &whole) != nil {
		return nil
	}
	return partsFrom(whole.Parts)
}

func partsFrom(told []partJSON) []Part {
	parts := slices.Grow([]Part(nil), len(told))
	for _, one := range told {
		part := Part{Of: one.Of, Name: one.Name, MessageID: one.MessageID}
		if e := one.Error; e != nil {
			outcome := NotSent
			if e.Outcome == "unknown" {
				outcome = Unknown
			}
			part.Err = &Error{
				Kind:       Kind(e.Code),
				Outcome:    outcome,
				Retryable:  e.Retryable,
				RetryAfter: time.Duration(e.RetryAfterMs) * time.Millisecond,
				Provider:   e.Provider,
				Attempts:   e.Attempts,
				Message:    e.Message,
				Parts:      partsFrom(e.Parts),
			}
		}
		parts = append(parts, part)
	}
	return parts
}
