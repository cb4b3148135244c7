// Plainbench measures a KapokMQ broker through the plain client and prints one line of JSON.
//
//	plainbench --addr 127.0.0.1:8011 --secret test --topic bench --mode acked --clients 8 --size 100 --count 100000
//
// Modes: acked waits for each ack before the next write; unacked writes without waiting while another
// goroutine reads the acks, and is done with the last of them; e2e has as many consumers as producers,
// which ack all they receive, and is done when the last message has been acked.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"syscall"
	"time"
)

type settings struct {
	Addr    string
	Secret  string
	Topic   string
	Mode    string
	Clients int
	Size    int
	Count   int64
	Seconds float64
	Window  int
}

// report is the printed line.
type report struct {
	Mode     string `json:"mode"`
	Clients  int    `json:"clients"`
	Size     int    `json:"size"`
	Messages int64  `json:"messages"`
	// Wall time from the first write to the last ack (e2e: to the last ack of a consumer).
	Seconds float64 `json:"seconds"`
	// Wall time to the end of the last write.
	WriteSeconds float64 `json:"write_seconds"`
	// User and system time of this process in the same span.
	CPUSeconds float64 `json:"cpu_seconds"`
	Rate       float64 `json:"rate"`
	// Deliveries with the same code or body as an earlier one; only e2e counts them.
	Duplicates int64 `json:"duplicates"`
}

func main() {
	s, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "plainbench:", err)
		os.Exit(2)
	}
	r, err := run(s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "plainbench:", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		os.Exit(1)
	}
}

func parse(args []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("plainbench", flag.ExitOnError)
	flags.StringVar(&s.Addr, "addr", "127.0.0.1:8011", "broker, host:port")
	flags.StringVar(&s.Secret, "secret", os.Getenv("CEIBA_SECRET"), "secret key (default: CEIBA_SECRET)")
	flags.StringVar(&s.Topic, "topic", "bench", "topic")
	flags.StringVar(&s.Mode, "mode", "acked", "acked, unacked or e2e")
	flags.IntVar(&s.Clients, "clients", 1, "connections of producers")
	flags.IntVar(&s.Size, "size", 100, "bytes of a body")
	flags.Int64Var(&s.Count, "count", 0, "messages in all")
	flags.Float64Var(&s.Seconds, "seconds", 0, "in place of count: write for so long")
	flags.IntVar(&s.Window, "window", 1024, "e2e: unacked messages of one producer")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	switch {
	case s.Mode != "acked" && s.Mode != "unacked" && s.Mode != "e2e":
		return s, fmt.Errorf("unknown mode %q: acked, unacked or e2e", s.Mode)
	case s.Clients < 1 || s.Size < 0 || s.Window < 1:
		return s, fmt.Errorf("clients and window must be at least 1, size at least 0")
	case (s.Count > 0) == (s.Seconds > 0):
		return s, fmt.Errorf("give one of count and seconds")
	case s.Count > 0 && s.Count < int64(s.Clients):
		return s, fmt.Errorf("count must be at least the number of clients")
	}
	return s, nil
}

// cpuSeconds is what this process has used so far.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
