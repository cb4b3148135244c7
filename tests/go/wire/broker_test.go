package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Where the servers are. Without CEIBA_TEST_BROKER the program `ceiba` (CEIBA_BIN) is started, once per delivery mode.
const defaultProgram = "../../../target/debug/ceiba"

// original says that the other side is the original server: its expectations hold where ours are mended.
var original = os.Getenv("WIRE_ORIGINAL") == "1"

func secret() string {
	if s := os.Getenv("CEIBA_TEST_SECRET"); s != "" {
		return s
	}
	return "test"
}

var outside = map[string]string{
	"work_queue":        os.Getenv("CEIBA_TEST_BROKER"),
	"publish_subscribe": os.Getenv("CEIBA_TEST_BROKER_PUBSUB"),
	"registry":          os.Getenv("CEIBA_TEST_REGISTRY"),
}

// brokers are the started ones, by delivery mode.
var brokers = struct {
	sync.Mutex
	running map[string]*broker
}{running: map[string]*broker{}}

type broker struct {
	addr    string
	command *exec.Cmd
	ended   chan error
}

// server gives the address of a server of the named kind, started when need be.
func server(t *testing.T, kind string) string {
	t.Helper()
	if kind == "" {
		kind = "work_queue"
	}
	if outside["work_queue"] != "" {
		if kind == "registry" && outside[kind] == "" && !original {
			kind = "work_queue" // ours answers registry calls itself
		}
		if outside[kind] == "" {
			t.Fatalf("CEIBA_TEST_BROKER is set, but no address is given for a server of kind %s", kind)
		}
		return outside[kind]
	}
	if kind == "registry" {
		kind = "work_queue"
	}
	brokers.Lock()
	defer brokers.Unlock()
	if b, ok := brokers.running[kind]; ok {
		return b.addr
	}
	b, err := start(kind)
	if err != nil {
		t.Fatal(err)
	}
	brokers.running[kind] = b
	return b.addr
}

func start(delivery string) (*broker, error) {
	return run("--listen", "127.0.0.1:0", "--secret", secret(), "--delivery", delivery)
}

// run starts the program's broker with these arguments.
func run(arguments ...string) (*broker, error) {
	program := os.Getenv("CEIBA_BIN")
	if program == "" {
		program = defaultProgram
	}
	command := exec.Command(program, append([]string{"broker"}, arguments...)...)
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	b := &broker{command: command, ended: make(chan error, 1)}
	line := make(chan string, 1)
	go func() {
		reader := bufio.NewReader(out)
		first, _ := reader.ReadString('\n')
		line <- first
		_, _ = io.Copy(io.Discard, reader)
		b.ended <- command.Wait()
	}()
	select {
	case first := <-line:
		if b.addr = address(first); b.addr == "" {
			_ = command.Process.Kill()
			return nil, fmt.Errorf("no address in the first line of %s: %q", program, first)
		}
	case <-time.After(30 * time.Second):
		_ = command.Process.Kill()
		return nil, fmt.Errorf("%s printed no line in 30 s", program)
	}
	return b, nil
}

// address is the last word of the line that holds host:port, without its scheme and path.
func address(line string) string {
	found := ""
	for _, word := range strings.Fields(line) {
		if _, rest, ok := strings.Cut(word, "://"); ok {
			word = rest
		}
		word, _, _ = strings.Cut(word, "/")
		if _, port, err := net.SplitHostPort(strings.Trim(word, ",;()\"'")); err == nil && port != "" {
			found = strings.Trim(word, ",;()\"'")
		}
	}
	return found
}

// stop asks the program to end, as a service manager does, and expects exit code 0.
func (b *broker) stop() error {
	if err := b.command.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-b.ended:
		return err
	case <-time.After(30 * time.Second):
		_ = b.command.Process.Kill()
		return errors.New("still running 30 s after SIGTERM")
	}
}

func TestMain(m *testing.M) {
	code := m.Run()
	for delivery, b := range brokers.running {
		if err := b.stop(); err != nil {
			fmt.Fprintf(os.Stderr, "FAIL: the %s broker did not end well: %v\n", delivery, err)
			code = 1
		}
	}
	os.Exit(code)
}
