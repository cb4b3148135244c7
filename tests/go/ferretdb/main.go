// A server of MongoDB's protocol for the tests, in one process: FerretDB over SQLite.
//
//	ferretdb FOLDER [HOST:PORT]
//
// What it keeps is in FOLDER, so that another one can go on with it. It prints the address where it listens (a free port of 127.0.0.1 unless
// named) on standard output, and ends when standard input does. The lines there are faults that commands are to meet.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: ferretdb FOLDER [HOST:PORT]")
		os.Exit(2)
	}
	address := "127.0.0.1:0"
	if len(os.Args) == 3 {
		address = os.Args[2]
	}
	if err := serve(os.Args[1], address); err != nil {
		fmt.Fprintln(os.Stderr, "ferretdb:", err)
		os.Exit(1)
	}
}

func serve(folder, address string) error {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return err
	}
	// A path of a socket is short.
	private, err := os.MkdirTemp("", "ferretdb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(private)
	socket := filepath.Join(private, "socket")
	database, err := ferretdb.New(&ferretdb.Config{
		Listener: ferretdb.ListenerConfig{Unix: socket},
		Logger:   slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Handler:  "sqlite",
		// It updates each document in a transaction of its own. Tests kill it, and do not cut the power.
		SQLiteURL: "file:" + folder + "/?_pragma=synchronous(off)",
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = database.Run(ctx)
	}()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		cancel()
		<-ended
		return err
	}
	go relay(listener, socket)
	tell(listener.Addr())
	obeyed := obey(os.Stdin)
	cancel()
	<-ended
	return errors.Join(obeyed, listener.Close())
}
