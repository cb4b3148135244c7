// This program measures ceiba from Go and prints one line of JSON.
//
//	benches --mode acked|e2e|submit|send|strategy [--addr HOST:PORT] [--topic T] [--clients N] [--size BYTES]
//	        [--seconds S] [--limit MESSAGES]
//
// Acked submits to a broker until each message has its receipt; e2e has as many consumers, which
// acknowledge what they receive; submit is what a submit costs its caller, in bursts, and send a send that
// waits for its result in each of 100 goroutines, both without a network; strategy is what strategies add to
// a sender of this program. The secret is read from the
// environment variable CEIBA_SECRET.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"syscall"
	"time"

	"ceiba"
)

type settings struct {
	mode, addr, topic string
	clients, size     int
	seconds           time.Duration
	limit             int64
}

// line is what is printed; fields of another measurement stay out.
type line struct {
	Name       string   `json:"name"`
	Mode       string   `json:"mode"`
	Clients    int      `json:"clients,omitempty"`
	Goroutines int      `json:"goroutines,omitempty"`
	Size       int      `json:"size"`
	Messages   int64    `json:"messages"`
	Seconds    float64  `json:"seconds,omitempty"`
	CPUSeconds float64  `json:"cpu_seconds,omitempty"`
	Rate       float64  `json:"rate,omitempty"`
	Duplicates *int64   `json:"duplicates,omitempty"`
	Min        *float64 `json:"ns_min,omitempty"`
	Median     *float64 `json:"ns_median,omitempty"`
	P90        *float64 `json:"ns_p90,omitempty"`
	Each       *float64 `json:"ns_each,omitempty"`

	Calls map[string]timing `json:"calls,omitempty"`
}

func main() {
	var s settings
	var seconds float64
	flag.StringVar(&s.mode, "mode", "acked", "acked, e2e, submit, send or strategy")
	flag.StringVar(&s.addr, "addr", "127.0.0.1:8011", "HOST:PORT of the broker")
	flag.StringVar(&s.topic, "topic", "bench", "topic")
	flag.IntVar(&s.clients, "clients", 1, "producer ids, each with a connection and a goroutine of its own")
	flag.IntVar(&s.size, "size", 100, "bytes of a body")
	flag.Float64Var(&seconds, "seconds", 2, "how long to send")
	flag.Int64Var(&s.limit, "limit", 0, "messages after which to stop before that; 0 for none")
	flag.Parse()
	s.seconds = time.Duration(seconds * float64(time.Second))
	run, known := map[string]func(settings) (line, error){
		"acked": acked, "e2e": endToEnd, "submit": submit, "send": send, "strategy": strategy,
	}[s.mode]
	if !known || s.clients < 1 || s.size < 0 {
		fmt.Fprintln(os.Stderr, "benches: a mode is acked, e2e, submit, send or strategy; clients are at least 1")
		os.Exit(2)
	}
	l, err := run(s)
	if err == nil {
		l.Name, l.Mode, l.Size = "go", s.mode, s.size
		err = json.NewEncoder(os.Stdout).Encode(l)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benches:", err)
		os.Exit(1)
	}
}

// broker is the config of a client of the broker in the settings.
func (s settings) broker() ceiba.Config {
	return ceiba.Config{Provider: ceiba.KapokMQ{
		URL: "ws://" + s.addr, Topic: s.topic, SecretKey: ceiba.SecretEnv("CEIBA_SECRET"),
	}}
}

// nowhere is the config of a producer that accepts and forgets.
func nowhere() map[string]any {
	return map[string]any{"provider": map[string]any{"type": "memory", "topic": "bench", "discard": true}}
}

// stopwatch is started before the first send.
type stopwatch struct {
	start time.Time
	cpu   float64
}

func startWatch() stopwatch { return stopwatch{time.Now(), cpuSeconds()} }

func (w stopwatch) line(s settings, messages int64, end time.Time) line {
	took := end.Sub(w.start).Seconds()
	return line{
		Clients: s.clients, Messages: messages, Seconds: took,
		CPUSeconds: cpuSeconds() - w.cpu, Rate: float64(messages) / took,
	}
}

// cpuSeconds is what this process has used so far.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
