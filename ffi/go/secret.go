package ceiba

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
)

// stars stand for a secret wherever it would be printed.
const stars = "***"

// Secret is a secret of a configuration, given as a text or as the place to read it from. It prints, and
// marshals, as stars.
type Secret struct {
	// Behind a pointer: where fmt may call no methods, as in an unexported field, it prints an address.
	text      *string
	env, file string
}

// SecretText is the secret itself.
func SecretText(text string) Secret { return Secret{text: &text} }

// SecretEnv names the environment variable that holds the secret.
func SecretEnv(name string) Secret { return Secret{env: name} }

// SecretFile names the file that holds the secret.
func SecretFile(path string) Secret { return Secret{file: path} }

// String hides the secret.
func (Secret) String() string { return stars }

// GoString hides the secret.
func (Secret) GoString() string { return stars }

// Format hides the secret, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, stars) }

// LogValue hides the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue(stars) }

// MarshalJSON hides the secret: only what the Open functions give to the library holds it.
func (Secret) MarshalJSON() ([]byte, error) { return json.Marshal(stars) }

// plain is the library's form, with the secret.
func (s Secret) plain() any {
	switch {
	case s.env != "":
		return map[string]string{"env": s.env}
	case s.file != "":
		return map[string]string{"file": s.file}
	case s.text != nil:
		return *s.text
	}
	return ""
}

// read gets the secret from its place.
func (s Secret) read() (string, *Error) {
	switch {
	case s.env != "":
		text, set := os.LookupEnv(s.env)
		if !set {
			return "", errorf(ErrInvalidConfig, "the environment variable `%s` is not set", s.env)
		}
		return text, nil
	case s.file != "":
		text, err := os.ReadFile(s.file)
		if err != nil {
			return "", errorf(ErrInvalidConfig, "the secret file cannot be read: %v", err)
		}
		return strings.TrimRight(string(text), "\r\n"), nil
	case s.text != nil:
		return *s.text, nil
	}
	return "", nil
}

// Format prints the address alone, whatever the verb.
func (b *Broker) Format(f fmt.State, _ rune) {
	if b == nil {
		fmt.Fprint(f, "<nil>")
		return
	}
	fmt.Fprintf(f, "Broker{address: %s, secret: %s}", b.address, stars)
}

// String is the broker's address without its secret.
func (b *Broker) String() string { return fmt.Sprint(b) }

// GoString is the broker's address without its secret.
func (b *Broker) GoString() string { return fmt.Sprint(b) }

// LogValue is the broker's address without its secret.
func (b *Broker) LogValue() slog.Value { return slog.StringValue(b.String()) }
