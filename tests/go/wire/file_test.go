package wire

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ceiba.test/wire/plain"
)

// The file that a KapokMQ server ships with, with a port that is free and a folder of the test.
const kapokFile = `
server:
  addr: 127.0.0.1
  port: 0
mq:
  secretKey: from the file
  pushType: 1
  messageChanBuffer: 10000000
  pushMessagesSpeed: 1
  pushCount: 1000
  pushRetryTime: 300
  persistentFile: %s
  isPersistent: 2
  recoveryStrategy: 1
  persistentTime: 5
  isCleanConsumed: 0
  isRePush: 1
  isClean: 1
  checkSpeed: 5
  cleanTime: 172800
cluster:
  isCluster: 0
  gossipPort: 8021
  registryAddr: 127.0.0.1
  registryGossipPort: 8041
sync:
  isSync: 0
  isSlave: 0
  masterProtocol: ws
  masterAddr: 127.0.0.1
  masterPort: 8011
`

const dpmqFile = `
server:
  port: 0
mq:
  messageChanBuffer: 100
  pushMessagesSpeed: 0
  sendRetryCount: 3
`

// runFile starts a broker from an application.yaml, and returns its address on loopback.
func runFile(t *testing.T, text string) (*broker, string) {
	t.Helper()
	if original || os.Getenv("CEIBA_TEST_BROKER") != "" {
		t.Skip("the program is not the one under test")
	}
	path := filepath.Join(t.TempDir(), "application.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := run("--config", path)
	if err != nil {
		t.Fatal(err)
	}
	return b, strings.Replace(b.addr, "0.0.0.0", "127.0.0.1", 1)
}

func TestAPlainClientWorksAgainstAKapokMQServersFile(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	text := fmt.Sprintf(kapokFile, filepath.Join(t.TempDir(), "MQDATA"))
	const count = 200
	b, addr := runFile(t, text)
	options := plain.Options{Addr: addr, Topic: "t", ID: "p", Secret: "from the file"}
	producer, err := plain.OpenProducer(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	bodies := make([]string, count)
	for i := range bodies {
		bodies[i] = fmt.Sprint(i)
	}
	if err := producer.SendAll(50, bodies); err != nil {
		t.Fatal(err)
	}
	// The file says that messages outlive the server.
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	b, addr = runFile(t, text)
	options.Addr, options.ID = addr, "c"
	consumer, err := plain.OpenConsumer(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := consumer.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for i := range count {
		delivery, err := consumer.Receive()
		if err != nil || delivery.MessageData != fmt.Sprint(i) {
			t.Fatal(i, delivery, err)
		}
		if err := consumer.Ack(delivery.MessageCode); err != nil {
			t.Fatal(err)
		}
	}
	if err := consumer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
}

func TestADPMQServersFile(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b, addr := runFile(t, dpmqFile)
	conn, _, err := plain.Dial(ctx, "ws://"+addr+"/ConsumersConn/t/c", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, err := http.PostForm("http://"+addr+"/ProducerSend", url.Values{"messageData": {"x"}, "topic": {"t"}})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var sent struct {
		Code int
		Msg  string
	}
	if err := json.NewDecoder(answer.Body).Decode(&sent); err != nil || sent.Code != 0 {
		t.Fatal(sent, err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	var pushed struct{ MessageCode, MessageData string }
	if err := conn.ReadJSON(&pushed); err != nil || pushed.MessageCode != sent.Msg || pushed.MessageData != "x" {
		t.Fatal(pushed, sent, err)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
}
