// Package redistest runs a Redis server for a test.
package redistest

import (
	"fmt"
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Start runs a server of its own on a free port of this machine until the test has ended, and returns a client of it
// and its process.
func Start(t testing.TB) (*redis.Client, *exec.Cmd) {
	t.Helper()
	for range 5 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := listener.Addr().(*net.TCPAddr)
		_ = listener.Close()
		server := exec.Command("redis-server", "--bind", "127.0.0.1", "--port", fmt.Sprint(addr.Port),
			"--save", "", "--appendonly", "no", "--dir", t.TempDir())
		if err := server.Start(); err != nil {
			t.Fatalf("redis-server is needed for this test: %v", err)
		}
		t.Cleanup(func() {
			_ = server.Process.Kill()
			_ = server.Wait()
		})
		client := redis.NewClient(&redis.Options{Addr: addr.String(), DialTimeout: time.Second, ReadTimeout: time.Second})
		t.Cleanup(func() { _ = client.Close() })
		for range 200 {
			if client.Ping(t.Context()).Err() == nil {
				return client, server
			}
			time.Sleep(25 * time.Millisecond)
		}
	}
	t.Fatal("redis-server did not start")
	return nil, nil
}
