package ceiba

import (
	"context"
	"encoding/json"
	"iter"
	"time"
)

// Outbox looks into an outbox and changes its rows: see [OpenOutbox]. Any goroutine may use it.
type Outbox struct{ target string }

// OpenOutbox names an outbox. The target is the id of an open producer that has one, and then all is about the rows of
// this producer; or the address of a store, such as "sqlite:outbox.db", which needs no open producer and has the rows of
// all. Nothing is opened or held before a call, so nothing is to be closed.
//
// A call ends at its context's deadline, and after 30 seconds where there is none. Its errors are those of each call,
// and [ErrUnknownID], [ErrUnsupported] where the producer has no outbox, [ErrInvalidArgument], [ErrNotFound] where an
// address is that of a file that is not there ([Outbox.Import] makes it), [ErrStorage], and [ErrQueueFull] where too much
// waits for the store.
func OpenOutbox(target string) *Outbox { return &Outbox{target} }

// Outbox is the outbox of this producer.
func (p *Producer) Outbox() *Outbox { return OpenOutbox(p.id) }

// RowState is what has become of a row.
type RowState string

// The states of rows.
const (
	// RowPending: it waits for its next attempt.
	RowPending RowState = "pending"
	// RowLeased: somebody is sending it.
	RowLeased RowState = "leased"
	// RowDone: it was sent, and is kept for a while.
	RowDone RowState = "done"
	// RowDead: it was given up.
	RowDead RowState = "dead"
)

// Row is a message in an outbox.
type Row struct {
	// ID is a number as text. Later rows have larger ones.
	ID string
	// Producer is the id of the producer whose row it is.
	Producer string
	State    RowState
	// Attempts out of the outbox that failed; the one that failed before it was stored is none of them.
	Attempts int
	// Size of the body in bytes.
	Size int64
	// Accepted is when the message was, Created when the row was made, Updated when it changed last.
	Accepted, Created, Updated time.Time
	// NextAttempt of a pending row; zero where it waits for another row of its key.
	NextAttempt time.Time
	// LeasedUntil is when the lease of a leased row ends by itself.
	LeasedUntil time.Time
	// Topic, OrderKey and DedupKey, where the message has them.
	Topic, OrderKey, DedupKey string
	// Short is the begin of the body; a row that [Outbox.Show] gives has its whole Message in its place.
	Short string
	// Err is why the last attempt failed: nil, or an [*Error].
	Err error
	// Message is the whole message, from [Outbox.Show] alone.
	Message *Message
}

type rowJSON struct {
	ID          string       `json:"id"`
	Producer    string       `json:"producer"`
	State       RowState     `json:"state"`
	Attempts    int          `json:"attempts"`
	Size        int64        `json:"size"`
	Accepted    time.Time    `json:"accepted"`
	Created     time.Time    `json:"created"`
	Updated     time.Time    `json:"updated"`
	NextAttempt time.Time    `json:"next_attempt"`
	LeasedUntil time.Time    `json:"leased_until"`
	Topic       string       `json:"topic"`
	OrderKey    string       `json:"order_key"`
	DedupKey    string       `json:"dedup"`
	Short       string       `json:"short"`
	Error       *rowError    `json:"error"`
	DelayMS     int64        `json:"delay_ms"`
	Message     *messageJSON `json:"message"`
}

// rowError is an error as a row keeps it.
type rowError struct {
	Kind     string `json:"kind"`
	Outcome  string `json:"outcome"`
	Provider string `json:"provider"`
	Message  string `json:"message"`
}

type messageJSON struct {
	Body        string            `json:"body"`
	BodyBase64  []byte            `json:"body_base64"`
	ContentType string            `json:"content_type"`
	Key         string            `json:"key"`
	Tag         string            `json:"tag"`
	Topic       string            `json:"topic"`
	Template    string            `json:"template"`
	Args        json.RawMessage   `json:"args"`
	Recipients  []string          `json:"recipients"`
	Attributes  map[string]string `json:"attributes"`
	Attachments []struct {
		Name        string `json:"name"`
		ContentType string `json:"content_type"`
	} `json:"attachments"`
}

func (r *rowJSON) row() Row {
	row := Row{
		ID: r.ID, Producer: r.Producer, State: r.State, Attempts: r.Attempts, Size: r.Size, Accepted: r.Accepted,
		Created: r.Created, Updated: r.Updated, NextAttempt: r.NextAttempt, LeasedUntil: r.LeasedUntil, Topic: r.Topic,
		OrderKey: r.OrderKey, DedupKey: r.DedupKey, Short: r.Short,
	}
	if r.Error != nil {
		// A kind that this package does not know is one of a later library.
		failed := &Error{Kind: ErrInternal, Provider: r.Error.Provider, Attempts: r.Attempts, Message: r.Error.Message}
		for _, kind := range Kinds() {
			if kind.String() == r.Error.Kind {
				failed.Kind = kind
			}
		}
		if r.Error.Outcome == Unknown.String() {
			failed.Outcome = Unknown
		}
		row.Err = failed
	}
	if m := r.Message; m != nil {
		message := &Message{
			Body: m.BodyBase64, Delay: time.Duration(r.DelayMS) * time.Millisecond, ContentType: m.ContentType, Key: m.Key,
			Tag: m.Tag, Topic: m.Topic, Template: m.Template, Recipients: m.Recipients, Attributes: m.Attributes,
		}
		if m.BodyBase64 == nil {
			message.Body = []byte(m.Body)
		}
		if m.Args != nil {
			message.Args = m.Args
		}
		for _, file := range m.Attachments {
			message.Attachments = append(message.Attachments, Attachment{Name: file.Name, ContentType: file.ContentType})
		}
		row.Message = message
	}
	return row
}

// ListOptions say which rows a list or an export has. The zero one has all.
type ListOptions struct {
	// Producer whose rows they are.
	Producer string
	// State that they are in.
	State RowState
	// After is the Next of the page before.
	After string
	// Limit is how many rows a page has at most: 1 to 1000, and 100 without one.
	Limit int
}

func (o ListOptions) keys() any {
	return struct {
		Producer string   `json:"producer,omitempty"`
		State    RowState `json:"state,omitempty"`
		After    string   `json:"after,omitempty"`
		Limit    int      `json:"limit,omitempty"`
	}{o.Producer, o.State, o.After, o.Limit}
}

// Page is a part of the rows of an outbox, oldest first.
type Page struct {
	Rows []Row
	// Next is the After of the next page; empty on the last one.
	Next string
}

// List returns one page of rows. Paging skips no row, whatever is added or deleted meanwhile.
func (o *Outbox) List(ctx context.Context, options ListOptions) (Page, error) {
	var answer struct {
		Rows []rowJSON `json:"rows"`
		Next string    `json:"next"`
	}
	if err := o.ask(ctx, outboxList, options.keys(), &answer); err != nil {
		return Page{}, err
	}
	page := Page{Rows: make([]Row, len(answer.Rows)), Next: answer.Next}
	for i := range answer.Rows {
		page.Rows[i] = answer.Rows[i].row()
	}
	return page, nil
}

// Rows goes through all rows, oldest first, a page of options.Limit at a time, so that rows may be retried or dropped on
// the way: none is skipped by that. An error ends it, and comes with an empty row.
func (o *Outbox) Rows(ctx context.Context, options ListOptions) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for {
			page, err := o.List(ctx, options)
			if err != nil {
				yield(Row{}, err)
				return
			}
			for _, row := range page.Rows {
				if !yield(row, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			options.After = page.Next
		}
	}
}

// Show returns one row with its Message, but for the bodies of attachments. [ErrNotFound] says that there is none.
func (o *Outbox) Show(ctx context.Context, id string) (Row, error) {
	var answer rowJSON
	if err := o.ask(ctx, outboxShow, map[string]string{"id": id}, &answer); err != nil {
		return Row{}, err
	}
	return answer.row(), nil
}

// perCall is how many rows one call of the library names.
const perCall = 10_000

// Retry makes pending and dead rows due at once, and returns how many; dead ones begin anew. Who sends them is an open
// producer, of any process, with this outbox; one that waits for another row of its key goes on waiting. An error may come
// after some of more than 10,000 rows.
func (o *Outbox) Retry(ctx context.Context, ids ...string) (int64, error) {
	var retried int64
	for len(ids) > 0 {
		var answer struct {
			Retried int64 `json:"retried"`
		}
		some := ids[:min(len(ids), perCall)]
		if err := o.ask(ctx, outboxRetry, map[string]any{"ids": some}, &answer); err != nil {
			return retried, err
		}
		retried += answer.Retried
		ids = ids[len(some):]
	}
	return retried, nil
}

func ofProducer(producer string) any {
	if producer == "" {
		return nil
	}
	return map[string]string{"producer": producer}
}

// RetryAll makes all pending and dead rows due at once, of all producers of the outbox where producer is empty, and
// returns how many. An error may come after some.
func (o *Outbox) RetryAll(ctx context.Context, producer string) (int64, error) {
	var answer struct {
		Retried int64 `json:"retried"`
	}
	err := o.ask(ctx, outboxRetryAll, ofProducer(producer), &answer)
	return answer.Retried, err
}

// Dropped is what became of rows that were to be dropped.
type Dropped struct {
	// Dropped counts those that are gone.
	Dropped int64
	// Leased ones are being sent, and stay.
	Leased []string
	// Unknown ones are not there.
	Unknown []string
}

// Drop deletes rows for good. An error may come after some of more than 10,000 rows.
func (o *Outbox) Drop(ctx context.Context, ids ...string) (Dropped, error) {
	var all Dropped
	for len(ids) > 0 {
		var answer struct {
			Dropped int64    `json:"dropped"`
			Leased  []string `json:"leased"`
			Unknown []string `json:"unknown"`
		}
		some := ids[:min(len(ids), perCall)]
		if err := o.ask(ctx, outboxDrop, map[string]any{"ids": some}, &answer); err != nil {
			return all, err
		}
		all.Dropped += answer.Dropped
		all.Leased = append(all.Leased, answer.Leased...)
		all.Unknown = append(all.Unknown, answer.Unknown...)
		ids = ids[len(some):]
	}
	return all, nil
}

// OutboxStats counts the rows of an outbox.
type OutboxStats struct {
	// Store is where the rows are: "sqlite" or "mongodb".
	Store string
	// Producers that have rows.
	Producers []ProducerRows
}

// ProducerRows counts the rows of one producer.
type ProducerRows struct {
	Producer                    string
	Pending, Leased, Done, Dead int64
	// NextAttempt is when the next row is due, Oldest when the oldest message was accepted that is still to be sent;
	// zero where there is none.
	NextAttempt, Oldest time.Time
}

// Stats counts rows, of all producers of the outbox where producer is empty.
func (o *Outbox) Stats(ctx context.Context, producer string) (OutboxStats, error) {
	var answer struct {
		Store     string `json:"store"`
		Producers []struct {
			Producer    string    `json:"producer"`
			Pending     int64     `json:"pending"`
			Leased      int64     `json:"leased"`
			Done        int64     `json:"done"`
			Dead        int64     `json:"dead"`
			NextAttempt time.Time `json:"next_attempt"`
			Oldest      time.Time `json:"oldest"`
		} `json:"producers"`
	}
	if err := o.ask(ctx, outboxStats, ofProducer(producer), &answer); err != nil {
		return OutboxStats{}, err
	}
	stats := OutboxStats{Store: answer.Store}
	for _, rows := range answer.Producers {
		stats.Producers = append(stats.Producers, ProducerRows(rows))
	}
	return stats, nil
}

// PurgeOptions say which ended rows are deleted.
type PurgeOptions struct {
	// Older is how long ago they ended at least.
	Older time.Duration
	// State is [RowDone], which is the default, or [RowDead].
	State RowState
	// Producer whose rows they are; of all where it is empty.
	Producer string
}

// Purge deletes rows that have ended, and returns how many; dead ones also where Notify was not told of them yet, for
// which KeepDead waits. An error may come after some.
func (o *Outbox) Purge(ctx context.Context, options PurgeOptions) (int64, error) {
	older := span(options.Older)
	switch {
	case options.Older < 0:
		return 0, errorf(ErrInvalidArgument, "rows cannot be older than a negative time")
	case options.Older == 0:
		older = "0ms"
	}
	var answer struct {
		Purged int64 `json:"purged"`
	}
	err := o.ask(ctx, outboxPurge, struct {
		Older    string   `json:"older"`
		State    RowState `json:"state,omitempty"`
		Producer string   `json:"producer,omitempty"`
	}{older, options.State, options.Producer}, &answer)
	return answer.Purged, err
}

// Drained is what became of the rows that a drain tried: all that the producer sent out of the store meanwhile counts.
type Drained struct {
	Sent   int64
	Failed int64
	// GivenUp are those of the failed that failed for the last time.
	GivenUp int64
}

// Drain tries every pending row of an open producer once, now, and waits until all have ended. The rows are tried all
// the same when the context ends before. An outbox that is named by its address has nobody who sends: [ErrUnsupported].
// Notify is told of what was given up before Drain returns.
//
// In an Ordered outbox it follows the rows of each key to the end of their line. What stands behind one that failed and
// was not given up, or that another process is sending, waits on: a Drain never waits for rows that other processes send,
// nor for what is accepted after it began.
func (o *Outbox) Drain(ctx context.Context) (Drained, error) {
	var answer struct {
		Sent    int64 `json:"sent"`
		Failed  int64 `json:"failed"`
		GivenUp int64 `json:"given_up"`
	}
	err := answered(orBackground(ctx), draining, &answer, func(timeout int64) (string, *Error) {
		return cOutboxDrain(o.target, timeout)
	})
	return Drained(answer), orNil(err)
}

var (
	// looking is for calls on outboxes, and for the administration of MNS.
	looking = make(gate, 32)
	// draining is for drains, which take long: other calls on outboxes wait for none of them.
	draining = make(gate, 32)
)

// ask makes a call, and reads its answer.
func (o *Outbox) ask(ctx context.Context, operation outboxOperation, options, answer any) error {
	text := ""
	if options != nil {
		asked, failed := json.Marshal(options)
		if failed != nil {
			return errorf(ErrInvalidArgument, "the options cannot be written as JSON: %v", failed)
		}
		text = string(asked)
	}
	return orNil(answered(orBackground(ctx), looking, answer, func(timeout int64) (string, *Error) {
		return cOutbox(operation, o.target, text, timeout)
	}))
}

// answered makes a call that answers with JSON, and reads that.
func answered(ctx context.Context, calls gate, answer any, call func(timeout int64) (string, *Error)) *Error {
	if err := checkLibrary(); err != nil {
		return err
	}
	timeout := patience(ctx)
	// A call that goes on behind must not write into what the caller reads.
	given := make(chan string, 1)
	err, _ := calls.run(ctx, func() *Error {
		text, err := call(timeout)
		if err == nil {
			given <- text
		}
		return err
	}, nothingLate)
	if err != nil {
		return blame(err, ctx, timeout >= 0)
	}
	if failed := json.Unmarshal([]byte(<-given), answer); failed != nil {
		return errorf(ErrInternal, "the library's answer cannot be read: %v", failed)
	}
	return nil
}
