package ceiba

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// inOwnProcess runs the test again, alone in a process of its own, and reports whether it did so: in that
// process it says no.
func inOwnProcess(t *testing.T) bool {
	t.Helper()
	if os.Getenv("CEIBA_TEST_ALONE") != "" {
		return false
	}
	test := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	test.Env = append(os.Environ(), "CEIBA_TEST_ALONE=1")
	output, err := test.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, output)
	}
	return true
}

// Goroutines that wait hold no thread: neither for a send, nor for a delivery beyond one per consumer.
func TestTenThousandWaitingGoroutinesNeedFewThreads(t *testing.T) {
	// Go keeps the threads that earlier tests needed.
	if inOwnProcess(t) {
		return
	}
	watchLeaks(t)
	const goroutines = 10_000
	p := stuck(t, Config{})
	c := openConsumer(t, memory(unique("topic")), WithID(unique("c")))
	ctx, cancel := context.WithCancel(background)
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			_, err := p.Send(ctx, []byte("x"))
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		all.Go(func() {
			_, err := c.Receive(ctx, 1)
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	eventually(t, "all wait", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return p.engine.queue.length() == goroutines && len(c.line) == goroutines
	})
	// Go's own (many when a busy machine interrupts its calls of C), the library's workers, the one of the
	// consumer: far from one for each that waits.
	threads := procStatus(t, "Threads")
	t.Logf("%d threads, %d goroutines", threads, runtime.NumGoroutine())
	if bound := 200; threads > bound {
		t.Errorf("%d threads for %d waiting goroutines: more than %d", threads, 2*goroutines, bound)
	}
	cancel()
	all.Wait()
}

func TestTenThousandGoroutinesEachGetTheirReceipt(t *testing.T) {
	watchLeaks(t)
	p := openProducer(t, Config{Provider: Memory{Topic: "x", Discard: true}}, WithID(unique("p")))
	var all sync.WaitGroup
	var sent atomic.Int64
	start := make(chan struct{})
	for range 10_000 {
		all.Go(func() {
			<-start
			for range 5 {
				if receipt, err := p.Send(background, []byte("x")); err != nil || receipt.Provider != "memory" {
					t.Error(receipt, err)
					return
				}
				sent.Add(1)
			}
		})
	}
	close(start)
	all.Wait()
	if sent.Load() != 50_000 {
		t.Error(sent.Load())
	}
}

// Memory of the library is freed: errors, receipts, deliveries, messages and clients.
func TestMemoryDoesNotGrow(t *testing.T) {
	// The race detector's memory depends on what ran before.
	if inOwnProcess(t) {
		return
	}
	watchLeaks(t)
	topic := unique("topic")
	p, c := pair(t, memory(topic), memory(topic))
	work := func(rounds int) {
		for range rounds {
			if _, err := p.Send(background, make([]byte, 1000), WithAttribute("name", "value")); err != nil {
				t.Fatal(err)
			}
			d, err := ConsumerReceive(background, c.ID())
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Ack(); err != nil {
				t.Fatal(err)
			}
			if err := d.Ack(); err == nil {
				t.Fatal("acknowledged twice")
			}
			if _, err := p.Send(background, make([]byte, 1000), WithTopic("another")); err == nil {
				t.Fatal("sent to another topic")
			}
			if err := c.Ack(background, d, d); err == nil {
				t.Fatal("acknowledged again")
			}
			if _, err := p.Status(); err != nil {
				t.Fatal(err)
			}
		}
		for range rounds / 20 {
			openAndClose(t)
		}
	}
	work(1000)
	// What grows only until everything is warm (and, with -race, the detector's own memory) does not grow
	// in each of several stretches; a leak of 300 bytes per round does.
	least := 1 << 30
	for range 4 {
		before := memoryBesideGo(t)
		work(3000)
		least = min(least, memoryBesideGo(t)-before)
	}
	t.Logf("at least %d kB in 3000 rounds", least)
	if least > 600 {
		t.Errorf("the library grows by %d kB in 3000 rounds", least)
	}
}

// memoryBesideGo is the memory of the process, in kB, without that of Go's own heap.
func memoryBesideGo(t *testing.T) int {
	t.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return procStatus(t, "VmRSS") - int(stats.Sys-stats.HeapReleased)/1024
}

func openAndClose(t *testing.T) {
	p, err := OpenProducer(background, memory("openclose"), WithID("openclose"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Submit([]byte("x"), func(Receipt, error) {}); err != nil {
		t.Fatal(err)
	}
	c, err := OpenConsumer(background, memory("openclose"), WithID("openclose"))
	if err != nil {
		t.Fatal(err)
	}
	if d, err := ConsumerReceive(background, "openclose"); err != nil || d.Ack() != nil {
		t.Fatal(err)
	}
	if _, err := OpenConsumer(background, memory("openclose"), WithID("openclose")); err == nil {
		t.Fatal("opened twice")
	}
	if err := errors.Join(p.Close(background), c.Close(background)); err != nil {
		t.Fatal(err)
	}
}

// The engine starts with the first producer and ends with the last, however these interleave.
func TestProducersOpenAndCloseFromManyGoroutines(t *testing.T) {
	watchLeaks(t)
	var all sync.WaitGroup
	for range 8 {
		id := unique("churn")
		all.Go(func() {
			for range 60 {
				p, err := OpenProducer(background, Config{Provider: Memory{Topic: "churn", Discard: true}}, WithID(id))
				if err != nil {
					t.Error(err)
					return
				}
				called := make(chan error, 1)
				if err := p.Submit([]byte("x"), func(_ Receipt, err error) { called <- err }); err != nil {
					t.Error(err)
				}
				if _, err := ProducerSend(id, []byte("y"), 0); err != nil {
					t.Error(err)
				}
				if err := p.Close(background); err != nil {
					t.Error(err)
				}
				if err := <-called; err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	engines.Lock()
	defer engines.Unlock()
	if engines.users != 0 || engines.current != nil {
		t.Errorf("%d uses of the engine are left", engines.users)
	}
	if open := producers.all(); len(open) != 0 {
		t.Errorf("%d producers are left", len(open))
	}
}

func TestClosingWaitsForCallbacks(t *testing.T) {
	watchLeaks(t)
	p, err := OpenProducer(background, Config{Provider: Memory{Topic: "x", Discard: true}}, WithID(unique("p")))
	if err != nil {
		t.Fatal(err)
	}
	var returned atomic.Bool
	if err := p.Submit(nil, func(Receipt, error) {
		time.Sleep(100 * time.Millisecond)
		returned.Store(true)
	}); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(background); err != nil || !returned.Load() {
		t.Error("closed before the callback returned: ", err)
	}
	stuck, err := OpenProducer(background, Config{Provider: Memory{Topic: "x", Discard: true}}, WithID(unique("p")))
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	if err := stuck.Submit(nil, func(Receipt, error) { <-release }); err != nil {
		t.Fatal(err)
	}
	wantKind(t, stuck.Close(within(t, 50*time.Millisecond)), ErrTimeout)
	close(release)
}
