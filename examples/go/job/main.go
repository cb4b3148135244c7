// The main job in Go: send every line of a file through a producer, receive and acknowledge them all by a
// consumer, and print what was counted as one line of JSON.
//
//	CEIBA_CONFIG=kapokmq://:SECRET@127.0.0.1:8011/job go run ./job FILE
//
// Sends are submitted, and a semaphore bounds how many are on their way; a second goroutine receives. A line
// ends with LF; a last line without one counts, an empty line is an empty message. A line that is refused is
// named on stderr; when the other side does not answer within the deadline, no further line is sent. Exit
// code 0: every line was acknowledged, and every acknowledged line came.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"ceiba"
)

const (
	window = 8192                   // sends on their way
	batch  = 1024                   // deliveries received and acknowledged together
	idle   = 10 * time.Second       // without a delivery after everything was sent: what is missing is lost
	linger = 300 * time.Millisecond // after the last one: whoever comes now is a duplicate
	shown  = 10                     // refused lines that are named
)

type report struct {
	Language     string  `json:"language"`
	Lines        int     `json:"lines"`
	Sent         int     `json:"sent"`
	Acknowledged int     `json:"acknowledged"`
	Refused      int     `json:"refused"`
	Unknown      int     `json:"unknown"`
	Received     int     `json:"received"`
	Lost         int     `json:"lost"`
	Duplicates   int     `json:"duplicates"`
	Unexpected   int     `json:"unexpected"`
	Seconds      float64 `json:"seconds"`
	Rate         float64 `json:"messages_per_second"`
}

func main() {
	config := os.Getenv("CEIBA_CONFIG")
	if len(os.Args) != 2 || config == "" {
		fmt.Fprintln(os.Stderr, "usage: CEIBA_CONFIG=kapokmq://:SECRET@HOST:PORT/TOPIC job FILE")
		os.Exit(2)
	}
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	report, err := run(context.Background(), config, lines(text))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if report == nil {
		os.Exit(2)
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err != nil || report.Acknowledged != report.Lines || report.Lost+report.Unexpected > 0 {
		os.Exit(1)
	}
}

func lines(text []byte) [][]byte {
	if len(text) == 0 {
		return nil
	}
	return bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
}

func run(ctx context.Context, config string, lines [][]byte) (_ *report, err error) {
	consumer, err := ceiba.OpenConsumer(ctx, config, ceiba.WithID("job"))
	if err != nil {
		return nil, fmt.Errorf("opening the consumer: %w", err)
	}
	producer, err := ceiba.OpenProducer(ctx, config, ceiba.WithID("job"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the producer: %w", err), ceiba.Shutdown(ctx))
	}
	start := time.Now()
	sends := &sends{}
	receiver := &receiver{sends: sends, got: map[string]int{}, last: start}
	var receiving sync.WaitGroup
	receiving.Go(func() { receiver.err = receiver.run(ctx, consumer) })
	sends.run(producer, lines)
	receiving.Wait()
	err = errors.Join(receiver.err, ceiba.Shutdown(ctx))

	seconds := receiver.last.Sub(start).Seconds()
	r := &report{
		Language: "go", Lines: len(lines), Sent: sends.submitted, Acknowledged: int(sends.acknowledged.Load()),
		Refused: sends.refused, Unknown: sends.unknown, Received: receiver.count, Seconds: math.Round(seconds*1000) / 1000,
	}
	if seconds > 0 {
		r.Rate = math.Round(float64(r.Received) / seconds)
	}
	r.compare(lines[:sends.submitted], sends.failed, receiver.got)
	return r, err
}

// compare counts by content, because lines may be alike.
func (r *report) compare(lines [][]byte, failed map[int]bool, got map[string]int) {
	type count struct{ sent, acknowledged int }
	counts := map[string]count{}
	for i, line := range lines {
		c := counts[string(line)]
		c.sent++
		if !failed[i] {
			c.acknowledged++
		}
		counts[string(line)] = c
	}
	for line, c := range counts {
		r.Lost += max(0, c.acknowledged-got[line])
		r.Duplicates += max(0, got[line]-c.sent)
	}
	for line, n := range got {
		if _, known := counts[line]; !known {
			r.Unexpected += n
		}
	}
}

// sends is how the sends ended. Callbacks of one producer run one after the other.
type sends struct {
	done, givenUp    atomic.Bool
	submitted        int
	acknowledged     atomic.Int64
	refused, unknown int
	failed           map[int]bool
}

func (s *sends) run(producer *ceiba.Producer, lines [][]byte) {
	s.failed = map[int]bool{}
	room := make(chan struct{}, window)
	for i, line := range lines {
		room <- struct{}{}
		if s.givenUp.Load() {
			<-room
			break
		}
		s.submitted++
		err := producer.Submit(line, func(_ ceiba.Receipt, err error) {
			s.end(i, err)
			<-room
		})
		if err == nil {
			continue
		}
		// Refused at once: wait for the callbacks under way, so that this one is counted alone.
		for range window - 1 {
			room <- struct{}{}
		}
		s.end(i, err)
		for range window {
			<-room
		}
	}
	for range window {
		room <- struct{}{}
	}
	s.done.Store(true)
}

func (s *sends) end(line int, err error) {
	if err == nil {
		s.acknowledged.Add(1)
		return
	}
	s.failed[line] = true
	how := "was refused"
	var failure *ceiba.Error
	known := errors.As(err, &failure)
	if known && failure.Outcome == ceiba.Unknown {
		how = "may have been sent"
		s.unknown++
	} else {
		s.refused++
	}
	// A line that cannot be sent says nothing of the next one; a broker that is gone does.
	if !known || failure.Retryable || failure.Outcome == ceiba.Unknown {
		s.givenUp.Store(true)
	}
	if s.refused+s.unknown <= shown {
		fmt.Fprintf(os.Stderr, "line %d %s: %v\n", line+1, how, err)
	}
}

type receiver struct {
	sends *sends
	got   map[string]int
	count int
	last  time.Time
	err   error
}

func (r *receiver) run(ctx context.Context, consumer *ceiba.Consumer) error {
	lingering := false
	since := time.Now()
	for {
		deliveries, err := receive(ctx, consumer)
		if err != nil {
			return fmt.Errorf("receiving: %w", err)
		}
		if len(deliveries) > 0 {
			for _, delivery := range deliveries {
				r.got[string(delivery.Body)]++
			}
			// A wire without acknowledgements counts a message as consumed when it is received.
			if err := consumer.Ack(ctx, deliveries...); err != nil && !errors.Is(err, ceiba.ErrUnsupported) {
				return fmt.Errorf("acknowledging: %w", err)
			}
			r.count += len(deliveries)
			since = time.Now()
			if !lingering {
				r.last = since
			}
		} else if sent := r.sends.done.Load(); lingering || sent && time.Since(since) > idle {
			return nil
		} else if !sent {
			since = time.Now()
		}
		lingering = r.sends.done.Load() && r.count >= int(r.sends.acknowledged.Load())
	}
}

// receive waits for a moment; nothing is no error.
func receive(ctx context.Context, consumer *ceiba.Consumer) ([]ceiba.Delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, linger)
	defer cancel()
	deliveries, err := consumer.Receive(ctx, batch)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, nil
	}
	return deliveries, err
}
