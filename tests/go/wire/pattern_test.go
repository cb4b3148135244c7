package wire

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// token is a placeholder in a vector's text; tests/vectors/README.md lists them.
var token = regexp.MustCompile(`\{(topic|secret|code|time|int|string|local)(?::([A-Za-z0-9-]+)([+-][0-9]+)?)?\}`)

// scope holds what the placeholders of one vector stand for.
type scope struct {
	topic   string
	secret  string
	started time.Time
	seen    map[string]string
}

// fill replaces the placeholders of a text that is to be sent: all of them must be known.
func (s *scope) fill(text string) (string, error) {
	var failed error
	filled := token.ReplaceAllStringFunc(text, func(t string) string {
		m := token.FindStringSubmatch(t)
		value, known, err := s.value(m[1], m[2], m[3])
		if err == nil && !known {
			err = fmt.Errorf("%s is sent before it was seen", t)
		}
		if err != nil {
			failed = err
		}
		return value
	})
	return filled, failed
}

// value gives what a placeholder stands for, if that is known already.
func (s *scope) value(kind, name, plus string) (string, bool, error) {
	switch kind {
	case "topic":
		return s.topic, true, nil
	case "secret":
		return s.secret, true, nil
	case "local":
		seconds, err := strconv.Atoi(name + plus)
		at := time.Now().Add(time.Duration(seconds) * time.Second)
		return at.Format("2006-01-02 15:04:05"), true, err
	}
	value, known := s.seen[kind+":"+name]
	if name == "" || !known || plus == "" {
		return value, known && name != "", nil
	}
	number, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return "", false, err
	}
	add, err := strconv.ParseInt(plus, 10, 64)
	return strconv.FormatInt(number+add, 10), true, err
}

// match compares got with a pattern from its first byte to its last. Values of named placeholders that
// are met for the first time are remembered, but only when the whole text matches.
func (s *scope) match(pattern, got string) error {
	found := map[string]string{}
	at, rest := 0, pattern
	for rest != "" {
		place := token.FindStringSubmatchIndex(rest)
		literal := rest
		if place != nil {
			literal = rest[:place[0]]
		}
		if !strings.HasPrefix(got[at:], literal) {
			return mismatch(pattern, got, at, literal)
		}
		at += len(literal)
		if place == nil {
			break
		}
		group := func(n int) string {
			if place[2*n] < 0 {
				return ""
			}
			return rest[place[2*n]:place[2*n+1]]
		}
		kind, name, plus := group(1), group(2), group(3)
		rest = rest[place[1]:]
		value, known, err := s.value(kind, name, plus)
		if err != nil {
			return err
		}
		if !known {
			if earlier, ok := found[kind+":"+name]; ok {
				value, known = earlier, true
			}
		}
		if known {
			if !strings.HasPrefix(got[at:], value) {
				return mismatch(pattern, got, at, value)
			}
			at += len(value)
			continue
		}
		taken := s.take(kind, got[at:])
		if taken < 0 {
			return mismatch(pattern, got, at, "{"+kind+"}")
		}
		if name != "" {
			found[kind+":"+name] = got[at : at+taken]
		}
		at += taken
	}
	if at != len(got) {
		return mismatch(pattern, got, at, "the end")
	}
	for key, value := range found {
		s.seen[key] = value
	}
	return nil
}

var shapes = map[string]*regexp.Regexp{
	"code":   regexp.MustCompile(`^[0-9a-f]{32}`),
	"time":   regexp.MustCompile(`^[0-9]{10}`),
	"int":    regexp.MustCompile(`^-?[0-9]+`),
	"string": regexp.MustCompile(`^[^":]*`),
}

// take says how many bytes at the start of text have the shape of the placeholder, or -1.
func (s *scope) take(kind, text string) int {
	place := shapes[kind].FindStringIndex(text)
	if place == nil {
		return -1
	}
	if kind == "time" {
		seconds, err := strconv.ParseInt(text[:place[1]], 10, 64)
		if err != nil || seconds < s.started.Unix()-1 || seconds > time.Now().Unix()+1 {
			return -1
		}
	}
	return place[1]
}

func mismatch(pattern, got string, at int, want string) error {
	return fmt.Errorf("at byte %d: want %q\n  pattern: %q\n  got:     %q", at, short(want), short(pattern), short(got))
}

// short keeps a report readable when a body has megabytes.
func short(text string) string {
	const most = 600
	if len(text) <= most {
		return text
	}
	return fmt.Sprintf("%s... (%d bytes)", text[:most], len(text))
}
