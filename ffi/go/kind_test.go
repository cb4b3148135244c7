package ceiba

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The ledger is the header's: every code there is a kind here, with the same number and name.
func TestKindsAreTheHeadersCodes(t *testing.T) {
	header, err := os.ReadFile("../../include/ceiba.h")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`(?m)CEIBA_ERR_([A-Z_]+)\s*=?\s*(\d+)`).FindAllStringSubmatch(string(header), -1)
	if len(codes) != len(Kinds()) {
		t.Fatalf("%d codes in the header, %d kinds here", len(codes), len(Kinds()))
	}
	for _, code := range codes {
		number, err := strconv.Atoi(code[2])
		if err != nil {
			t.Fatal(err)
		}
		kind := Kind(number)
		if kind < ErrInvalidArgument || kind > ErrInternal {
			t.Fatalf("%s has the number %d, which no kind has", code[1], number)
		}
		if want := strings.ToLower(code[1]); kind.String() != want {
			t.Errorf("%d is %q here, %q in the header", number, kind, want)
		}
		wrapped := error(&Error{Kind: kind, Message: "m"})
		for _, other := range Kinds() {
			if errors.Is(wrapped, other) != (other == kind) {
				t.Errorf("errors.Is(%v, %v) is wrong", wrapped, other)
			}
		}
	}
	for name, kind := range map[string]Kind{
		"invalid_argument": ErrInvalidArgument, "invalid_config": ErrInvalidConfig, "unknown_id": ErrUnknownID,
		"already_open": ErrAlreadyOpen, "in_use": ErrInUse, "closed": ErrClosed, "authentication": ErrAuthentication,
		"permission": ErrPermission, "not_found": ErrNotFound, "unsupported": ErrUnsupported, "too_large": ErrTooLarge,
		"timeout": ErrTimeout, "cancelled": ErrCancelled, "unavailable": ErrUnavailable, "throttled": ErrThrottled,
		"limited": ErrLimited, "partial": ErrPartial, "all_failed": ErrAllFailed, "circuit_open": ErrCircuitOpen,
		"queue_full": ErrQueueFull, "storage": ErrStorage, "protocol": ErrProtocol, "would_deadlock": ErrWouldDeadlock,
		"forked": ErrForked, "internal": ErrInternal,
	} {
		if kind.String() != name || kind.Error() != name {
			t.Errorf("%d prints as %q, not %q", int(kind), kind, name)
		}
	}
}

func TestErrorsTellTheirCauseAndOutcome(t *testing.T) {
	err := error(&Error{Kind: ErrTimeout, Outcome: Unknown, Provider: "kapokmq", Message: "late", cause: context.DeadlineExceeded})
	if got := err.Error(); got != "ceiba: kapokmq: timeout: late (whether the message was sent is unknown)" {
		t.Error(got)
	}
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		t.Error("the cause is not the context's")
	}
	if NotSent.String() != "not_sent" || Unknown.String() != "unknown" {
		t.Error("outcomes print wrong")
	}
	if Version() == "" || cABIVersion() != abiVersion {
		t.Error("the library has no version")
	}
}

func TestDurationsAreRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]int64{0: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, -1: -1} {
		if got := milliseconds(d); got != want {
			t.Errorf("%v is %d ms, not %d", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "", 1: "1us", 1500: "2us", time.Millisecond: "1ms", time.Hour: "3600000ms"} {
		if got := span(d); got != want {
			t.Errorf("%v is %q, not %q", d, got, want)
		}
	}
}
