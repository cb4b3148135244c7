package ceiba

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var background = context.Background()

// names gives each test ids and topics of its own.
var names atomic.Int64

func unique(name string) string { return fmt.Sprintf("%s-%d", name, names.Add(1)) }

// watchLeaks fails the test when goroutines outlive it.
func watchLeaks(t *testing.T) {
	t.Helper()
	before, _ := goroutines()
	t.Cleanup(func() {
		end := time.Now().Add(15 * time.Second)
		for after, stacks := goroutines(); after > before; after, stacks = goroutines() {
			if time.Now().After(end) {
				t.Fatalf("%d goroutines before, %d after:\n%s", before, after, stacks)
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
}

// goroutines counts them, but for those that Go itself keeps for threads that called it from C.
func goroutines() (count int, stacks string) {
	text := make([]byte, 8<<20)
	stacks = string(text[:runtime.Stack(text, true)])
	for stack := range strings.SplitSeq(stacks, "\n\n") {
		if !strings.Contains(stack, "locked to thread") {
			count++
		}
	}
	return count, stacks
}

func openProducer(t testing.TB, config any, options ...OpenOption) *Producer {
	t.Helper()
	p, err := OpenProducer(background, config, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(background); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return p
}

func openConsumer(t testing.TB, config any, options ...OpenOption) *Consumer {
	t.Helper()
	c, err := OpenConsumer(background, config, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(background); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return c
}

func startBroker(t testing.TB, config BrokerConfig) *Broker {
	t.Helper()
	b, err := StartBroker(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(background); err != nil {
			t.Error(err)
		}
	})
	return b
}

// pair opens a producer and a consumer of the same topic.
func pair(t testing.TB, producer, consumer any) (*Producer, *Consumer) {
	t.Helper()
	return openProducer(t, producer, WithID(unique("p"))), openConsumer(t, consumer, WithID(unique("c")))
}

func memory(topic string) Config { return Config{Provider: Memory{Topic: topic}} }

// stuck is a producer whose sends never end by themselves: it waits for a broker that never comes.
func stuck(t testing.TB, config Config, options ...OpenOption) *Producer {
	t.Helper()
	config.Lazy = true
	config.Provider = KapokMQ{URL: "ws://" + deadAddress(t), Topic: "t", SecretKey: SecretText("s")}
	return openProducer(t, config, append(options, WithID(unique("stuck")))...)
}

func within(t testing.TB, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(background, limit)
	t.Cleanup(cancel)
	return ctx
}

func asError(t testing.TB, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%v (%T) is no *Error", err, err)
	}
	return e
}

// wantKind fails unless the error is of this kind, and returns it.
func wantKind(t testing.TB, err error, kind Kind) *Error {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, where %v was due", kind)
	}
	e := asError(t, err)
	if e.Kind != kind || !errors.Is(err, kind) {
		t.Fatalf("%v, where %v was due", err, kind)
	}
	return e
}

// procStatus reads a number of /proc/self/status.
func procStatus(t testing.TB, key string) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("no /proc here: ", err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			number, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return number
		}
	}
	t.Fatalf("no %s in the status", key)
	return 0
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("in 10 s never: ", what)
		}
	}
}

// deadAddress is one on which nothing listens.
func deadAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// field is a number in a status.
func field(t testing.TB, status json.RawMessage, name string) float64 {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal(status, &fields); err != nil {
		t.Fatal(err)
	}
	number, ok := fields[name].(float64)
	if !ok {
		t.Fatalf("no number %q in %s", name, status)
	}
	return number
}

// silentServer takes connections and never answers.
func silentServer(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var connections []net.Conn
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			connections = append(connections, connection)
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-ended
		for _, connection := range connections {
			connection.Close()
		}
	})
	return listener.Addr().String()
}
