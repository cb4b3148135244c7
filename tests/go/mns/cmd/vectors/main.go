// Records what the official SDK sends for a table of calls, into tests/vectors/mns.json.
package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	ali_mns "github.com/aliyun/aliyun-mns-go-sdk"
	"github.com/valyala/fasthttp"
)

type request struct {
	Method  string            `json:"method"`
	Target  string            `json:"target"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

type vector struct {
	Name          string  `json:"name"`
	KeyID         string  `json:"key_id"`
	KeySecret     string  `json:"key_secret"`
	SecurityToken string  `json:"security_token,omitempty"`
	Request       request `json:"request"`
}

// to leads what is sent to a host of the service to the recorder: the SDK takes no address of this machine.
type to struct{ client *fasthttp.HostClient }

func (t to) RoundTrip(_ *fasthttp.HostClient, req *fasthttp.Request, resp *fasthttp.Response) (bool, error) {
	return false, t.client.Do(req, resp)
}

type recorder struct{ seen []request }

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		log.Fatal(err)
	}
	headers := map[string]string{}
	for name, values := range req.Header {
		name = strings.ToLower(name)
		if name != "user-agent" && name != "content-length" {
			headers[name] = strings.Join(values, ",")
		}
	}
	r.seen = append(r.seen, request{req.Method, req.RequestURI, headers, string(body)})
	w.WriteHeader(http.StatusCreated)
}

const (
	keyID     = "key-id"
	keySecret = "key-secret"
	odd       = "a<b>&\"c'\t\r\n  d \u4f60\u597d \U0001f600 ]]>"
	handle    = "8-0zSyJ3g+x/==~.-_ 1"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: vectors FILE")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	seen := &recorder{}
	go func() { log.Fatal(http.Serve(listener, seen)) }()
	forward := to{&fasthttp.HostClient{Addr: listener.Addr().String()}}

	client := func(secret, token string) ali_mns.MNSClient {
		client := ali_mns.NewAliMNSClientWithToken("http://1234.mns.cn-test.aliyuncs.com", keyID, secret, token)
		client.SetTransport(forward)
		return client
	}
	plain := client(keySecret, "")
	queue := ali_mns.NewMNSQueue("orders-1", plain)
	topic := ali_mns.NewMNSTopic("news_2", plain)
	queues := ali_mns.NewMNSQueueManager(plain)
	topics := ali_mns.NewMNSTopicManager(plain)
	sts := ali_mns.NewMNSQueue("orders-1", client("a secret/with+signs=", "token/with+signs=="))
	received := make(chan ali_mns.MessageReceiveResponse, 1)
	batch := make(chan ali_mns.BatchMessageReceiveResponse, 1)
	failed := make(chan error, 1)
	// What the answers are read as does not matter: only the requests are kept.
	drop := func(ignored ...any) { _ = ignored }
	ended := func() {
		select {
		case <-received:
		case <-batch:
		case <-failed:
		}
	}

	calls := []struct {
		name string
		call func()
	}{
		{"send", func() {
			drop(queue.SendMessage(ali_mns.MessageSendRequest{MessageBody: "hello", DelaySeconds: 0, Priority: 8}))
		}},
		{"send what XML has to escape", func() {
			drop(queue.SendMessage(ali_mns.MessageSendRequest{MessageBody: odd, DelaySeconds: 604800, Priority: 16}))
		}},
		{"send with a token", func() {
			drop(sts.SendMessage(ali_mns.MessageSendRequest{MessageBody: "hello", DelaySeconds: 1, Priority: 1}))
		}},
		{"send batch", func() {
			drop(queue.BatchSendMessage(
				ali_mns.MessageSendRequest{MessageBody: "one", Priority: 1},
				ali_mns.MessageSendRequest{MessageBody: "", DelaySeconds: 2, Priority: 2}))
		}},
		{"receive", func() { queue.ReceiveMessage(received, failed); ended() }},
		{"receive and wait", func() { queue.ReceiveMessage(received, failed, 30); ended() }},
		{"receive batch", func() { queue.BatchReceiveMessage(batch, failed, 16, 10); ended() }},
		{"peek", func() { queue.PeekMessage(received, failed); ended() }},
		{"peek batch", func() { queue.BatchPeekMessage(batch, failed, 3); ended() }},
		{"delete", func() { drop(queue.DeleteMessage("1-ODU4OTkzNDU5My0xNDMyNzI3ODI3LTItOA==")) }},
		{"delete what a query has to escape", func() { drop(queue.DeleteMessage(strings.ReplaceAll(handle, " ", ""))) }},
		{"delete batch", func() { drop(queue.BatchDeleteMessage("a==", handle)) }},
		{"change visibility", func() { drop(queue.ChangeMessageVisibility("a==", 43200)) }},
		{"create queue", func() { drop(queues.CreateQueue("q", 1, 1024, 60, 30, 0, 2)) }},
		{"set queue", func() { drop(queues.SetQueueAttributes("q", 0, 65536, 345600, 43200, 30, 2)) }},
		{"get queue", func() { drop(queues.GetQueueAttributes("q")) }},
		{"delete queue", func() { drop(queues.DeleteQueue("q")) }},
		{"list queues", func() { drop(queues.ListQueue("", 0, "")) }},
		{"list queues in part", func() { drop(queues.ListQueueDetail("mark/er=", 1000, "pre")) }},
		{"publish", func() { drop(topic.PublishMessage(ali_mns.MessagePublishRequest{MessageBody: odd, MessageTag: "t&g"})) }},
		{"publish by mail", func() {
			drop(topic.PublishMessage(ali_mns.MessagePublishRequest{MessageBody: "hello", MessageAttributes: &ali_mns.MessageAttributes{
				MailAttributes: &ali_mns.MailAttributes{Subject: "s \"1\"", AccountName: "a@b.example", IsHtml: true}}}))
		}},
		{"create topic", func() { drop(topics.CreateTopic("t", 1024, true)) }},
		{"set topic", func() { drop(topics.SetTopicAttributes("t", 65536, false)) }},
		{"get topic", func() { drop(topics.GetTopicAttributes("t")) }},
		{"delete topic", func() { drop(topics.DeleteTopic("t")) }},
		{"list topics", func() { drop(topics.ListTopicDetail("m", 7, "")) }},
		{"subscribe", func() {
			drop(topic.Subscribe("s-1", ali_mns.MessageSubsribeRequest{Endpoint: "http://127.0.0.1:1/x?a=1&b=2", FilterTag: "t",
				NotifyStrategy: ali_mns.EXPONENTIAL_DECAY_RETRY, NotifyContentFormat: ali_mns.SIMPLIFIED}))
		}},
		{"set subscription", func() { drop(topic.SetSubscriptionAttributes("s-1", ali_mns.BACKOFF_RETRY)) }},
		{"get subscription", func() { drop(topic.GetSubscriptionAttributes("s-1")) }},
		{"unsubscribe", func() { drop(topic.Unsubscribe("s-1")) }},
		{"list subscriptions", func() { drop(topic.ListSubscriptionByTopic("", 2, "s")) }},
		{"open service", func() { drop(ali_mns.NewAccountManager(plain).OpenService()) }},
	}

	var vectors []vector
	for _, call := range calls {
		seen.seen = nil
		call.call()
		if len(seen.seen) != 1 {
			log.Fatalf("%s: %d requests", call.name, len(seen.seen))
		}
		made := vector{Name: call.name, KeyID: keyID, KeySecret: keySecret, Request: seen.seen[0]}
		if token := made.Request.Headers["security-token"]; token != "" {
			made.KeySecret, made.SecurityToken = "a secret/with+signs=", token
		}
		vectors = append(vectors, made)
		time.Sleep(40 * time.Millisecond)
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(map[string]any{"sdk": "aliyun-mns-go-sdk v1.0.11", "cases": vectors}); err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(os.Args[1], text.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
}
