package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"ceiba.test/wire/plain"
)

// Three wrong keys end the connection, on both kinds of it. The original lets a client guess for ever.
func TestThreeWrongKeys(t *testing.T) {
	if original {
		t.Skip("the original server lets a client guess for ever")
	}
	for _, role := range []string{"Producers", "Consumers"} {
		p, _, err := dial(server(t, ""), fmt.Sprintf("/%s/Conn/%s/guesser", role, newTopic()), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer p.leave()
		for range 3 {
			// The frames of a guess that ends the connection may be cut short; a success never comes.
			if err := p.conn.WriteMessage(websocket.TextMessage, []byte(secret()+"-wrong")); err != nil {
				t.Fatalf("%s: closed before the third wrong key: %v", role, err)
			}
		}
		// Too late even for the right one.
		_ = p.conn.WriteMessage(websocket.TextMessage, []byte(secret()))
		refused := 0
		for {
			f, err := p.next(10 * time.Second)
			if err != nil {
				if !errors.Is(err, errEnded) {
					t.Errorf("%s: the connection is still open after three wrong keys", role)
				}
				break
			}
			switch f.text {
			case plain.Succeeded:
				t.Fatalf("%s: logged in after three wrong keys", role)
			case plain.Refused:
				refused++
			}
		}
		if refused > 3 {
			t.Errorf("%s: %d keys were looked at", role, refused)
		}
	}
}

// A frame past 64 MiB ends its connection before it is read whole.
func TestOversizedFrame(t *testing.T) {
	if original {
		t.Skip("the original server has no bound")
	}
	p, _, err := dial(server(t, ""), fmt.Sprintf("/Producers/Conn/%s/big", newTopic()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.leave()
	if err := p.login(secret()); err != nil {
		t.Fatal(err)
	}
	const size = 64<<20 + 1
	head := binary.BigEndian.AppendUint64([]byte{0x81, 0x80 | 127}, size)
	// The mask is zero: the payload goes as it is.
	head = append(head, 0, 0, 0, 0)
	wire := p.conn.NetConn()
	if _, err := wire.Write(head); err != nil {
		t.Fatal(err)
	}
	// The first part is enough for a verdict; the whole of it is never sent.
	if _, err := wire.Write(make([]byte, 64<<10)); err != nil {
		t.Logf("cut off while writing: %v", err)
	}
	if err := p.closed("any", 10*time.Second); err != nil {
		t.Error(err)
	}
}

// Our broker is its own registry: without other nodes it names itself, and nothing else.
func TestRegistryNamesItself(t *testing.T) {
	if original {
		t.Skip("the original has a registry of its own")
	}
	addr := server(t, "")
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	body, err := plain.Web{Addr: addr, Secret: secret()}.Post(t.Context(), "/Registry/GetNodes", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`[{"Name":"mq:%s:%s","Addr":"%s","Port":"%s"}]`, host, port, host, port)
	if string(body) != want {
		t.Errorf("got %s, want %s", body, want)
	}
}
