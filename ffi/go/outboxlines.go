package ceiba

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
)

const (
	// importLines and importBytes bound what one call of the library takes.
	importLines = 1000
	importBytes = 8 << 20
	// longestLine bounds a line of an import: a message of the largest size in Base64, with its fields.
	longestLine = 1 << 30
)

// Export writes rows with all that is in them, a line of JSON for each, for [Outbox.Import], and returns how many.
// What is added or deleted meanwhile may be missing; all other rows are there. An error of the writer comes as it is.
func (o *Outbox) Export(ctx context.Context, w io.Writer, options ListOptions) (int64, error) {
	var written int64
	buffered := bufio.NewWriterSize(w, 64<<10)
	for {
		var answer struct {
			Lines []string `json:"lines"`
			Next  string   `json:"next"`
		}
		if err := o.ask(ctx, outboxExport, options.keys(), &answer); err != nil {
			return written, errors.Join(err, buffered.Flush())
		}
		for _, line := range answer.Lines {
			// The first error of the writer is told by the flush.
			buffered.WriteString(line)
			buffered.WriteByte('\n')
		}
		if err := buffered.Flush(); err != nil {
			return written, err
		}
		written += int64(len(answer.Lines))
		if answer.Next == "" {
			return written, nil
		}
		options.After = answer.Next
	}
}

// Imported is what became of the rows of an import.
type Imported struct {
	// Imported counts those that are new.
	Imported int64
	// Known counts those that were there already, from an earlier import too, and stay as they are.
	Known int64
}

// Import puts rows of an export into an outbox; a file that is not there is made. Some may be there when it ends with an
// error; then it can be done again, and imports no row twice that is still there. One that was sent meanwhile, and is not
// kept by KeepDone, is not known any more: it would be sent again. [ErrInvalidArgument] names the line that is wrong. An
// error of the reader comes as it is.
func (o *Outbox) Import(ctx context.Context, r io.Reader) (Imported, error) {
	var all Imported
	var lines []string
	bytes, before := 0, 0
	put := func() error {
		if len(lines) == 0 {
			return nil
		}
		var answer struct {
			Imported int64 `json:"imported"`
			Known    int64 `json:"known"`
		}
		if err := o.ask(ctx, outboxImport, map[string]any{"lines": lines}, &answer); err != nil {
			var told *Error
			if before > 0 && errors.As(err, &told) {
				told.Message = fmt.Sprintf("after line %d: %s", before, told.Message)
			}
			return err
		}
		all.Imported += answer.Imported
		all.Known += answer.Known
		before += len(lines)
		lines, bytes = lines[:0], 0
		return nil
	}
	buffered := bufio.NewReaderSize(r, 64<<10)
	for {
		line, ended := readLine(buffered)
		if ended != nil && ended != io.EOF {
			return all, ended
		}
		// An empty line is none.
		if line != "" {
			lines = append(lines, line)
			bytes += len(line)
		}
		if ended == io.EOF || len(lines) >= importLines || bytes >= importBytes {
			if err := put(); err != nil {
				return all, err
			}
		}
		if ended == io.EOF {
			return all, nil
		}
	}
}

func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		some, err := r.ReadSlice('\n')
		line = append(line, some...)
		if len(line) > longestLine {
			return "", errorf(ErrTooLarge, "a line is longer than %d bytes", longestLine)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
			line = line[:len(line)-1]
		}
		return string(line), err
	}
}
