package slidewindowlimit

import (
	"context"
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
	// What one request of the background may take, how long it is tried again, and the pause between.
	background    = 2 * time.Second
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
	count   int
	telling bool
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
	for {
		r.mu.Lock()
		all := r.waiting
		r.waiting, r.count = nil, 0
		r.telling = len(all) > 0
		r.mu.Unlock()
		if len(all) == 0 {
			return
		}
		until := time.Now().Add(min(r.window, longestReturn))
		for set, names := range all {
			for names := range slices.Chunk(names, batch) {
				r.remove(set, names, until)
			}
		}
	}
}

func (r *returned) remove(set string, names []string, until time.Time) {
	members := make([]any, len(names))
	for i, name := range names {
		members[i] = name
	}
	for {
		ctx, cancel := context.WithTimeout(context.Background(), background)
		err := r.cmd.ZRem(ctx, set, members...).Err()
		cancel()
		if err == nil || time.Now().After(until) {
			return
		}
		time.Sleep(pause)
	}
}
