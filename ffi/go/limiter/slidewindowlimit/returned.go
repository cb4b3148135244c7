package slidewindowlimit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// Grants in one request: what Redis does at once holds up everybody else.
	batch = 512
	// Grants that wait to be given back. Of further ones the place is free a window later.
	mostWaiting = 1 << 16
	// After that a request of the background waits no longer for a connection and is not sent again. Its answer is
	// read to the end of the client's ReadTimeout, unless the client heeds contexts there too.
	background = 2 * time.Second
	// How long a request that found no server is tried again, and the pause between.
	longestReturn = 30 * time.Second
	pause         = 100 * time.Millisecond
)

// returned gives back what nobody uses: one goroutine, while there is anything.
type returned struct {
	cmd redis.Cmdable
	// After that the places are free anyway.
	window time.Duration

	mu sync.Mutex
	// Names of grants, by the name of their set.
	waiting map[string][]string
	// Of all that wait, and of those that are tried again.
	count   int
	telling bool
}

// A chunk is what one request gives back.
type chunk struct {
	set   string
	names []string
	until time.Time
}

func (r *returned) put(set, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count >= mostWaiting {
		return
	}
	if r.waiting == nil {
		r.waiting = make(map[string][]string)
	}
	r.waiting[set] = append(r.waiting[set], name)
	r.count++
	if !r.telling {
		r.telling = true
		go r.tell()
	}
}

func (r *returned) tell() {
	var chunks []chunk
	for {
		r.mu.Lock()
		all := r.waiting
		r.waiting = nil
		r.telling = len(all)+len(chunks) > 0
		r.mu.Unlock()
		if len(all)+len(chunks) == 0 {
			return
		}
		until := time.Now().Add(min(r.window, longestReturn))
		for set, names := range all {
			for names := range slices.Chunk(names, batch) {
				chunks = append(chunks, chunk{set, names, until})
			}
		}
		var open bool
		if chunks, open = r.round(chunks); !open {
			return
		}
		if len(chunks) > 0 {
			time.Sleep(pause)
		}
	}
}

// round asks once for each chunk and returns those to try again. It is false when the client is closed: then nothing can
// be given back any more.
func (r *returned) round(chunks []chunk) ([]chunk, bool) {
	var again []chunk
	// Of a set whose server does not answer each further chunk would take as long: they wait for the next round.
	lost := make(map[string]bool)
	for _, one := range chunks {
		if !lost[one.set] {
			err := r.remove(one)
			if errors.Is(err, redis.ErrClosed) {
				r.end()
				return nil, false
			}
			lost[one.set] = err != nil && mayPass(err)
		}
		if lost[one.set] && time.Now().Before(one.until) {
			again = append(again, one)
			continue
		}
		r.mu.Lock()
		r.count -= len(one.names)
		r.mu.Unlock()
	}
	return again, true
}

func (r *returned) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting, r.count, r.telling = nil, 0, false
}

func (r *returned) remove(one chunk) error {
	members := make([]any, len(one.names))
	for i, name := range one.names {
		members[i] = name
	}
	ctx, cancel := context.WithTimeout(context.Background(), background)
	defer cancel()
	return r.cmd.ZRem(ctx, one.set, members...).Err()
}

// mayPass is false of what a server refuses, but for one that says that it can do it later.
func mayPass(err error) bool {
	var refused redis.Error
	if !errors.As(err, &refused) {
		return true
	}
	for _, later := range []string{"LOADING ", "MASTERDOWN ", "CLUSTERDOWN ", "TRYAGAIN ", "READONLY "} {
		if redis.HasErrorPrefix(err, later) {
			return true
		}
	}
	return false
}
