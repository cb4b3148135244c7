package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// A fault is what happens to one command, as a line on standard input says:
//
//	COMMAND COLLECTION SKIP WHAT [DOCUMENT]
//
// It meets the first such command after SKIP others, once. What happens:
//
//	wait     it is done after the line "go"
//	refuse   it is not done, and its connection is cut
//	lose     it is done, and its connection is cut
//	hang     it is done, and never answered
//	answer   it is not done, and answered by the document, which is in hexadecimal
//	confirm  it is done, and answered so
//
// "set" on standard output answers the line, and "met" with the command's document tells that it was met.
type fault struct {
	command, collection string
	skip                int
	what                string
	answer              []byte
}

var (
	errCut = errors.New("a connection was to be cut")

	faults struct {
		sync.Mutex
		open []*fault
	}
	goes = make(chan struct{}, 64)
	told sync.Mutex
)

func tell(words ...any) {
	told.Lock()
	defer told.Unlock()
	fmt.Println(words...)
}

// obey reads faults until there are no more lines.
func obey(lines io.Reader) error {
	scanner := bufio.NewScanner(lines)
	for scanner.Scan() {
		words := strings.Fields(scanner.Text())
		if len(words) == 1 && words[0] == "go" {
			goes <- struct{}{}
			continue
		}
		if len(words) < 4 {
			return fmt.Errorf("no fault: %q", scanner.Text())
		}
		skip, err := strconv.Atoi(words[2])
		if err != nil {
			return err
		}
		answer, err := hex.DecodeString(strings.Join(words[4:], ""))
		if err != nil {
			return err
		}
		faults.Lock()
		faults.open = append(faults.open, &fault{words[0], words[1], skip, words[3], answer})
		faults.Unlock()
		tell("set")
	}
	return scanner.Err()
}

// met returns the fault that a command meets.
func met(request []byte) *fault {
	document, command, collection := named(request)
	if command == "" {
		return nil
	}
	faults.Lock()
	defer faults.Unlock()
	for place, fault := range faults.open {
		if fault.command != command || fault.collection != collection {
			continue
		}
		if fault.skip > 0 {
			fault.skip--
			continue
		}
		faults.open = append(faults.open[:place:place], faults.open[place+1:]...)
		tell("met", hex.EncodeToString(document))
		return fault
	}
	return nil
}

// before is what happens in place of the command, or before it: an error ends the connection, and true the exchange.
func (f *fault) before(client net.Conn, request []byte) (bool, error) {
	switch f.what {
	case "wait":
		<-goes
	case "refuse":
		return true, errCut
	case "answer":
		_, err := client.Write(answering(request, f.answer))
		return true, err
	}
	return false, nil
}

// after is what happens to its answer.
func (f *fault) after(client net.Conn, request, answer []byte) ([]byte, error) {
	switch f.what {
	case "lose":
		return nil, errCut
	case "hang":
		_, _ = io.Copy(io.Discard, client)
		return nil, errCut
	case "confirm":
		return answering(request, f.answer), nil
	}
	return answer, nil
}

// answering makes a message of a document.
func answering(request, document []byte) []byte {
	length := headerLength + flagsLength + 1 + len(document)
	answer := make([]byte, headerLength+flagsLength+1, length)
	binary.LittleEndian.PutUint32(answer, uint32(length))
	copy(answer[8:12], request[4:8])
	binary.LittleEndian.PutUint32(answer[opcodeOffset:], opMessage)
	return append(answer, document...)
}

// named returns the document of a command, its name and the collection it is about.
func named(request []byte) (document []byte, command, collection string) {
	const text = 2
	if binary.LittleEndian.Uint32(request[opcodeOffset:]) != opMessage || len(request) <= nameOffset {
		return nil, "", ""
	}
	document = request[headerLength+flagsLength+1:]
	if length := binary.LittleEndian.Uint32(document); int(length) <= len(document) {
		document = document[:length]
	}
	name, rest := cString(request[nameOffset:])
	if request[nameOffset-1] != text || len(rest) < 4 {
		return nil, "", ""
	}
	collection, _ = cString(rest[4:])
	return document, name, collection
}
