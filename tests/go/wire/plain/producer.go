package plain

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// Message is what a producer writes.
type Message struct {
	MessageData string
	DelayTime   int64 // whole seconds
}

// Producer is one producer connection after its login. One goroutine may write while one other reads acks.
type Producer struct {
	conn  *websocket.Conn
	acked atomic.Int64
}

// OpenProducer connects and logs in.
func OpenProducer(ctx context.Context, o Options) (*Producer, error) {
	conn, err := open(ctx, o, "Producers")
	if err != nil {
		return nil, err
	}
	return &Producer{conn: conn}, nil
}

// Write sends one message and does not wait for its ack.
func (p *Producer) Write(data string, delay int64) error {
	return p.conn.WriteJSON(Message{MessageData: data, DelayTime: delay})
}

// ReadAck waits for the next ack, without end unless SetAckDeadline was called.
func (p *Producer) ReadAck() error {
	_, text, err := p.conn.ReadMessage()
	if err != nil {
		return err
	}
	if string(text) != "ok" {
		return fmt.Errorf("plain: got %q in place of an ack", text)
	}
	p.acked.Add(1)
	return nil
}

// Acked counts the acks read so far. Any goroutine may ask.
func (p *Producer) Acked() int64 { return p.acked.Load() }

// SetWriteDeadline bounds all later writes. A missed deadline ends the connection.
func (p *Producer) SetWriteDeadline(t time.Time) error { return p.conn.SetWriteDeadline(t) }

// SetAckDeadline bounds all later reads of acks. A missed deadline ends the connection.
func (p *Producer) SetAckDeadline(t time.Time) error { return p.conn.SetReadDeadline(t) }

// Send writes one message and waits for its ack.
func (p *Producer) Send(data string, delay int64) error {
	if err := p.Write(data, delay); err != nil {
		return err
	}
	return p.ReadAck()
}

// ReadAcks reads acks in the background, since a server whose acks are not read stops reading.
// It ends with the ack that makes total; total may stay 0 (not known yet) until just before the last write.
func (p *Producer) ReadAcks(total *atomic.Int64) <-chan AckResult {
	done := make(chan AckResult, 1)
	go func() {
		var r AckResult
		for {
			if r.Err = p.ReadAck(); r.Err != nil {
				break
			}
			r.Acked++
			if want := total.Load(); want > 0 && r.Acked >= want {
				r.Last = time.Now()
				break
			}
		}
		done <- r
	}()
	return done
}

// AckResult is what ReadAcks saw.
type AckResult struct {
	Acked int64
	Last  time.Time // when the last one came
	Err   error
}

// SendAll writes every message with at most window of them unacked, and returns when all are acked.
func (p *Producer) SendAll(window int, bodies []string) error {
	slots := make(chan struct{}, window)
	ended := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for range bodies {
			if err := p.ReadAck(); err != nil {
				close(stop)
				ended <- err
				return
			}
			<-slots
		}
		ended <- nil
	}()
	for _, body := range bodies {
		select {
		case slots <- struct{}{}:
		case <-stop:
			return <-ended
		}
		if err := p.Write(body, 0); err != nil {
			p.conn.Close() // ends the reader
			<-ended
			return err
		}
	}
	return <-ended
}

// Close says goodbye; no other call may be running.
func (p *Producer) Close() error { return closeWell(p.conn) }

// Drop cuts the connection without a word, as a crash would.
func (p *Producer) Drop() error { return p.conn.NetConn().Close() }
