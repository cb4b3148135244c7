// Package wire tests a broker of the KapokMQ wire from outside, with a client that has nothing of ceiba in it.
package wire

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// unique keeps the topics of one run apart from those of earlier runs against the same server.
var unique = fmt.Sprintf("%x", time.Now().UnixNano()&0xffffffffff)

var topics atomic.Int64

func newTopic() string { return fmt.Sprintf("w%s-%d", unique, topics.Add(1)) }

// Every row of the wire, as tests/vectors/kapokmq.json states it. One after the other: some look at the whole server.
func TestVectors(t *testing.T) {
	vectors, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if len(vectors) == 0 {
		t.Fatal("the file holds no vector")
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			r := play{
				addr:  server(t, v.Server),
				scope: &scope{topic: newTopic(), secret: secret(), started: time.Now(), seen: map[string]string{}},
				peers: map[string]*peer{},
			}
			if err := r.run(v.expected(original)); err != nil {
				t.Errorf("%s (%s)\nrow: %s\n%v", v.Name, v.Verdict, v.Row, err)
			}
		})
	}
}
