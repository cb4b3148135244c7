// Package plain is a plain client of the KapokMQ wire: WebSocket frames and HTTP forms, and nothing of ceiba.
// It stands for the clients that other people have written, in tests and as the other side of comparisons.
package plain

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/websocket"
)

// The three texts of the login.
const (
	Prompt    = "Please enter the secret key"
	Succeeded = "Secret key matching succeeded"
	Refused   = "Secret key matching error"
)

// ErrSecret says that the server refused the secret key.
var ErrSecret = errors.New("plain: the server refused the secret key")

// loginWait bounds the handshake and the login together when the context has no earlier deadline.
const loginWait = 10 * time.Second

// Options says where to connect and as whom.
type Options struct {
	Addr   string // host:port
	Secret string
	Topic  string // percent-encoded by the client
	ID     string // percent-encoded by the client
}

func (o Options) url(role string) string {
	return fmt.Sprintf("ws://%s/%s/Conn/%s/%s", o.Addr, role, url.PathEscape(o.Topic), url.PathEscape(o.ID))
}

// Dial makes the WebSocket connection to a full ws:// address, without the login.
// The response is there on a refused handshake too, with the first bytes of its body.
func Dial(ctx context.Context, address string, header http.Header) (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, loginWait)
	defer cancel()
	dialer := websocket.Dialer{HandshakeTimeout: loginWait}
	return dialer.DialContext(ctx, address, header)
}

// Login answers the prompt and waits for the verdict. The connection stays open after ErrSecret.
func Login(conn *websocket.Conn, secret string) error {
	if err := conn.SetReadDeadline(time.Now().Add(loginWait)); err != nil {
		return err
	}
	if err := expect(conn, Prompt); err != nil {
		return err
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte(secret)); err != nil {
		return err
	}
	if err := expect(conn, Succeeded); err != nil {
		return err
	}
	return conn.SetReadDeadline(time.Time{})
}

func expect(conn *websocket.Conn, want string) error {
	kind, text, err := conn.ReadMessage()
	switch {
	case err != nil:
		return err
	case kind != websocket.TextMessage:
		return fmt.Errorf("plain: login: a frame of kind %d in place of text", kind)
	case string(text) == Refused:
		return ErrSecret
	case string(text) != want:
		return fmt.Errorf("plain: login: got %q, want %q", text, want)
	}
	return nil
}

func open(ctx context.Context, o Options, role string) (*websocket.Conn, error) {
	conn, _, err := Dial(ctx, o.url(role), nil)
	if err != nil {
		return nil, err
	}
	if err := Login(conn, o.Secret); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// closeWell says goodbye with a close frame and gives the server a moment to answer, so that
// nothing written before is thrown away by a reset. Only for connections that nobody else reads.
func closeWell(conn *websocket.Conn) error {
	goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	err := conn.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(time.Second))
	if err == nil {
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		for {
			if _, _, err := conn.NextReader(); err != nil {
				break
			}
		}
	}
	return conn.Close()
}
