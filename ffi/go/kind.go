package ceiba

// Kind says what went wrong. A Kind is itself an error, so that errors.Is(err, ceiba.ErrTimeout) holds
// for every [*Error] of that kind. The numbers are fixed for ever.
type Kind int32

// The kinds.
const (
	// ErrInvalidArgument: an argument of the call is wrong.
	ErrInvalidArgument Kind = 1
	// ErrInvalidConfig: the configuration is wrong; the message names the key.
	ErrInvalidConfig Kind = 2
	// ErrUnknownID: no client with this id is open.
	ErrUnknownID Kind = 3
	// ErrAlreadyOpen: a client with this id is open already.
	ErrAlreadyOpen Kind = 4
	// ErrInUse: the client is held by another one.
	ErrInUse Kind = 5
	// ErrClosed: the client was closed.
	ErrClosed Kind = 6
	// ErrAuthentication: the other side refused the credentials.
	ErrAuthentication Kind = 7
	// ErrPermission: the credentials do not allow this.
	ErrPermission Kind = 8
	// ErrNotFound: the queue, topic or message does not exist on the other side.
	ErrNotFound Kind = 9
	// ErrUnsupported: the provider cannot honour this; nothing was dropped in silence.
	ErrUnsupported Kind = 10
	// ErrTooLarge: the message is over a limit of size.
	ErrTooLarge Kind = 11
	// ErrTimeout: the deadline passed.
	ErrTimeout Kind = 12
	// ErrCancelled: the caller cancelled.
	ErrCancelled Kind = 13
	// ErrUnavailable: the other side cannot be reached or does not answer.
	ErrUnavailable Kind = 14
	// ErrThrottled: the other side asked for fewer calls.
	ErrThrottled Kind = 15
	// ErrLimited: a rate limit of the configuration was met.
	ErrLimited Kind = 16
	// ErrPartial: some recipients failed; the others were sent.
	ErrPartial Kind = 17
	// ErrAllFailed: every member of a failover failed.
	ErrAllFailed Kind = 18
	// ErrCircuitOpen: the circuit breaker is open.
	ErrCircuitOpen Kind = 19
	// ErrQueueFull: a bounded queue is full, or stayed full until the deadline.
	ErrQueueFull Kind = 20
	// ErrStorage: the local store failed.
	ErrStorage Kind = 21
	// ErrProtocol: the other side broke the protocol.
	ErrProtocol Kind = 22
	// ErrWouldDeadlock: a blocking call was made on a thread of the library's runtime.
	ErrWouldDeadlock Kind = 23
	// ErrForked: the client belongs to the process that this one was forked from.
	ErrForked Kind = 24
	// ErrInternal: a fault of the library.
	ErrInternal Kind = 25
)

// Kinds lists every kind in the order of its number.
func Kinds() []Kind {
	kinds := make([]Kind, 0, ErrInternal)
	for kind := ErrInvalidArgument; kind <= ErrInternal; kind++ {
		kinds = append(kinds, kind)
	}
	return kinds
}

// String returns the name, such as "unknown_id".
func (k Kind) String() string { return kindName(k) }

// Error makes a Kind a target for errors.Is; it returns the name too.
func (k Kind) Error() string { return k.String() }

// Outcome says whether the message of a failed send may have reached the other side.
type Outcome int32

const (
	// NotSent: it did not.
	NotSent Outcome = 0
	// Unknown: it may have; it was written, and no answer came.
	Unknown Outcome = 1
)

// String returns "not_sent" or "unknown".
func (o Outcome) String() string {
	if o == NotSent {
		return "not_sent"
	}
	return "unknown"
}
