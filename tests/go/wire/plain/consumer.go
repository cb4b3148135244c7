package plain

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gorilla/websocket"
)

// Delivery is one pushed message.
type Delivery struct {
	MessageCode  string
	MessageData  string
	Topic        string
	CreateTime   int64
	ConsumedTime int64
	DelayTime    int64
	Status       int
}

// Consumer is one consumer connection after its login. One goroutine may receive while one other acks.
type Consumer struct {
	conn *websocket.Conn
}

// OpenConsumer connects and logs in. Nothing is read from the connection before the first Receive.
func OpenConsumer(ctx context.Context, o Options) (*Consumer, error) {
	conn, err := open(ctx, o, "Consumers")
	if err != nil {
		return nil, err
	}
	return &Consumer{conn: conn}, nil
}

// Receive waits for the next push, without end unless SetDeadline was called.
func (c *Consumer) Receive() (Delivery, error) {
	var d Delivery
	_, text, err := c.conn.ReadMessage()
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return d, fmt.Errorf("plain: a push that is not a message: %w", err)
	}
	return d, nil
}

// SetDeadline bounds all later receives. A missed deadline ends the connection.
func (c *Consumer) SetDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// Ack confirms one message by its code. It returns when the frame is written: the server does not answer.
func (c *Consumer) Ack(code string) error {
	return c.conn.WriteMessage(websocket.TextMessage, []byte(code))
}

// Close says goodbye, so that every ack written before is taken; no other call may be running.
func (c *Consumer) Close() error { return closeWell(c.conn) }

// Drop cuts the connection without a word, as a crash would. Any goroutine may call it.
func (c *Consumer) Drop() error { return c.conn.NetConn().Close() }
