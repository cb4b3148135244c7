package topic

import (
	"bytes"
	"crypto/md5"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ceiba"
	"ceiba/mns/config"
)

// service answers as MNS does where a topic takes messages.
type service struct {
	*httptest.Server
	down atomic.Bool
	// hold, where it is set, is what an answer waits for.
	hold atomic.Pointer[chan struct{}]

	mu     sync.Mutex
	bodies []string
	tries  map[string]int
	keys   []string
}

func startService(t *testing.T) *service {
	t.Helper()
	s := &service{tries: map[string]int{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, _ := io.ReadAll(r.Body)
	var message struct {
		MessageBody string `xml:"MessageBody"`
	}
	err := xml.Unmarshal(text, &message)
	s.mu.Lock()
	s.tries[message.MessageBody]++
	number := len(s.bodies) + 1
	s.keys = append(s.keys, r.Header.Get("Authorization"))
	s.mu.Unlock()
	if hold := s.hold.Load(); hold != nil {
		<-*hold
	}
	w.Header().Set("Content-Type", "text/xml")
	w.Header().Set("x-mns-request-id", "1")
	w.Header().Set("x-mns-version", "2015-06-06")
	var answer bytes.Buffer
	status := http.StatusCreated
	switch {
	case err != nil || r.Method != http.MethodPost:
		status = http.StatusBadRequest
		answer.WriteString(`<Error xmlns="http://mns.aliyuncs.com/doc/v1/"><Code>MalformedXML</Code><Message>no</Message></Error>`)
	case s.down.Load():
		status = http.StatusForbidden
		answer.WriteString(`<Error xmlns="http://mns.aliyuncs.com/doc/v1/"><Code>AccessDenied</Code><Message>not now</Message></Error>`)
	default:
		s.mu.Lock()
		s.bodies = append(s.bodies, message.MessageBody)
		s.mu.Unlock()
		fmt.Fprintf(&answer, `<Message xmlns="http://mns.aliyuncs.com/doc/v1/"><MessageId>%032d</MessageId><MessageBodyMD5>%X</MessageBodyMD5></Message>`,
			number, md5.Sum([]byte(message.MessageBody)))
	}
	w.WriteHeader(status)
	w.Write(answer.Bytes())
}

func (s *service) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.bodies...)
}

func (s *service) triesOf(body string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tries[body]
}

// key is the login of a request, by its number.
func (s *service) key(number int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[number]
}

var names atomic.Int64

func (s *service) config(t *testing.T) *config.MNSConfig {
	return &config.MNSConfig{
		Endpoint: s.URL + "/", AccessKeyId: "id", AccessKeySecret: "secret",
		TopicName: fmt.Sprint("MyTopic-", names.Add(1)), Store: "sqlite:" + filepath.Join(t.TempDir(), "mns.db"),
	}
}

func rows(t *testing.T, c *config.MNSConfig) []ceiba.Row {
	t.Helper()
	var rows []ceiba.Row
	for row, err := range ceiba.OpenOutbox(c.Store).Rows(t.Context(), ceiba.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	return rows
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("in 15 s never: ", what)
		}
	}
}

func deadAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func TestMain(m *testing.M) {
	if os.Getenv("CEIBA_TEST_RETRY") != "" {
		os.Exit(retryOnce())
	}
	os.Exit(m.Run())
}
