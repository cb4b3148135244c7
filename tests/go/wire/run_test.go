package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// play runs the steps of one vector against one server.
type play struct {
	addr  string
	scope *scope
	peers map[string]*peer
}

func (r *play) run(steps []step) error {
	defer r.leave()
	for i, s := range steps {
		if err := r.do(s); err != nil {
			return fmt.Errorf("step %d, %s %s%s: %w", i+1, s.Do, s.As, s.Path, err)
		}
	}
	return nil
}

func (r *play) leave() {
	for name, p := range r.peers {
		p.leave()
		delete(r.peers, name)
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// within is how long a step waits: 10 s unless the vector says otherwise.
func (s step) within() time.Duration {
	if s.Within > 0 {
		return seconds(s.Within)
	}
	return 10 * time.Second
}

func (r *play) do(s step) error {
	switch s.Do {
	case "open", "dial":
		return r.open(s)
	case "refused":
		return r.refused(s)
	case "http":
		return r.http(s)
	case "wait":
		time.Sleep(seconds(s.For))
		return nil
	case "see_one":
		return r.seeOne(s)
	}
	p, ok := r.peers[s.As]
	if !ok {
		return fmt.Errorf("no connection %q", s.As)
	}
	switch s.Do {
	case "send":
		return r.send(p, s)
	case "ping":
		return p.ping(s.Data)
	case "see":
		f, err := p.next(s.within())
		if err != nil {
			return err
		}
		return r.frame(f, s)
	case "quiet":
		f, err := p.next(seconds(s.For))
		if err == nil {
			return fmt.Errorf("got frame %d %q, want silence", f.kind, short(f.text))
		}
		select {
		case _, open := <-p.frames:
			if !open {
				return fmt.Errorf("the connection has ended: %w", p.end)
			}
		default:
		}
		return nil
	case "closed":
		return p.closed(s.How, s.within())
	case "close":
		p.leave()
		delete(r.peers, s.As)
		return nil
	}
	return fmt.Errorf("unknown step %q", s.Do)
}

func (r *play) open(s step) error {
	path, err := r.scope.fill(s.Path)
	if err != nil {
		return err
	}
	p, _, err := dial(r.addr, path, s.Headers)
	if err != nil {
		return err
	}
	if _, taken := r.peers[s.As]; taken {
		p.leave()
		return fmt.Errorf("the name %q is taken", s.As)
	}
	r.peers[s.As] = p
	if s.Extensions != nil {
		if got := p.reply.Header.Get("Sec-Websocket-Extensions"); got != *s.Extensions {
			return fmt.Errorf("negotiated %q, want %q", got, *s.Extensions)
		}
	}
	if s.Do == "open" {
		return p.login(r.scope.secret)
	}
	return nil
}

// refused follows redirects before it looks at the status: the original answers an empty id with 301 to
// the path without its last slash, and that one is 404.
func (r *play) refused(s step) error {
	path, err := r.scope.fill(s.Path)
	if err != nil {
		return err
	}
	for range 3 {
		p, reply, err := dial(r.addr, path, s.Headers)
		if err == nil {
			p.leave()
			return fmt.Errorf("the handshake was taken, want status %d", s.Status)
		}
		if reply == nil {
			return fmt.Errorf("no answer, want status %d: %w", s.Status, err)
		}
		if onward, err := reply.Location(); err == nil && reply.StatusCode/100 == 3 {
			path = onward.RequestURI()
			continue
		}
		if reply.StatusCode != s.Status {
			return fmt.Errorf("status %d, want %d", reply.StatusCode, s.Status)
		}
		return nil
	}
	return errors.New("redirected again and again")
}

func (r *play) send(p *peer, s step) error {
	kind := websocket.TextMessage
	if s.Frame == "binary" {
		kind = websocket.BinaryMessage
	}
	if s.Fragments != nil {
		return p.fragments(byte(kind), s.Fragments)
	}
	text, err := s.payload()
	if err == nil {
		text, err = r.scope.fill(text)
	}
	if err != nil {
		return err
	}
	return p.conn.WriteMessage(kind, []byte(text))
}

func (r *play) frame(f frame, s step) error {
	if f.kind != websocket.TextMessage {
		return fmt.Errorf("got a frame of kind %d, want text", f.kind)
	}
	pattern, err := s.payload()
	if err != nil {
		return err
	}
	return r.scope.match(pattern, f.text)
}

// seeOne waits until any one of several connections gets a frame; that one has the name in "then" as well.
func (r *play) seeOne(s step) error {
	deadline := time.Now().Add(s.within())
	for time.Now().Before(deadline) {
		for _, name := range s.Of {
			p, ok := r.peers[name]
			if !ok {
				return fmt.Errorf("no connection %q", name)
			}
			select {
			case f, open := <-p.frames:
				if !open {
					return fmt.Errorf("%s has ended: %w", name, p.end)
				}
				r.rename(s.Then, p)
				return r.frame(f, s)
			default:
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("nothing came to any of %v", s.Of)
}

// rename makes a second name for a connection that keeps its first: frames can be sent under both.
func (r *play) rename(name string, p *peer) {
	r.peers[name] = &peer{conn: p.conn, frames: closedFrames, quit: make(chan struct{})}
}

// closedFrames stands in the second name: only the first one reads.
var closedFrames = func() chan frame { c := make(chan frame); close(c); return c }()

var client = http.Client{
	Timeout:       20 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// http makes the call until it matches or its retry time is over.
func (r *play) http(s step) error {
	deadline := time.Now().Add(seconds(s.Retry))
	for {
		err := r.call(s)
		if err == nil || !time.Now().Before(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (r *play) call(s step) error {
	body, kind, err := r.form(s)
	if err != nil {
		return err
	}
	path, err := r.scope.fill(s.Path)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(s.Method, "http://"+r.addr+path, body)
	if err != nil {
		return err
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	if s.Key != nil {
		key, err := r.scope.fill(*s.Key)
		if err != nil {
			return err
		}
		request.Header.Set("secretKey", key)
	}
	reply, err := client.Do(request)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	got, err := io.ReadAll(io.LimitReader(reply.Body, 16<<20))
	if err != nil {
		return err
	}
	if reply.StatusCode != s.Status {
		return fmt.Errorf("status %d, want %d: %q", reply.StatusCode, s.Status, short(string(got)))
	}
	if have := reply.Header.Get("Content-Type"); s.Type != "" && have != s.Type {
		return fmt.Errorf("content type %q, want %q", have, s.Type)
	}
	if s.Body == nil {
		return nil
	}
	return r.scope.match(*s.Body, string(got))
}

func (r *play) form(s step) (io.Reader, string, error) {
	if s.Multipart != nil {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for key, value := range s.Multipart {
			filled, err := r.scope.fill(value)
			if err != nil {
				return nil, "", err
			}
			if err := w.WriteField(key, filled); err != nil {
				return nil, "", err
			}
		}
		return &b, w.FormDataContentType(), w.Close()
	}
	if s.Form == nil {
		return nil, "", nil
	}
	form := url.Values{}
	for key, value := range s.Form {
		filled, err := r.scope.fill(value)
		if err != nil {
			return nil, "", err
		}
		form.Set(key, filled)
	}
	return strings.NewReader(form.Encode()), "application/x-www-form-urlencoded", nil
}
