package ceiba

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// waiters are those of the process and outlive engines: a send that races with the close of its producer
// and with the next open under the same id may end in another engine than it began in.
var waiters slab

// engine is what all producers share: the completion queue and the one goroutine that reads completions.
// It exists while a producer is open.
type engine struct {
	*slab
	queue cQueue
	file  *os.File
	raw   syscall.RawConn
	room  room
	ended chan struct{}
	// The poller's own.
	batch    []*waiter
	provider string
}

// pollBatch is how many completions are taken at once.
const pollBatch = 1024

var engines struct {
	sync.Mutex
	current *engine
	users   int
}

// useEngine returns the engine, started if need be. Each use is ended by leaveEngine.
func useEngine() (*engine, *Error) {
	engines.Lock()
	defer engines.Unlock()
	if engines.current == nil {
		e, err := startEngine()
		if err != nil {
			return nil, err
		}
		engines.current = e
	}
	engines.users++
	return engines.current, nil
}

// leaveEngine ends one use. The last one stops the engine and waits for its end, until patience ends.
func leaveEngine(patience <-chan time.Time) {
	engines.Lock()
	engines.users--
	e := engines.current
	if engines.users > 0 {
		e = nil
	} else {
		engines.current = nil
	}
	engines.Unlock()
	if e == nil {
		return
	}
	// This wakes the poller, which takes what is left and frees the queue.
	e.file.Close()
	select {
	case <-e.ended:
	case <-patience:
	}
}

func startEngine() (*engine, *Error) {
	if err := checkLibrary(); err != nil {
		return nil, err
	}
	queue, err := newQueue(maxWaiters, pollBatch)
	if err != nil {
		return nil, err
	}
	// The library's own descriptor stays its own: the netpoller watches, and later closes, a duplicate.
	fd, failure := duplicate(queue.fd())
	if failure != nil {
		queue.free()
		return nil, errorf(ErrInternal, "no file descriptor could be had for the completions: %v", failure)
	}
	e := &engine{slab: &waiters, queue: queue, file: os.NewFile(fd, "ceiba completions"), ended: make(chan struct{})}
	raw, failure := e.file.SyscallConn()
	if failure != nil {
		e.file.Close()
		queue.free()
		return nil, errorf(ErrInternal, "the completions cannot be watched: %v", failure)
	}
	e.raw = raw
	go e.run()
	return e, nil
}

func duplicate(fd int) (uintptr, error) {
	copied, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return 0, errno
	}
	return copied, nil
}

// run is the poller. It waits in the netpoller, so it holds no thread while nothing ends.
func (e *engine) run() {
	defer close(e.ended)
	defer e.queue.free()
	count := 0
	ready := func(uintptr) bool {
		count = e.queue.poll()
		return count > 0
	}
	for {
		if e.raw.Read(ready) != nil {
			break
		}
		for count > 0 {
			e.finish(count)
			// The callers just woken often send again at once: let them, before going back to wait.
			runtime.Gosched()
			count = e.queue.poll()
		}
	}
	// The last producer is closed: what it ended late still comes.
	for e.queue.length() > 0 {
		if count = e.queue.poll(); count > 0 {
			e.finish(count)
		} else {
			time.Sleep(time.Millisecond)
		}
	}
}

// finish hands the results of one poll to those who wait for them.
func (e *engine) finish(count int) {
	var owner *Producer
	batch := e.batch[:0]
	for i := range count {
		token := e.queue.token(i)
		if uint32(token) >= e.size.Load() {
			continue
		}
		w := e.at(uint32(token))
		state := w.state.Load()
		if state>>32 != token>>32 {
			continue
		}
		switch state & phaseMask {
		case sending:
			e.queue.result(i, w, &e.provider)
			if w.state.CompareAndSwap(state, state&^phaseMask|finished) {
				w.wake <- struct{}{}
			} else {
				e.put(w)
			}
		case submitted:
			e.queue.result(i, w, &e.provider)
			if owner != w.owner {
				if owner != nil {
					owner.callBack(batch)
				}
				owner, batch = w.owner, batch[:0]
			}
			batch = append(batch, w)
		case abandoned:
			e.put(w)
		}
	}
	if owner != nil {
		owner.callBack(batch)
	}
	e.batch = batch
	e.room.wake(count)
}

// room is where calls wait that found the window full.
type room struct {
	waiting atomic.Int32
	mu      sync.Mutex
	line    []chan struct{}
}

// join gets in line. The channel gets a value when room was made.
func (r *room) join() chan struct{} {
	place := make(chan struct{}, 1)
	r.waiting.Add(1)
	r.mu.Lock()
	r.line = append(r.line, place)
	r.mu.Unlock()
	return place
}

// leave gets out of line. Room that was announced and may be unused goes to the next.
func (r *room) leave(place chan struct{}) {
	r.waiting.Add(-1)
	r.mu.Lock()
	for i, other := range r.line {
		if other == place {
			r.line = append(r.line[:i], r.line[i+1:]...)
			break
		}
	}
	r.mu.Unlock()
	select {
	case <-place:
		r.wake(1)
	default:
	}
}

// wake announces room for count calls.
func (r *room) wake(count int) {
	if r.waiting.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	woken := min(count, len(r.line))
	for _, place := range r.line[:woken] {
		place <- struct{}{}
	}
	r.line = append(r.line[:0], r.line[woken:]...)
}
