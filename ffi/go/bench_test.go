package ceiba

import (
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

func discarding(b *testing.B) *Producer {
	b.Helper()
	return openProducer(b, Config{Provider: Memory{Topic: "bench", Discard: true}}, WithID(unique("bench")), WithMaxSubmits(1<<17))
}

// burst is how many submits are timed together; what they started ends before the next burst.
const burst = 1024

// BenchmarkSubmit measures submits by id without a network, in bursts, with the library's own thread
// draining on another core. ns/op is their mean, p50-ns the median of the bursts.
func BenchmarkSubmit(b *testing.B) {
	id := discarding(b).ID()
	body := make([]byte, 100)
	var ended sync.WaitGroup
	done := func(_ Receipt, err error) {
		if err != nil {
			b.Error(err)
		}
		ended.Done()
	}
	var took []time.Duration
	var all time.Duration
	for left := b.N; left > 0; left -= burst {
		count := min(left, burst)
		ended.Add(count)
		start := time.Now()
		for range count {
			if err := ProducerSubmit(id, body, 0, done); err != nil {
				b.Fatal(err)
			}
		}
		all += time.Since(start)
		took = append(took, time.Since(start)/time.Duration(count))
		ended.Wait()
	}
	slices.Sort(took)
	b.ReportMetric(float64(all.Nanoseconds())/float64(b.N), "ns/op")
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
}

func benchmarkSend(b *testing.B, goroutines int, send func(p *Producer, body []byte) error) {
	p := discarding(b)
	body := make([]byte, 100)
	var all sync.WaitGroup
	before := cpuTime(b)
	b.ResetTimer()
	for g := range goroutines {
		count := b.N / goroutines
		if g < b.N%goroutines {
			count++
		}
		all.Go(func() {
			for range count {
				if err := send(p, body); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
}

// cpuTime is what the process has used so far, on all processors.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func plain(p *Producer, body []byte) error {
	_, err := ProducerSend(p.ID(), body, 0)
	return err
}

// BenchmarkSend* measure sends that wait for their receipt, without a network.
func BenchmarkSend1(b *testing.B)     { benchmarkSend(b, 1, plain) }
func BenchmarkSend100(b *testing.B)   { benchmarkSend(b, 100, plain) }
func BenchmarkSend10000(b *testing.B) { benchmarkSend(b, 10_000, plain) }

// BenchmarkSend100Cancel has a context that can be cancelled, BenchmarkSend100Deadline one with a deadline.
func BenchmarkSend100Cancel(b *testing.B) {
	ctx := b.Context()
	benchmarkSend(b, 100, func(p *Producer, body []byte) error {
		_, err := p.Send(ctx, body)
		return err
	})
}

func BenchmarkSend100Deadline(b *testing.B) {
	ctx := within(b, time.Hour)
	benchmarkSend(b, 100, func(p *Producer, body []byte) error {
		_, err := p.Send(ctx, body)
		return err
	})
}

// BenchmarkKapokMQ100 measures sends over the embedded broker, with their acknowledgement.
func BenchmarkKapokMQ100(b *testing.B) {
	broker := startBroker(b, BrokerConfig{})
	p := openProducer(b, broker.URL("bench"), WithID(unique("bench")))
	body := make([]byte, 100)
	for i := range body {
		body[i] = 'x'
	}
	benchmarkSend(b, 100, func(_ *Producer, _ []byte) error {
		_, err := ProducerSend(p.ID(), body, 0)
		return err
	})
}
