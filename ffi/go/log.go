package ceiba

import (
	"context"
	"log/slog"
)

// levelTrace is below slog's own levels.
const levelTrace = slog.LevelDebug - 4

// logLevels are the library's, by their number.
var logLevels = map[int]slog.Level{
	1: slog.LevelError, 2: slog.LevelWarn, 3: slog.LevelInfo, 4: slog.LevelDebug, 5: levelTrace,
}

// SetLogger has the library's log written to a logger, in place of the one set before; nil turns it off,
// as it is at first. Each record has the attribute "target", the part of the library it comes from.
//
// The levels that the logger is enabled for at the time of the call decide how much is made; a logger
// that should later show more has to be set again. The logger is called on a thread of the library, one
// record at a time; a slow one makes the library drop records, which a later record tells.
func SetLogger(logger *slog.Logger) error {
	if err := checkLibrary(); err != nil {
		return err
	}
	if logger == nil {
		return orNil(cLogSet(nil, 0))
	}
	ctx := context.Background()
	most := 1
	for number, level := range logLevels {
		if number > most && logger.Enabled(ctx, level) {
			most = number
		}
	}
	return orNil(cLogSet(func(number int, target, message string) {
		level, ok := logLevels[number]
		if !ok {
			level = slog.LevelInfo
		}
		logger.LogAttrs(ctx, level, message, slog.String("target", target))
	}, most))
}
