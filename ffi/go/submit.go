package ceiba

// Submit gives a message to the producer and returns without waiting. The body is copied.
//
// When it returns nil, done is called exactly once with the receipt or the error, also when the
// producer is closed. Callbacks of one producer run one after the other on a goroutine of their own, in
// the order in which the messages ended; a slow one holds up only its own producer's. A callback may
// call anything but Close and Flush of its own producer.
//
// The window is bounded: when it is full, Submit fails at once as [ErrQueueFull] and done is not called.
func (p *Producer) Submit(body []byte, done func(Receipt, error), options ...SendOption) error {
	if len(options) == 0 {
		return orNil(p.submit(&order{body: body, timeout: -1}, done))
	}
	o, err := orderOf(&call{Message: Message{Body: body}}, options)
	if err != nil {
		return err
	}
	return orNil(p.submit(&o, done))
}

// SubmitMessage submits a message with all its fields, as [Producer.Submit] does.
func (p *Producer) SubmitMessage(message Message, done func(Receipt, error), options ...SendOption) error {
	o, err := orderOf(&call{Message: message, rich: true}, options)
	if err != nil {
		return err
	}
	return orNil(p.submit(&o, done))
}

func (p *Producer) submit(o *order, done func(Receipt, error)) *Error {
	if done == nil {
		return errorf(ErrInvalidArgument, "a submit needs a callback: without one an error would be lost in silence")
	}
	if p.submits.Add(1) > p.maxSubmits {
		p.uncount()
		return errorf(ErrQueueFull, "%d submits are under way or wait for their callback", p.maxSubmits)
	}
	if _, _, err := p.hand(o, submitted, done); err != nil {
		p.uncount()
		return err
	}
	return nil
}

// uncount takes back the count of a submit that was refused. A close may be waiting for the last one.
func (p *Producer) uncount() {
	if p.submits.Add(-1) == 0 {
		p.mu.Lock()
		p.signalProgress()
		p.mu.Unlock()
	}
}

// callBack takes finished submits from the poller, which must not wait for callbacks.
func (p *Producer) callBack(finished []*waiter) {
	p.mu.Lock()
	p.ready = append(p.ready, finished...)
	start := !p.running
	p.running = true
	p.mu.Unlock()
	if start {
		go p.runCallbacks()
	}
}

// runCallbacks runs until none waits, so that an idle producer has no goroutine.
func (p *Producer) runCallbacks() {
	for {
		p.mu.Lock()
		p.signalProgress()
		list := p.ready
		if len(list) == 0 {
			p.running = false
			p.mu.Unlock()
			return
		}
		p.ready, p.spare = p.spare[:0], nil
		p.mu.Unlock()
		p.runList(list)
		p.mu.Lock()
		p.spare = list[:0]
		p.mu.Unlock()
	}
}

// putAtOnce is after how many callbacks their waiters are put back: not after each, because other
// processors are taking waiters meanwhile.
const putAtOnce = 64

func (p *Producer) runList(list []*waiter) {
	put, ran := 0, 0
	settle := func() {
		// Counted first: who sees that the callback returned finds its room free.
		p.submits.Add(-1)
		list[ran].clear()
		if ran++; ran-put == putAtOnce || ran == len(list) {
			p.engine.putAll(list[put:ran])
			put = ran
		}
		if p.watched.Load() {
			p.mu.Lock()
			p.signalProgress()
			p.mu.Unlock()
		}
	}
	defer func() {
		if ran == len(list) {
			return
		}
		// The callback ended this goroutine (runtime.Goexit, as a test's FailNow does): go on in another.
		settle()
		if put < ran {
			p.engine.putAll(list[put:ran])
		}
		p.mu.Lock()
		p.ready = append(append([]*waiter(nil), list[ran:]...), p.ready...)
		p.mu.Unlock()
		go p.runCallbacks()
	}()
	for ran < len(list) {
		w := list[ran]
		w.done(w.result(), orNil(w.err))
		settle()
	}
}

// awaitProgress returns a channel that is closed when more callbacks have returned.
func (p *Producer) awaitProgress() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.progress == nil {
		p.progress = make(chan struct{})
		p.watched.Store(true)
	}
	return p.progress
}

func (p *Producer) signalProgress() {
	if p.progress != nil {
		close(p.progress)
		p.progress = nil
		p.watched.Store(false)
	}
}
