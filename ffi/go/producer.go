package ceiba

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"
)

// Producer sends messages. Any goroutine may use it at any time, also while another closes it.
type Producer struct {
	id     string
	engine *engine
	number uint32
	// deadline of a call that names none.
	deadline time.Duration
	closed   atomic.Bool

	maxSubmits int64
	submits    atomic.Int64

	mu sync.Mutex
	// Submits that ended and whose callback has not run, and whether a goroutine runs callbacks.
	ready   []*waiter
	spare   []*waiter
	running bool
	// Closed, when somebody asked for it, as soon as more callbacks have returned.
	progress chan struct{}
	watched  atomic.Bool
}

// OpenOption changes how a client is opened.
type OpenOption func(*openSettings)

type openSettings struct {
	id         string
	maxSubmits int64
}

// WithID opens the client under this id, whatever the configuration's own is.
func WithID(id string) OpenOption { return func(o *openSettings) { o.id = id } }

// WithMaxSubmits bounds how many submits of a producer may be under way or wait for their callback:
// 65536 without it. One more is refused as [ErrQueueFull].
func WithMaxSubmits(count int) OpenOption {
	return func(o *openSettings) { o.maxSubmits = int64(count) }
}

const defaultMaxSubmits = 65_536

func settingsOf(options []OpenOption) (openSettings, *Error) {
	o := openSettings{maxSubmits: defaultMaxSubmits}
	for _, option := range options {
		option(&o)
	}
	if o.maxSubmits < 1 || o.maxSubmits > maxWaiters {
		return o, errorf(ErrInvalidArgument, "a producer takes 1 to %d submits, not %d", maxWaiters, o.maxSubmits)
	}
	return o, nil
}

// OpenProducer opens a producer. The configuration is a [Config], a JSON text, a URL, or any value that
// marshals to that JSON.
//
// It waits for the first connection, up to the configuration's "connect_timeout" and until the context
// ends, and fails if there is none; with "connect" "lazy" it does not wait.
func OpenProducer(ctx context.Context, config any, options ...OpenOption) (*Producer, error) {
	ctx = orBackground(ctx)
	o, err := settingsOf(options)
	if err != nil {
		return nil, err
	}
	text, id, err := configText(config)
	if err != nil {
		return nil, err
	}
	if o.id != "" {
		id = o.id
	}
	e, err := useEngine()
	if err != nil {
		return nil, err
	}
	err, behind := opening.run(ctx, func() *Error { return cProducerOpen(id, text, e.queue) }, func(late *Error) {
		// The context ended, and the producer opened all the same: nobody will use it.
		if late == nil {
			cProducerClose(id, -1)
		}
		leaveEngine(time.After(closePatience))
	})
	if err != nil {
		if !behind {
			leaveEngine(time.After(closePatience))
		}
		err.Outcome = NotSent
		return nil, err
	}
	return adoptProducer(id, e, o.maxSubmits), nil
}

var producerNumbers atomic.Uint32

// adoptProducer makes the Go side of a producer that is open with this engine's queue.
func adoptProducer(id string, e *engine, maxSubmits int64) *Producer {
	p := &Producer{id: id, engine: e, number: producerNumbers.Add(1) & ownerMask, maxSubmits: maxSubmits}
	var status struct {
		DeadlineMs int64 `json:"deadline_ms"`
	}
	p.deadline = 30 * time.Second
	if text, err := cProducerStatus(id); err == nil && json.Unmarshal([]byte(text), &status) == nil && status.DeadlineMs > 0 {
		p.deadline = time.Duration(status.DeadlineMs) * time.Millisecond
	}
	producers.set(id, p)
	return p
}

// ID returns the id that the producer is open under.
func (p *Producer) ID() string { return p.id }

// Send sends a message and waits for its receipt. The body is copied before Send returns or waits.
//
// It ends with the context, at the context's deadline, or, without one, at the client's; an [OutboxStrategy]
// may take up to six seconds more to store the message. The error of a message that was written when the
// context ended has the outcome [Unknown]. While the window is full, Send waits for room; [ErrQueueFull] says
// that there was none in time.
func (p *Producer) Send(ctx context.Context, body []byte, options ...SendOption) (Receipt, error) {
	if len(options) == 0 {
		receipt, err := p.send(orBackground(ctx), &order{body: body, timeout: -1})
		return receipt, orNil(err)
	}
	c := call{Message: Message{Body: body}}
	receipt, err := p.sendCall(orBackground(ctx), &c, options)
	return receipt, orNil(err)
}

// SendMessage sends a message with all its fields, as [Producer.Send] does.
func (p *Producer) SendMessage(ctx context.Context, message Message, options ...SendOption) (Receipt, error) {
	c := call{Message: message, rich: true}
	receipt, err := p.sendCall(orBackground(ctx), &c, options)
	return receipt, orNil(err)
}

func (p *Producer) sendCall(ctx context.Context, c *call, options []SendOption) (Receipt, *Error) {
	o, err := orderOf(c, options)
	if err != nil {
		return Receipt{}, err
	}
	return p.send(ctx, &o)
}

func (p *Producer) send(ctx context.Context, o *order) (Receipt, *Error) {
	if err := o.within(ctx); err != nil {
		return Receipt{}, err
	}
	w, token, err := p.begin(ctx, o)
	if err != nil {
		return Receipt{}, err
	}
	return p.await(ctx, w, token, o)
}

// begin hands a call over that a goroutine will wait for.
func (p *Producer) begin(ctx context.Context, o *order) (*waiter, uint64, *Error) {
	w, token, err := p.hand(o, sending, nil)
	if err != nil && err.Kind == ErrQueueFull {
		w, token, err = p.handWhenRoom(ctx, o)
	}
	return w, token, err
}

// hand gives a call to the library, which never blocks here.
func (p *Producer) hand(o *order, phase phase, done func(Receipt, error)) (*waiter, uint64, *Error) {
	if p.closed.Load() {
		return nil, 0, p.errClosed()
	}
	w := p.engine.get()
	if w == nil {
		return nil, 0, errorf(ErrQueueFull, "%d calls of this process are under way", maxWaiters)
	}
	token := w.arm(phase, p, done)
	if err := o.submit(p.id, token); err != nil {
		p.engine.put(w)
		return nil, 0, err
	}
	return w, token, nil
}

// roomCheck is how often a call tries again that nobody told of room: calls that are not of this
// package may have taken it and given it back.
const roomCheck = 20 * time.Millisecond

// handWhenRoom waits for room until the call's deadline.
func (p *Producer) handWhenRoom(ctx context.Context, o *order) (*waiter, uint64, *Error) {
	until := p.deadline
	if o.timeout >= 0 {
		until = time.Duration(o.timeout) * time.Millisecond
	}
	start := time.Now()
	timer := time.NewTimer(min(roomCheck, until))
	defer timer.Stop()
	for {
		place := p.engine.room.join()
		w, token, err := p.hand(o, sending, nil)
		if err == nil || err.Kind != ErrQueueFull {
			p.engine.room.leave(place)
			return w, token, err
		}
		select {
		case <-place:
			p.engine.room.waiting.Add(-1)
		case <-timer.C:
			p.engine.room.leave(place)
		case <-ctx.Done():
			p.engine.room.leave(place)
			if ctx.Err() == context.Canceled {
				return nil, 0, contextError(ctx)
			}
			err.cause = ctx.Err()
			return nil, 0, err
		}
		left := until - time.Since(start)
		if left <= 0 {
			if o.fromContext {
				err.cause = context.DeadlineExceeded
			}
			return nil, 0, err
		}
		timer.Reset(min(roomCheck, left))
		if o.timeout >= 0 {
			// What was waited here is not waited again for the result.
			o.timeout = milliseconds(left)
		}
	}
}

// cancelPatience is how long a cancelled call waits for its outcome, which is normally there at once.
const cancelPatience = 2 * time.Second

// storePatience is how long a call waits after its deadline, at which it normally ends: an outbox may take five seconds
// to store its message.
const storePatience = 6 * time.Second

// await waits for the result of a call that was handed over.
func (p *Producer) await(ctx context.Context, w *waiter, token uint64, o *order) (Receipt, *Error) {
	cancelled := ctx.Done()
	if cancelled == nil {
		<-w.wake
		return p.take(ctx, w, o)
	}
	select {
	case <-w.wake:
		return p.take(ctx, w, o)
	case <-cancelled:
	}
	if o.fromContext && ctx.Err() == context.DeadlineExceeded {
		// The library has the same deadline, at which an outbox stores what it must not be told to cancel.
		timer := time.NewTimer(storePatience)
		defer timer.Stop()
		select {
		case <-w.wake:
			return p.take(ctx, w, o)
		case <-timer.C:
		}
	}
	cProducerCancel(p.id, token)
	timer := time.NewTimer(cancelPatience)
	defer timer.Stop()
	select {
	case <-w.wake:
		return p.take(ctx, w, o)
	case <-timer.C:
	}
	state := w.state.Load()
	if state&phaseMask == sending && w.state.CompareAndSwap(state, state&^phaseMask|abandoned) {
		return Receipt{}, endedBy(ctx.Err(), Unknown)
	}
	<-w.wake
	return p.take(ctx, w, o)
}

func (p *Producer) take(ctx context.Context, w *waiter, o *order) (Receipt, *Error) {
	receipt, err := w.result(), w.err
	p.engine.put(w)
	if err != nil {
		err = blame(err, ctx, o.fromContext)
	}
	return receipt, err
}

// batchWindow is how many messages of one SendBatch are under way at once.
const batchWindow = 4096

// SendBatch sends several messages and waits for all: a result for each, in their order. The error is
// that of the call as a whole; then no message was sent.
func (p *Producer) SendBatch(ctx context.Context, messages []Message) ([]Result, error) {
	ctx = orBackground(ctx)
	if p.closed.Load() {
		return nil, p.errClosed()
	}
	type flight struct {
		w     *waiter
		token uint64
		order order
	}
	results := make([]Result, len(messages))
	flights := make([]flight, min(len(messages), batchWindow))
	settle := func(i int) {
		f := &flights[i%batchWindow]
		if f.w != nil {
			receipt, err := p.await(ctx, f.w, f.token, &f.order)
			results[i] = Result{receipt, orNil(err)}
			f.w = nil
		}
	}
	for i := range messages {
		if i >= batchWindow {
			settle(i - batchWindow)
		}
		f := &flights[i%batchWindow]
		var err *Error
		f.order, err = orderOf(&call{Message: messages[i], rich: true}, nil)
		if err == nil {
			err = f.order.within(ctx)
		}
		if err == nil {
			f.w, f.token, err = p.begin(ctx, &f.order)
		}
		if err != nil {
			results[i] = Result{Err: err}
		}
	}
	for i := max(0, len(messages)-batchWindow); i < len(messages); i++ {
		settle(i)
	}
	return results, nil
}

// Status returns the producer's live state as JSON.
func (p *Producer) Status() (json.RawMessage, error) {
	if p.closed.Load() {
		return nil, p.errClosed()
	}
	text, err := cProducerStatus(p.id)
	if err != nil {
		return nil, err
	}
	return json.RawMessage(text), nil
}

// Control changes the live state of a strategy. The command is anything that marshals to a JSON object that names it,
// such as map[string]any{"strategy": "failover", "current": 0}. It returns the new state as JSON.
func (p *Producer) Control(command any) (json.RawMessage, error) {
	if p.closed.Load() {
		return nil, p.errClosed()
	}
	return control(p.id, command)
}

func control(id string, command any) (json.RawMessage, error) {
	asked, failed := json.Marshal(command)
	if failed != nil {
		return nil, errorf(ErrInvalidArgument, "the command is no JSON: %v", failed)
	}
	text, err := cProducerControl(id, string(asked))
	if err != nil {
		return nil, err
	}
	return json.RawMessage(text), nil
}

func (p *Producer) errClosed() *Error {
	return errorf(ErrClosed, "the producer `%s` was closed", p.id)
}

// Flush waits until every send and submit made before has ended and its callback has returned. A send
// of another goroutine that still waits for room in the producer is not waited for.
func (p *Producer) Flush(ctx context.Context) error {
	ctx = orBackground(ctx)
	if p.closed.Load() {
		return p.errClosed()
	}
	tokens := p.engine.submittedBy(p)
	timeout := patience(ctx)
	var late <-chan time.Time
	if timeout < 0 {
		// One deadline for both waits.
		timer := time.NewTimer(p.deadline)
		defer timer.Stop()
		late = timer.C
	}
	err, _ := settling.run(ctx, func() *Error { return cProducerFlush(p.id, timeout) }, nothingLate)
	if err != nil {
		return blame(err, ctx, timeout >= 0)
	}
	for {
		progress := p.awaitProgress()
		for len(tokens) > 0 && !p.engine.holds(tokens[len(tokens)-1]) {
			tokens = tokens[:len(tokens)-1]
		}
		if len(tokens) == 0 {
			return nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return contextError(ctx)
		case <-late:
			return errorf(ErrTimeout, "%d callbacks have not returned", len(tokens))
		}
	}
}

// Close takes no more sends, waits for those under way until the context's deadline (without one, the
// client's), ends the rest with their outcome, and frees the id. Every callback has returned when it
// returns nil; it must not be called from a callback of its own producer. [ErrTimeout] says that some
// sends had to be ended or a callback is still running; the id of one whose [HostSender] is stuck is free when that
// has returned. When the context is cancelled it returns at
// once, and closing goes on behind. A second Close fails as [ErrClosed]; [ErrInUse] leaves it open.
func (p *Producer) Close(ctx context.Context) error {
	ctx = orBackground(ctx)
	if p.closed.Swap(true) {
		return p.errClosed()
	}
	by := closeBy(ctx, p.deadline)
	return orNil(opening.finish(ctx, func() *Error {
		err := cProducerClose(p.id, by.timeout())
		if err != nil && err.Kind == ErrInUse {
			p.closed.Store(false)
			return err
		}
		return p.bury(err, by.last())
	}))
}

// bury ends the Go side of a producer that is closed, and passes the close's error on.
func (p *Producer) bury(err *Error, last time.Time) *Error {
	producers.remove(p.id, p)
	lastProducer.CompareAndSwap(p, nil)
	timer := time.NewTimer(time.Until(last))
	defer timer.Stop()
	for p.submits.Load() > 0 {
		progress := p.awaitProgress()
		if p.submits.Load() == 0 {
			break
		}
		select {
		case <-progress:
			continue
		case <-timer.C:
		}
		if err == nil {
			err = errorf(ErrTimeout, "%d callbacks have not returned", p.submits.Load())
		}
		break
	}
	leaveEngine(briefly(last))
	return err
}
