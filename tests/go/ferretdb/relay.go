package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
)

// An update of MongoDB is atomic for each document. FerretDB reads, decides and writes in three steps, between which
// another command comes in: here one command runs at a time. A greeting waits for none: it says whether the server lives.
var turn sync.Mutex

const (
	headerLength = 16
	longest      = 48_000_000
	opQuery      = 2004
	opMessage    = 2013
	moreToCome   = 1 << 1
	opcodeOffset = 12
	flagsLength  = 4
	// Behind the flags, the kind of the section, the length of its document and the type of its first field.
	nameOffset = headerLength + flagsLength + 1 + 4 + 1
)

func relay(listener net.Listener, socket string) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer client.Close()
			server, err := net.Dial("unix", socket)
			if err != nil {
				return
			}
			defer server.Close()
			for exchange(client, server) == nil {
			}
		}()
	}
}

func exchange(client, server net.Conn) error {
	request, err := message(client)
	if err != nil {
		return err
	}
	fault := met(request)
	if fault != nil {
		if over, err := fault.before(client, request); over || err != nil {
			return err
		}
	}
	answer, err := ask(server, request)
	if err != nil || answer == nil {
		return err
	}
	if fault != nil {
		if answer, err = fault.after(client, request, answer); err != nil {
			return err
		}
	}
	_, err = client.Write(answer)
	return err
}

func ask(server net.Conn, request []byte) ([]byte, error) {
	if !greeting(request) {
		turn.Lock()
		defer turn.Unlock()
	}
	if _, err := server.Write(request); err != nil {
		return nil, err
	}
	if unanswered(request) {
		return nil, nil
	}
	return message(server)
}

func unanswered(request []byte) bool {
	if binary.LittleEndian.Uint32(request[opcodeOffset:]) != opMessage || len(request) < headerLength+flagsLength {
		return false
	}
	return binary.LittleEndian.Uint32(request[headerLength:])&moreToCome != 0
}

func greeting(request []byte) bool {
	switch binary.LittleEndian.Uint32(request[opcodeOffset:]) {
	case opQuery:
		return true
	case opMessage:
		if len(request) <= nameOffset {
			return false
		}
		name, _ := cString(request[nameOffset:])
		return name == "hello" || strings.EqualFold(name, "ismaster")
	}
	return false
}

func cString(from []byte) (string, []byte) {
	text, rest, _ := bytes.Cut(from, []byte{0})
	return string(text), rest
}

func message(from io.Reader) ([]byte, error) {
	header := make([]byte, headerLength)
	if _, err := io.ReadFull(from, header); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint32(header)
	if length < headerLength || length > longest {
		return nil, errors.New("a message of an impossible length")
	}
	whole := make([]byte, length)
	copy(whole, header)
	_, err := io.ReadFull(from, whole[headerLength:])
	return whole, err
}
