package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"ceiba"
)

const (
	// callBurst is how many submits are timed together.
	callBurst = 1024
	// warmUp is how many bursts come before the first that counts.
	warmUp = 100
	// rest lets the task fall asleep between bursts, so that each starts alike.
	rest = 200 * time.Microsecond
	// senders is how many goroutines send and wait.
	senders = 100
)

// submit measures what a submit costs its caller while all that drains is busy on another core: the
// library's thread, and the goroutines that take the completions. Waiting for the completions is not timed.
func submit(s settings) (line, error) {
	cores, err := allowedCores()
	if err != nil {
		return line{}, err
	}
	if err := ceiba.SetWorkers(1); err != nil {
		return line{}, err
	}
	p, err := ceiba.OpenProducer(context.Background(), nowhere(), ceiba.WithID("bench"))
	if err != nil {
		return line{}, err
	}
	runtime.LockOSThread()
	if err := pin(0, cores[0]); err != nil {
		return line{}, err
	}
	if err := pinLibrary(cores[1]); err != nil {
		return line{}, err
	}
	t := &tracker{wake: make(chan struct{}, 1)}
	done := t.done
	body := bytes.Repeat([]byte{'x'}, s.size)
	var samples []float64
	var sent int64
	until := time.Now().Add(s.seconds)
	for count := 0; len(samples) == 0 || time.Now().Before(until); count++ {
		start := time.Now()
		for range callBurst {
			if err := p.Submit(body, done); err != nil {
				return line{}, err
			}
		}
		took := time.Since(start)
		if count == warmUp/2 {
			// The runtime has started its threads by now.
			if err := pinOthers(cores[1]); err != nil {
				return line{}, err
			}
		}
		if count >= warmUp {
			samples = append(samples, float64(took.Nanoseconds())/callBurst)
		}
		sent += callBurst
		if err := t.wait(sent); err != nil {
			return line{}, err
		}
		time.Sleep(rest)
	}
	slices.Sort(samples)
	at := func(part int) *float64 { return &samples[len(samples)*part/100] }
	return line{Messages: int64(len(samples)) * callBurst, Min: at(0), Median: at(50), P90: at(90)}, nil
}

// send measures a send that waits for its receipt, in many goroutines at once: wall time over sends.
func send(s settings) (line, error) {
	p, err := ceiba.OpenProducer(context.Background(), nowhere(), ceiba.WithID("bench"))
	if err != nil {
		return line{}, err
	}
	body := bytes.Repeat([]byte{'x'}, s.size)
	var sent atomic.Int64
	var stop atomic.Bool
	var all sync.WaitGroup
	failed := make(chan error, senders)
	watch := startWatch()
	for range senders {
		all.Go(func() {
			count := int64(0)
			for !stop.Load() {
				if _, err := p.Send(context.Background(), body); err != nil {
					failed <- err
					break
				}
				count++
			}
			sent.Add(count)
		})
	}
	time.Sleep(s.seconds)
	stop.Store(true)
	all.Wait()
	end := time.Now()
	select {
	case err := <-failed:
		return line{}, err
	default:
	}
	l := watch.line(s, sent.Load(), end)
	l.Clients, l.Goroutines = 0, senders
	each := end.Sub(watch.start).Seconds() * 1e9 / float64(sent.Load())
	l.Each = &each
	return l, nil
}

// coreMask has a bit for each of 1024 cores.
type coreMask [16]uint64

func (m *coreMask) call(number uintptr, thread int) error {
	_, _, errno := syscall.RawSyscall(number, uintptr(thread), unsafe.Sizeof(*m), uintptr(unsafe.Pointer(m)))
	if errno != 0 {
		return errno
	}
	return nil
}

// allowedCores are the cores that this process may use: at least two.
func allowedCores() ([]int, error) {
	var m coreMask
	if err := m.call(syscall.SYS_SCHED_GETAFFINITY, 0); err != nil {
		return nil, err
	}
	var cores []int
	for core := range len(m) * 64 {
		if m[core/64]>>(core%64)&1 == 1 {
			cores = append(cores, core)
		}
	}
	if len(cores) < 2 {
		return nil, errors.New("the measurement needs two cores")
	}
	return cores, nil
}

// pin binds a thread, 0 for the caller's, to a core.
func pin(thread, core int) error {
	var m coreMask
	m[core/64] = 1 << (core % 64)
	return m.call(syscall.SYS_SCHED_SETAFFINITY, thread)
}

// pinLibrary binds the threads of the library to a core; they are known by their name, which a thread that
// was just started has not yet.
func pinLibrary(core int) error {
	for until := time.Now().Add(5 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
		found, err := pinThreads(core, func(_ int, name []byte) bool { return bytes.HasPrefix(name, []byte("ceiba")) })
		if found || err != nil {
			return err
		}
	}
	return errors.New("the library's thread was not found")
}

// pinOthers binds every thread but the caller's to a core.
func pinOthers(core int) error {
	own := syscall.Gettid()
	_, err := pinThreads(core, func(thread int, _ []byte) bool { return thread != own })
	return err
}

// pinThreads binds those threads to a core that are wanted. Says whether there were any.
func pinThreads(core int, wanted func(thread int, name []byte) bool) (bool, error) {
	names, err := filepath.Glob("/proc/self/task/*/comm")
	if err != nil {
		return false, err
	}
	found := false
	for _, path := range names {
		name, err := os.ReadFile(path)
		if err != nil {
			continue // It has ended.
		}
		thread, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return false, err
		}
		if !wanted(thread, name) {
			continue
		}
		if err := pin(thread, core); err != nil && !errors.Is(err, syscall.ESRCH) {
			return false, err
		}
		found = true
	}
	return found, nil
}
