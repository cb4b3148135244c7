package ceiba

// This file and the shim alone touch C. Go memory is lent for the time of a call only; what the library
// keeps are numbers.

/*
#cgo CFLAGS: -I${SRCDIR}/../../include
#cgo LDFLAGS: -L${SRCDIR}/../../target/ceiba/lib -lceiba -Wl,-rpath,${SRCDIR}/../../target/ceiba/lib
#cgo noescape shim_producer_submit
#cgo nocallback shim_producer_submit
#cgo noescape shim_producer_submit_within
#cgo nocallback shim_producer_submit_within
#cgo noescape shim_producer_submit_message
#cgo nocallback shim_producer_submit_message
#cgo noescape shim_producer_cancel
#cgo nocallback shim_producer_cancel
#cgo noescape shim_queue_poll
#cgo nocallback shim_queue_poll
#cgo noescape shim_consumer_receive
#cgo nocallback shim_consumer_receive
#cgo noescape shim_consumer_ack
#cgo nocallback shim_consumer_ack
#cgo noescape shim_consumer_nack
#cgo nocallback shim_consumer_nack
#include "shim.h"
*/
import "C"

import (
	"runtime/cgo"
	"strings"
	"time"
	"unsafe"
)

const abiVersion = C.CEIBA_ABI_VERSION

func cABIVersion() int { return int(C.ceiba_abi_version()) }

func cVersion() string { return C.GoString(C.ceiba_version()) }

func kindName(kind Kind) string { return text(C.ceiba_error_name(C.int32_t(kind))) }

func chars(s string) (*C.char, C.size_t) {
	return (*C.char)(unsafe.Pointer(unsafe.StringData(s))), C.size_t(len(s))
}

func octets(b []byte) (*C.uint8_t, C.size_t) {
	return (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(b))), C.size_t(len(b))
}

// view is the slice without a copy.
func view(s C.ceiba_slice) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(s.data)), int(s.len)) }

func text(s C.ceiba_slice) string { return string(view(s)) }

// taken copies an error and frees it; nil for NULL.
func taken(e *C.ceiba_error) *Error {
	if e == nil {
		return nil
	}
	err := copied(e)
	C.ceiba_error_free(e)
	return err
}

func copied(e *C.ceiba_error) *Error {
	f := C.shim_error_view(e)
	err := &Error{
		Kind:      Kind(f.code),
		Outcome:   Outcome(f.outcome),
		Retryable: bool(f.retryable),
		Provider:  text(f.provider),
		Attempts:  int(f.attempts),
		Message:   text(f.message),
	}
	if f.retry_after_ms > 0 {
		err.RetryAfter = time.Duration(f.retry_after_ms) * time.Millisecond
	}
	if f.parts > 0 {
		err.Parts = partsOf(C.ceiba_error_json(e))
	}
	return err
}

func takenText(t C.shim_text) (string, *Error) {
	if t.error != nil {
		return "", taken(t.error)
	}
	defer C.ceiba_string_free(t.text)
	return text(C.ceiba_string_value(t.text)), nil
}

// cQueue is a completion queue with the memory that polls fill. One goroutine polls.
type cQueue struct{ queue *C.shim_queue }

func newQueue(capacity, batch int) (cQueue, *Error) {
	made := C.shim_queue_new(C.size_t(capacity), C.size_t(batch))
	if made.error != nil {
		return cQueue{}, taken(made.error)
	}
	if made.queue == nil {
		return cQueue{}, errorf(ErrInternal, "no memory for a completion queue")
	}
	return cQueue{made.queue}, nil
}

func (q cQueue) free()       { C.shim_queue_free(q.queue) }
func (q cQueue) fd() int     { return int(C.ceiba_queue_fd(q.queue.queue)) }
func (q cQueue) length() int { return int(C.ceiba_queue_length(q.queue.queue)) }
func (q cQueue) poll() int   { return int(C.shim_queue_poll(q.queue)) }

func (q cQueue) done(i int) *C.shim_done {
	return (*C.shim_done)(unsafe.Add(unsafe.Pointer(q.queue.done), uintptr(i)*unsafe.Sizeof(C.shim_done{})))
}

// token and result are of a completion of the last poll.
func (q cQueue) token(i int) uint64 { return uint64(q.done(i).token) }

func (q cQueue) result(i int, w *waiter, names *string) {
	done := q.done(i)
	if done.error != nil {
		w.err = copied(done.error)
		return
	}
	receiptOf(done, &w.receipt, names)
	if done.parts > 0 {
		parts := partsOf(C.ceiba_receipt_json(done.receipt))
		w.parts = &parts
	}
	if done.code.len > 0 {
		code := text(done.code)
		w.code = &code
	}
}

// receiptOf fills a receipt. names holds the provider last seen: mostly it is the same again.
func receiptOf(done *C.shim_done, receipt *plainReceipt, names *string) {
	if provider := view(done.provider); string(provider) != *names {
		*names = string(provider)
	}
	receipt.provider = *names
	receipt.attempts = int(done.attempts)
	receipt.stored = bool(done.stored)
	if done.message_id.len > 0 {
		receipt.messageID = text(done.message_id)
	}
	if done.warning.len > 0 {
		receipt.warning = text(done.warning)
	}
}

func partsOf(whole *C.ceiba_string) []Part {
	defer C.ceiba_string_free(whole)
	return readParts(text(C.ceiba_string_value(whole)))
}

func cProducerOpen(id, config string, queue cQueue) *Error {
	i, n := chars(id)
	c, m := chars(config)
	return taken(C.shim_producer_open(i, n, c, m, queue.queue))
}

func cSubmit(id string, body []byte, seconds int64, token uint64) *Error {
	i, n := chars(id)
	b, m := octets(body)
	if e := C.shim_producer_submit(i, n, b, m, C.int64_t(seconds), C.uint64_t(token)); e != nil {
		return taken(e)
	}
	return nil
}

func cSubmitWithin(id string, body []byte, delay, timeout int64, token uint64) *Error {
	i, n := chars(id)
	b, m := octets(body)
	return taken(C.shim_producer_submit_within(i, n, b, m, C.int64_t(delay), C.int64_t(timeout), C.uint64_t(token)))
}

func cSubmitMessage(id string, message *Message, args []byte, timeout int64, token uint64) *Error {
	m := C.ceiba_message_new()
	defer C.ceiba_message_free(m)
	if err := fill(m, message, args); err != nil {
		return err
	}
	i, n := chars(id)
	return taken(C.shim_producer_submit_message(i, n, m, C.int64_t(timeout), C.uint64_t(token)))
}

func fill(m *C.ceiba_message, message *Message, args []byte) *Error {
	b, n := octets(message.Body)
	if err := taken(C.shim_message_body(m, b, n, C.int64_t(milliseconds(message.Delay)))); err != nil {
		return err
	}
	set := func(field C.int, value string) *Error {
		if value == "" {
			return nil
		}
		c, n := chars(value)
		return taken(C.shim_message_field(m, field, c, n))
	}
	for _, f := range [...]struct {
		field C.int
		value string
	}{
		{C.SHIM_CONTENT_TYPE, message.ContentType}, {C.SHIM_KEY, message.Key}, {C.SHIM_TAG, message.Tag},
		{C.SHIM_TOPIC, message.Topic}, {C.SHIM_TEMPLATE, message.Template}, {C.SHIM_ARGS, string(args)},
	} {
		if err := set(f.field, f.value); err != nil {
			return err
		}
	}
	for _, recipient := range message.Recipients {
		c, n := chars(recipient)
		if err := taken(C.shim_message_field(m, C.SHIM_RECIPIENT, c, n)); err != nil {
			return err
		}
	}
	for name, value := range message.Attributes {
		c, n := chars(name)
		v, k := chars(value)
		if err := taken(C.shim_message_attribute(m, c, n, v, k)); err != nil {
			return err
		}
	}
	for _, attachment := range message.Attachments {
		c, n := chars(attachment.Name)
		t, k := chars(attachment.ContentType)
		b, l := octets(attachment.Body)
		if err := taken(C.shim_message_attachment(m, c, n, t, k, b, l)); err != nil {
			return err
		}
	}
	return nil
}

func cProducerCancel(id string, token uint64) {
	i, n := chars(id)
	C.shim_producer_cancel(i, n, C.uint64_t(token))
}

// cProducerSend blocks the thread until the send has ended.
func cProducerSend(id string, body []byte, seconds int64) (Receipt, *Error) {
	i, n := chars(id)
	b, m := octets(body)
	sent := C.shim_producer_send(i, n, b, m, C.int64_t(seconds))
	if sent.error != nil {
		return Receipt{}, taken(sent.error)
	}
	defer C.ceiba_receipt_free(sent.receipt)
	var receipt plainReceipt
	var name string
	receiptOf(&sent.done, &receipt, &name)
	whole := receipt.whole()
	if sent.done.parts > 0 {
		whole.Parts = partsOf(C.ceiba_receipt_json(sent.done.receipt))
	}
	if sent.done.code.len > 0 {
		whole.Code = text(sent.done.code)
	}
	return whole, nil
}

func cProducerFlush(id string, timeout int64) *Error {
	i, n := chars(id)
	return taken(C.shim_producer_flush(i, n, C.int64_t(timeout)))
}

func cProducerClose(id string, timeout int64) *Error {
	i, n := chars(id)
	return taken(C.shim_producer_close(i, n, C.int64_t(timeout)))
}

func cProducerStatus(id string) (string, *Error) {
	i, n := chars(id)
	return takenText(C.shim_producer_status(i, n))
}

func cProducerControl(id, command string) (string, *Error) {
	i, n := chars(id)
	c, m := chars(command)
	return takenText(C.shim_producer_control(i, n, c, m))
}

func cConsumerOpen(id, config string) *Error {
	i, n := chars(id)
	c, m := chars(config)
	return taken(C.shim_consumer_open(i, n, c, m))
}

// cConsumerReceive blocks the thread until there are deliveries, for up to timeout milliseconds.
func cConsumerReceive(id string, max int, timeout int64) ([]Delivery, *Error) {
	i, n := chars(id)
	received := C.shim_consumer_receive(i, n, C.size_t(max), C.int64_t(timeout))
	if received.error != nil {
		return nil, taken(received.error)
	}
	defer C.shim_received_free(received.deliveries, received.items)
	if received.items == nil {
		if C.ceiba_deliveries_count(received.deliveries) > 0 {
			return nil, errorf(ErrInternal, "no memory for the deliveries: they come again")
		}
		return nil, nil
	}
	deliveries := make([]Delivery, int(received.count))
	topic := ""
	for at, item := range unsafe.Slice(received.items, int(received.count)) {
		if string(view(item.topic)) != topic {
			topic = text(item.topic)
		}
		d := &deliveries[at]
		d.Body = append([]byte{}, view(item.body)...)
		d.Code = text(item.code)
		d.Topic = topic
		d.Key = text(item.key)
		d.Tag = text(item.tag)
		d.ContentType = text(item.content_type)
		d.Attempt = int(item.attempt)
		if item.created_ms >= 0 {
			d.Created = time.UnixMilli(int64(item.created_ms))
		}
		if item.attributes > 0 {
			d.Attributes = attributes(received.deliveries, C.size_t(at), item.attributes)
		}
	}
	return deliveries, nil
}

func attributes(deliveries *C.ceiba_deliveries, at, count C.size_t) map[string]string {
	found := make(map[string]string, int(count))
	for i := range count {
		name := C.ceiba_deliveries_attribute_name(deliveries, at, i)
		var value C.ceiba_slice
		if C.ceiba_deliveries_get_attribute(deliveries, at, (*C.char)(unsafe.Pointer(name.data)), name.len, &value) {
			found[text(name)] = text(value)
		}
	}
	return found
}

func cConsumerAck(id, code string) *Error {
	i, n := chars(id)
	c, m := chars(code)
	return taken(C.shim_consumer_ack(i, n, c, m))
}

func cConsumerNack(id, code string, delay int64) *Error {
	i, n := chars(id)
	c, m := chars(code)
	return taken(C.shim_consumer_nack(i, n, c, m, C.int64_t(delay)))
}

// cConsumerSettle acknowledges codes or gives them back: an error for each, nil where it worked.
func cConsumerSettle(id string, codes []string, ack bool, delay int64) ([]*Error, *Error) {
	if len(codes) == 0 {
		return nil, nil
	}
	ends := make([]C.size_t, len(codes))
	end := 0
	for i, code := range codes {
		end += len(code)
		ends[i] = C.size_t(end)
	}
	i, n := chars(id)
	c, _ := chars(strings.Join(codes, ""))
	settled := C.shim_consumer_settle(i, n, c, &ends[0], C.size_t(len(codes)), C.bool(ack), C.int64_t(delay))
	if settled.error != nil {
		return nil, taken(settled.error)
	}
	if settled.results == nil {
		return nil, errorf(ErrInternal, "no memory for the codes")
	}
	defer C.ceiba_results_free(settled.results)
	errs := make([]*Error, len(codes))
	for at := range codes {
		if e := C.ceiba_results_error(settled.results, C.size_t(at)); e != nil {
			errs[at] = copied(e)
		}
	}
	return errs, nil
}

func cConsumerClose(id string, timeout int64) *Error {
	i, n := chars(id)
	return taken(C.shim_consumer_close(i, n, C.int64_t(timeout)))
}

func cConsumerStatus(id string) (string, *Error) {
	i, n := chars(id)
	return takenText(C.shim_consumer_status(i, n))
}

func cOpenFile(path string, queue cQueue) (string, *Error) {
	p, n := chars(path)
	return takenText(C.shim_open_file(p, n, queue.queue))
}

func cSetWorkers(workers uint32) *Error { return taken(C.shim_set_workers(C.uint32_t(workers))) }

func cShutdown(timeout int64) (string, *Error) {
	return takenText(C.shim_shutdown(C.int64_t(timeout)))
}

func cMetrics() string {
	t := C.ceiba_metrics()
	defer C.ceiba_string_free(t)
	return text(C.ceiba_string_value(t))
}

// cBroker is a running broker.
type cBroker struct{ broker *C.ceiba_broker }

func cBrokerStart(config string) (cBroker, string, *Error) {
	c, n := chars(config)
	started := C.shim_broker_start(c, n)
	if started.error != nil {
		return cBroker{}, "", taken(started.error)
	}
	return cBroker{started.broker}, text(started.address), nil
}

func (b cBroker) status() (string, *Error) { return takenText(C.shim_broker_status(b.broker)) }

func (b cBroker) stop(timeout int64) *Error {
	defer C.ceiba_broker_free(b.broker)
	return taken(C.shim_broker_stop(b.broker, C.int64_t(timeout)))
}

// logLine is called by the library with each line of its log.
type logLine func(level int, target, message string)

func cLogSet(line logLine, maxLevel int) *Error {
	var handle cgo.Handle
	if line != nil {
		handle = cgo.NewHandle(line)
	}
	// The release comes also when the call fails.
	return taken(C.shim_log_set(C.uintptr_t(handle), C.int32_t(maxLevel)))
}

//export ceibaGoLog
func ceibaGoLog(handle C.uintptr_t, level C.int32_t, target unsafe.Pointer, targetLen C.size_t, message unsafe.Pointer, messageLen C.size_t) {
	line := cgo.Handle(handle).Value().(logLine)
	line(int(level), string(unsafe.Slice((*byte)(target), int(targetLen))), string(unsafe.Slice((*byte)(message), int(messageLen))))
}

//export ceibaGoLogRelease
func ceibaGoLogRelease(handle C.uintptr_t) { cgo.Handle(handle).Delete() }

// hostCall is one send for a sender of this program. It is ended once, by sent or failed.
type hostCall struct{ call *C.ceiba_call }

// hostCalls gets the calls for one sender, and the numbers of those that nobody waits for any more.
type hostCalls interface {
	take(hostCall)
	abandon(number uint64)
}

func cCallbackRegister(name string, calls hostCalls) *Error {
	n, l := chars(name)
	// The release comes also when the call fails.
	return taken(C.shim_callback_register(n, l, C.uintptr_t(cgo.NewHandle(calls))))
}

func cCallbackUnregister(name string) *Error {
	n, l := chars(name)
	return taken(C.shim_callback_unregister(n, l))
}

func (c hostCall) body() []byte { return append([]byte(nil), view(C.ceiba_call_body(c.call))...) }

func (c hostCall) fields() (string, *Error) { return takenText(C.shim_call_fields(c.call)) }

func (c hostCall) attachment(i int) []byte {
	return append([]byte(nil), view(C.ceiba_call_attachment(c.call, C.size_t(i)))...)
}

func (c hostCall) number() uint64 { return uint64(C.ceiba_call_number(c.call)) }

func (c hostCall) remaining() int64 { return int64(C.ceiba_call_remaining_ms(c.call)) }

func (c hostCall) abandoned() bool { return bool(C.ceiba_call_abandoned(c.call)) }

func (c hostCall) sent(id string) {
	i, n := chars(id)
	C.ceiba_call_sent(c.call, i, n)
}

func (c hostCall) failed(e *Error) {
	wait := int64(-1)
	if e.RetryAfter > 0 {
		wait = e.RetryAfter.Milliseconds()
	}
	retryable := C.int32_t(0)
	if e.Retryable {
		retryable = 1
	}
	m, n := chars(e.Message)
	C.ceiba_call_failed(c.call, C.int32_t(e.Kind), C.int32_t(e.Outcome), retryable, C.int64_t(wait), m, n)
}

//export ceibaGoSend
func ceibaGoSend(handle C.uintptr_t, call unsafe.Pointer) {
	cgo.Handle(handle).Value().(hostCalls).take(hostCall{(*C.ceiba_call)(call)})
}

//export ceibaGoSendAbandoned
func ceibaGoSendAbandoned(handle C.uintptr_t, number C.uint64_t) {
	cgo.Handle(handle).Value().(hostCalls).abandon(uint64(number))
}

//export ceibaGoSendRelease
func ceibaGoSendRelease(handle C.uintptr_t) { cgo.Handle(handle).Delete() }
