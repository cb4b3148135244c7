package ceiba

import (
	"sync"
	"sync/atomic"
)

// A waiter is the Go side of one call under way. It lives in a slab, so that the library gets a number
// for it and never a Go pointer, and its channel is used again and again.
//
// Its state is one word: generation (32 bits), owner (29 bits), phase (3 bits). The token of a call is
// generation and index, so that a late cancel or completion cannot hit the next user of the slot.
//
// Callers and the poller are on different processors: each half is a cache line, and a caller that does
// not wait touches the first alone.
type waiter struct {
	state atomic.Uint64
	next  atomic.Uint32
	index uint32
	// What follows belongs to the caller until it arms the waiter, to the poller until it finishes it.
	wake  chan struct{}
	done  func(Receipt, error)
	owner *Producer
	err   *Error
	// Few receipts have parts or a code; the rest of one fills the second half.
	parts *[]Part
	code  *string

	receipt plainReceipt
}

// plainReceipt is a receipt without its parts and its code.
type plainReceipt struct {
	messageID string
	provider  string
	attempts  int
	stored    bool
	warning   string
}

func (w *waiter) result() Receipt {
	receipt := w.receipt.whole()
	if w.parts != nil {
		receipt.Parts = *w.parts
	}
	if w.code != nil {
		receipt.Code = *w.code
	}
	return receipt
}

func (r *plainReceipt) whole() Receipt {
	return Receipt{
		MessageID: r.messageID,
		Provider:  r.provider,
		Attempts:  r.attempts,
		Stored:    r.stored,
		Warning:   r.warning,
	}
}

type phase = uint64

const (
	idle      phase = iota // in the free list, or not armed
	sending                // a goroutine waits on wake
	submitted              // a callback waits
	abandoned              // nobody waits any more: the poller frees it
	finished               // the result is there
)

const phaseBits, phaseMask, ownerMask = 3, 7, 1<<29 - 1

// arm makes the waiter ready for one call and returns the call's token. The store is what lets the
// poller see the fields.
func (w *waiter) arm(phase phase, owner *Producer, done func(Receipt, error)) uint64 {
	w.owner, w.done = owner, done
	if phase == sending && w.wake == nil {
		w.wake = make(chan struct{}, 1)
	}
	generation := w.state.Load()>>32 + 1
	w.state.Store(generation<<32 | uint64(owner.number)<<phaseBits | phase)
	return generation<<32 | uint64(w.index)
}

const (
	chunkSize = 1 << 10
	maxChunks = 1 << 10
	// maxWaiters is how many calls of this process may be under way or not yet called back.
	maxWaiters = chunkSize * maxChunks
)

type chunk [chunkSize]waiter

// slab holds the waiters: a stack of free ones without a lock, grown by chunks that never move.
type slab struct {
	// Number of pops (against reuse of a head that was seen before) and index + 1 of the top.
	free   atomic.Uint64
	chunks [maxChunks]atomic.Pointer[chunk]
	grow   sync.Mutex
	size   atomic.Uint32
}

func (s *slab) at(index uint32) *waiter {
	return &s.chunks[index/chunkSize].Load()[index%chunkSize]
}

// get takes a free waiter, nil when maxWaiters are in use.
func (s *slab) get() *waiter {
	for {
		top := s.free.Load()
		if uint32(top) == 0 {
			if !s.extend() {
				return nil
			}
			continue
		}
		w := s.at(uint32(top) - 1)
		if s.free.CompareAndSwap(top, (top>>32+1)<<32|uint64(w.next.Load())) {
			return w
		}
	}
}

// put gives a waiter back.
func (s *slab) put(w *waiter) {
	w.clear()
	s.push(w, w)
}

// putAll gives cleared waiters back, to be used again in this order.
func (s *slab) putAll(waiters []*waiter) {
	last := len(waiters) - 1
	for i, w := range waiters[:last] {
		w.next.Store(waiters[i+1].index + 1)
	}
	s.push(waiters[0], waiters[last])
}

// clear ends the call: its token holds nothing from here on.
func (w *waiter) clear() {
	w.owner, w.done, w.err = nil, nil, nil
	w.receipt = plainReceipt{}
	w.parts, w.code = nil, nil
	w.state.Store(w.state.Load() &^ (1<<32 - 1))
}

func (s *slab) push(first, last *waiter) {
	for {
		top := s.free.Load()
		last.next.Store(uint32(top))
		if s.free.CompareAndSwap(top, top>>32<<32|uint64(first.index+1)) {
			return
		}
	}
}

func (s *slab) extend() bool {
	s.grow.Lock()
	defer s.grow.Unlock()
	if uint32(s.free.Load()) != 0 {
		return true
	}
	size := s.size.Load()
	if size == maxWaiters {
		return false
	}
	added := new(chunk)
	for i := range added {
		added[i].index = size + uint32(i)
		if i+1 < chunkSize {
			added[i].next.Store(size + uint32(i) + 2)
		}
	}
	s.chunks[size/chunkSize].Store(added)
	s.size.Store(size + chunkSize)
	s.push(&added[0], &added[chunkSize-1])
	return true
}

// submittedBy lists the tokens of a producer's submits whose callback has not returned.
func (s *slab) submittedBy(owner *Producer) []uint64 {
	var tokens []uint64
	for index := range s.size.Load() {
		state := s.at(index).state.Load()
		if state&phaseMask == submitted && state>>phaseBits&ownerMask == uint64(owner.number) {
			tokens = append(tokens, state>>32<<32|uint64(index))
		}
	}
	return tokens
}

// holds reports whether the call of this token has not ended.
func (s *slab) holds(token uint64) bool {
	state := s.at(uint32(token)).state.Load()
	return state>>32 == token>>32 && state&phaseMask != idle
}
