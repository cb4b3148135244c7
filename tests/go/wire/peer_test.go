package wire

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/websocket"

	"ceiba.test/wire/plain"
)

// peer is one connection of a vector. Its reader runs from the start, so pings are answered and closes noticed.
type peer struct {
	conn   *websocket.Conn
	reply  *http.Response
	frames chan frame
	pongs  chan string
	quit   chan struct{}
	// Set before frames is closed: how the connection ended.
	end error
}

var errEnded = errors.New("the connection has ended")

type frame struct {
	kind int
	text string
}

func dial(addr, path string, headers map[string]string) (*peer, *http.Response, error) {
	header := http.Header{}
	dialer := websocket.Dialer{HandshakeTimeout: 10 * time.Second}
	for key, value := range headers {
		if http.CanonicalHeaderKey(key) == "Sec-Websocket-Extensions" {
			// The library writes this header itself.
			dialer.EnableCompression = true
			continue
		}
		header.Set(key, value)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, reply, err := dialer.DialContext(ctx, "ws://"+addr+path, header)
	if err != nil {
		return nil, reply, err
	}
	p := &peer{conn: conn, reply: reply, frames: make(chan frame, 4096), pongs: make(chan string, 64), quit: make(chan struct{})}
	conn.SetPongHandler(func(data string) error {
		select {
		case p.pongs <- data:
		default:
		}
		return nil
	})
	go p.read()
	return p, reply, nil
}

func (p *peer) read() {
	defer close(p.frames)
	for {
		kind, text, err := p.conn.ReadMessage()
		if err != nil {
			p.end = err
			return
		}
		select {
		case p.frames <- frame{kind, string(text)}:
		case <-p.quit:
			p.end = errors.New("left unread")
			return
		}
	}
}

func (p *peer) next(within time.Duration) (frame, error) {
	select {
	case f, open := <-p.frames:
		if !open {
			return frame{}, fmt.Errorf("%w: %v", errEnded, p.end)
		}
		return f, nil
	case <-time.After(within):
		return frame{}, fmt.Errorf("nothing came within %v", within)
	}
}

// login does what every client does first.
func (p *peer) login(secret string) error {
	for _, want := range []string{plain.Prompt, plain.Succeeded} {
		f, err := p.next(10 * time.Second)
		if err != nil {
			return fmt.Errorf("login: %w", err)
		}
		if f.kind != websocket.TextMessage || f.text != want {
			return fmt.Errorf("login: got frame %d %q, want text %q", f.kind, short(f.text), want)
		}
		if want == plain.Prompt {
			if err := p.conn.WriteMessage(websocket.TextMessage, []byte(secret)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *peer) ping(data string) error {
	if err := p.conn.WriteControl(websocket.PingMessage, []byte(data), time.Now().Add(5*time.Second)); err != nil {
		return err
	}
	select {
	case got := <-p.pongs:
		if got != data {
			return fmt.Errorf("pong %q to ping %q", got, data)
		}
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("the ping was not answered")
	}
}

// closed waits for the end and checks its manner: "drop" is no close frame, "any" is any,
// a number is that status in a close frame.
func (p *peer) closed(how string, within time.Duration) error {
	deadline := time.After(within)
	select {
	case f, open := <-p.frames:
		if open {
			return fmt.Errorf("got frame %d %q, want the end of the connection", f.kind, short(f.text))
		}
	case <-deadline:
		return fmt.Errorf("the connection is still open after %v", within)
	}
	status := websocket.CloseAbnormalClosure
	var closing *websocket.CloseError
	if errors.As(p.end, &closing) {
		status = closing.Code
	}
	got := fmt.Sprint(status)
	if status == websocket.CloseAbnormalClosure {
		got = "drop"
	}
	if how != "any" && got != how {
		return fmt.Errorf("the connection ended with %s (%v), want %s", got, p.end, how)
	}
	return nil
}

// fragments writes one message in the given pieces. The library decides for itself where to cut,
// so these frames are made by hand.
func (p *peer) fragments(opcode byte, pieces []string) error {
	for i, piece := range pieces {
		first := byte(0)
		if i == 0 {
			first = opcode
		}
		if i == len(pieces)-1 {
			first |= 0x80
		}
		head := []byte{first}
		switch n := len(piece); {
		case n < 126:
			head = append(head, 0x80|byte(n))
		case n < 1<<16:
			head = binary.BigEndian.AppendUint16(append(head, 0x80|126), uint16(n))
		default:
			head = binary.BigEndian.AppendUint64(append(head, 0x80|127), uint64(n))
		}
		mask := make([]byte, 4)
		if _, err := rand.Read(mask); err != nil {
			return err
		}
		out := append(head, mask...)
		for j := range len(piece) {
			out = append(out, piece[j]^mask[j%4])
		}
		if _, err := p.conn.NetConn().Write(out); err != nil {
			return err
		}
	}
	return nil
}

// leave says goodbye and waits until the server has hung up or two seconds have passed.
func (p *peer) leave() {
	goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = p.conn.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(time.Second))
	late := time.After(2 * time.Second)
	for open := true; open; {
		select {
		case _, open = <-p.frames:
		case <-late:
			open = false
		}
	}
	close(p.quit)
	p.conn.Close()
}
