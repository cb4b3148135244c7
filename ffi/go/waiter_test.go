package ceiba

import (
	"sync"
	"testing"
	"unsafe"
)

func TestTheSlabGivesEachWaiterToOneAtATime(t *testing.T) {
	var s slab
	owner := &Producer{number: 3}
	const goroutines, rounds, held = 8, 5000, 40
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			waiters := make([]*waiter, 0, held)
			for range rounds {
				w := s.get()
				if w == nil {
					t.Error("no waiter")
					return
				}
				if phase := w.state.Load() & phaseMask; phase != idle {
					t.Errorf("a waiter in phase %d was given out", phase)
				}
				token := w.arm(sending, owner, nil)
				if s.at(uint32(token)) != w || !s.holds(token) {
					t.Error("a token does not lead to its waiter")
				}
				if waiters = append(waiters, w); len(waiters) == held {
					for _, w := range waiters {
						s.put(w)
					}
					waiters = waiters[:0]
				}
			}
			for _, w := range waiters {
				s.put(w)
			}
		})
	}
	all.Wait()
	if size := s.size.Load(); size > chunkSize {
		t.Errorf("%d waiters for %d at a time", size, goroutines*held)
	}
	free := map[*waiter]bool{}
	for range s.size.Load() {
		free[s.get()] = true
	}
	if len(free) != int(s.size.Load()) || free[nil] {
		t.Errorf("%d of %d waiters came back", len(free), s.size.Load())
	}
}

func TestATokenOfAnEarlierCallHitsNothing(t *testing.T) {
	var s slab
	owner := &Producer{number: 1}
	w := s.get()
	first := w.arm(submitted, owner, nil)
	if tokens := s.submittedBy(owner); len(tokens) != 1 || tokens[0] != first {
		t.Error(tokens)
	}
	s.put(w)
	if s.holds(first) {
		t.Error("a waiter that was put back is held")
	}
	if again := s.get(); again != w {
		t.Fatal("the last one put back is not the first one given")
	}
	second := w.arm(submitted, owner, nil)
	if first == second || s.holds(first) || !s.holds(second) {
		t.Error("the generation does not tell calls apart")
	}
}

func TestTheSlabIsBounded(t *testing.T) {
	var s slab
	s.size.Store(maxWaiters)
	if w := s.get(); w != nil {
		t.Error("a waiter past the bound")
	}
}

func TestRoomIsPassedOnByThoseWhoDoNotNeedIt(t *testing.T) {
	var r room
	first, second, third := r.join(), r.join(), r.join()
	r.wake(1)
	r.leave(first)
	select {
	case <-second:
	default:
		t.Fatal("the room that the first did not use was lost")
	}
	r.waiting.Add(-1)
	r.leave(third)
	r.wake(5)
	if r.waiting.Load() != 0 || len(r.line) != 0 {
		t.Error("someone is left in line")
	}
}

func TestAWaiterIsTwoCacheLines(t *testing.T) {
	var w waiter
	if size, second := unsafe.Sizeof(w), unsafe.Offsetof(w.receipt); size != 128 || second != 64 {
		t.Errorf("a waiter has %d bytes, and its second half begins at %d", size, second)
	}
}
