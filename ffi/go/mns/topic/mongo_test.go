package topic

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ceiba"
	"ceiba/mns/config"
)

// startMongo starts a server of MongoDB's protocol over a folder, and returns its address and what ends it.
func startMongo(t *testing.T, arguments ...string) (string, func()) {
	t.Helper()
	server := exec.Command(filepath.Join("..", "..", "..", "..", "target", "ferretdb"), arguments...)
	server.Stderr = os.Stderr
	input, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal("tests/go/ferretdb/build.sh builds the MongoDB of the tests: ", err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			_ = server.Process.Kill()
			_ = server.Wait()
		}
	}
	t.Cleanup(end)
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, output)
	_ = input
	return strings.TrimSpace(line), end
}

func TestAMongoDBKeepsThem(t *testing.T) {
	folder := t.TempDir()
	address, end := startMongo(t, folder)
	s := startService(t)
	c := s.config(t)
	c.Store = ""
	// As the README of its ancestor has it.
	c.MongoURI = "mongodb://" + address + "/admin"
	s.down.Store(true)
	if _, err := NewMNSTopic(c).SendMessage(map[string]string{"game_id": "123"}); !errors.Is(err, ErrStored) {
		t.Fatal(err)
	}
	list := *c
	list.Store = c.MongoURI
	if kept := rows(t, &list); len(kept) != 1 || kept[0].Short != `{"game_id":"123"}` {
		t.Fatal(kept)
	}
	s.down.Store(false)
	if err := NewMNSTopic(c).Retry(5, nil); err != nil {
		t.Fatal(err)
	}
	if got := s.got(); len(got) != 1 || len(rows(t, &list)) != 0 {
		t.Fatal(got)
	}

	s.down.Store(true)
	if _, err := NewMNSTopic(c).SendMessage("dies"); !errors.Is(err, ErrStored) {
		t.Fatal(err)
	}
	var told []config.Digest
	for range 2 {
		err := NewMNSTopic(c).Retry(2, func(given ...config.Digest) error {
			told = append(told, given...)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 1 || len(told[0].Failed) != 1 || told[0].Failed[0].Short != "dies" || told[0].Failed[0].Attempts != 2 {
		t.Errorf("%+v", told)
	}

	// Without it a message is the caller's, and with it again all goes on.
	end()
	if _, err := NewMNSTopic(c).SendMessage("mine still"); errors.Is(err, ErrStored) || !errors.Is(err, ceiba.ErrStorage) {
		t.Error(err)
	}
	startMongo(t, folder, address)
	eventually(t, "it is stored", func() bool {
		_, err := NewMNSTopic(c).SendMessage("kept")
		return errors.Is(err, ErrStored)
	})
	kept := rows(t, &list)
	if len(kept) != 2 || kept[0].State != ceiba.RowDead || kept[1].Short != "kept" {
		t.Error(kept)
	}
}
