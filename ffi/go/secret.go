package ceiba

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
)

// stars stand for a secret wherever it would be printed.
const stars = "***"

// Secret is a secret of a configuration, given as a text or as the place to read it from. It does not
// print.
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

// MarshalJSON writes the library's form, with the secret: it is meant for a configuration alone.
func (s Secret) MarshalJSON() ([]byte, error) {
	switch {
	case s.env != "":
		return json.Marshal(map[string]string{"env": s.env})
	case s.file != "":
		return json.Marshal(map[string]string{"file": s.file})
	case s.text != nil:
		return json.Marshal(*s.text)
	}
	return json.Marshal("")
}

// LogValue hides what its JSON would show.
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf("%+v", c)) }

// LogValue hides what its JSON would show.
func (k KapokMQ) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf("%+v", k)) }

// plainBrokerConfig prints and marshals as a struct does.
type plainBrokerConfig BrokerConfig

// Format prints it without the secret, whatever the verb.
func (c BrokerConfig) Format(f fmt.State, verb rune) {
	c.SecretKey = stars
	text := fmt.Sprintf(fmt.FormatString(f, verb), plainBrokerConfig(c))
	fmt.Fprint(f, strings.Replace(text, "plainBrokerConfig", "BrokerConfig", 1))
}

// String is the configuration without the secret.
func (c BrokerConfig) String() string { return fmt.Sprintf("%+v", c) }

// GoString is the configuration without the secret.
func (c BrokerConfig) GoString() string { return fmt.Sprintf("%#v", c) }

// LogValue is the configuration without the secret.
func (c BrokerConfig) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON leaves the secret out: a broker of what is read back makes one of its own.
func (c BrokerConfig) MarshalJSON() ([]byte, error) {
	c.SecretKey = ""
	return json.Marshal(plainBrokerConfig(c))
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
