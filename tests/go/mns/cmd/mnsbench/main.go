// This program measures the official SDK against the MNS front of a broker, and prints one line of JSON.
//
//	mnsbench --mode mns_send|mns_batch|mns_take --addr HOST:PORT [--topic QUEUE] [--clients N] [--size BYTES]
//	         [--seconds S] [--limit MESSAGES]
//
// Each of the clients is a goroutine with one request at a time: one message, sixteen of them, or, of messages that
// were sent before, a receive of sixteen and their delete.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	ali_mns "github.com/aliyun/aliyun-mns-go-sdk"
	"github.com/valyala/fasthttp"
)

const batch = 16

// to leads what is sent to a host of the service to the broker: the SDK takes no address of this machine.
type to struct{ client *fasthttp.HostClient }

func (t to) RoundTrip(_ *fasthttp.HostClient, req *fasthttp.Request, resp *fasthttp.Response) (bool, error) {
	return false, t.client.Do(req, resp)
}

type line struct {
	Name       string  `json:"name"`
	Mode       string  `json:"mode"`
	Clients    int     `json:"clients"`
	Size       int     `json:"size"`
	Messages   int64   `json:"messages"`
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
	Rate       float64 `json:"rate"`
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// run has the clients take steps until one fails or all say that they are done.
func run(clients int, step func() (done bool, err error)) error {
	var all sync.WaitGroup
	failed := make(chan error, clients)
	for range clients {
		all.Add(1)
		go func() {
			defer all.Done()
			for {
				if done, err := step(); done || err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	all.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			return err
		}
	}
	return nil
}

// take receives up to sixteen and deletes them: how many.
func take(queue ali_mns.AliMNSQueue) (int64, error) {
	got, failed := make(chan ali_mns.BatchMessageReceiveResponse, 1), make(chan error, 1)
	queue.BatchReceiveMessage(got, failed, batch, 1)
	select {
	case messages := <-got:
		handles := make([]string, 0, batch)
		for _, message := range messages.Messages {
			handles = append(handles, message.ReceiptHandle)
		}
		_, err := queue.BatchDeleteMessage(handles...)
		return int64(len(handles)), err
	case err := <-failed:
		if ali_mns.ERR_MNS_MESSAGE_NOT_EXIST.IsEqual(err) {
			return 0, nil
		}
		return 0, err
	}
}

func measure(mode, addr, topic string, clients, size int, took time.Duration, limit int64) (line, error) {
	mns := ali_mns.NewAliMNSClientWithToken("http://1234.mns.cn-test.aliyuncs.com", "id", "secret", "")
	mns.SetTransport(to{&fasthttp.HostClient{Addr: addr, MaxConns: clients}})
	err := ali_mns.NewMNSQueueManager(mns).CreateSimpleQueue(topic)
	if err != nil {
		return line{}, err
	}
	queue := ali_mns.NewMNSQueue(topic, mns, math.MaxInt32)
	one := ali_mns.MessageSendRequest{MessageBody: strings.Repeat("x", size), Priority: 8}
	several := make([]ali_mns.MessageSendRequest, batch)
	for at := range several {
		several[at] = one
	}
	if mode == "mns_take" {
		limit = max(limit, batch) / batch * batch
		for range limit / batch {
			if _, err := queue.BatchSendMessage(several...); err != nil {
				return line{}, err
			}
		}
	}
	if limit == 0 {
		limit = math.MaxInt64
	}
	var messages atomic.Int64
	start, cpu := time.Now(), cpuSeconds()
	end := start.Add(took)
	switch mode {
	case "mns_send":
		err = run(clients, func() (bool, error) {
			_, err := queue.SendMessage(one)
			return messages.Add(1) >= limit || time.Now().After(end), err
		})
	case "mns_batch":
		err = run(clients, func() (bool, error) {
			_, err := queue.BatchSendMessage(several...)
			return messages.Add(batch) >= limit || time.Now().After(end), err
		})
	case "mns_take":
		err = run(clients, func() (bool, error) {
			taken, err := take(queue)
			return messages.Add(taken) >= limit, err
		})
	default:
		err = fmt.Errorf("a mode is mns_send, mns_batch or mns_take, not %q", mode)
	}
	seconds := time.Since(start).Seconds()
	sent := messages.Load()
	return line{"go sdk", mode, clients, size, sent, seconds, cpuSeconds() - cpu, float64(sent) / seconds}, err
}

func main() {
	mode := flag.String("mode", "mns_send", "mns_send, mns_batch or mns_take")
	addr := flag.String("addr", "127.0.0.1:8012", "HOST:PORT of the front")
	topic := flag.String("topic", "bench", "the queue")
	clients := flag.Int("clients", 8, "goroutines")
	size := flag.Int("size", 100, "bytes of a body")
	seconds := flag.Float64("seconds", 2, "how long to send")
	limit := flag.Int64("limit", 0, "messages after which to stop before that; 0 for none")
	flag.Parse()
	l, err := measure(*mode, *addr, *topic, *clients, *size, time.Duration(*seconds*float64(time.Second)), *limit)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(l)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mnsbench:", err)
		os.Exit(1)
	}
}
